import type { Certificate } from "../statement";
import { SERVICE, TICKET, type Line } from "./line";

/** How long a network that drops UDP may keep us waiting. */
const DEADLINE_MS = 5_000;

/** A WebTransport session with one stream; `certificates` are the only ones accepted, if any. */
export async function overWebTransport(
  host: string,
  ticket: string,
  certificates: Certificate[],
): Promise<Line> {
  const options: WebTransportOptions = { protocols: [SERVICE, TICKET + ticket] };
  if (certificates.length > 0) {
    options.serverCertificateHashes = certificates.map(({ sha256 }) => ({
      algorithm: "sha-256",
      value: sha256,
    }));
  }
  const session = new WebTransport(`https://${host}/${SERVICE}`, options);
  // Failures show in `ready` and in the stream; this promise would report them again.
  const closed = session.closed.then(
    ({ closeCode }) => closeCode,
    () => undefined,
  );
  const deadline = setTimeout(() => session.close(), DEADLINE_MS);
  try {
    await session.ready;
    const { readable, writable } = await session.createBidirectionalStream();
    const close = () => session.close();
    return { carrier: "webtransport", readable, writable, closed, close };
  } catch (error) {
    session.close();
    throw error;
  } finally {
    clearTimeout(deadline);
  }
}
