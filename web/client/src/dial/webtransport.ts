import type { Certificate } from "../statement.js";
import { TICKET, type Duplex, type Session } from "./session.js";

/** How long a network that drops UDP may keep us waiting. */
const DEADLINE_MS = 5_000;

/** A WebTransport session; `certificates` are the only ones accepted, if there are any. */
export async function overWebTransport(
  alpn: string,
  origin: string,
  ticket: string,
  certificates: Certificate[],
  signal?: AbortSignal,
): Promise<Session> {
  signal?.throwIfAborted();
  const options: WebTransportOptions = { protocols: [alpn, TICKET + ticket] };
  if (certificates.length > 0) {
    options.serverCertificateHashes = certificates.map(({ sha256 }) => ({
      algorithm: "sha-256",
      value: sha256,
    }));
  }
  const session = new WebTransport(new URL(`/${alpn}`, origin).href, options);
  // Failures show in `ready` and in the streams; this promise would report them again.
  const closed = session.closed.then(
    ({ closeCode }) => closeCode,
    () => undefined,
  );
  const cut = () => session.close();
  const deadline = setTimeout(cut, DEADLINE_MS);
  signal?.addEventListener("abort", cut, { once: true });
  try {
    await session.ready;
  } catch (error) {
    session.close();
    signal?.throwIfAborted();
    throw error;
  } finally {
    clearTimeout(deadline);
    signal?.removeEventListener("abort", cut);
  }
  return {
    carrier: "webtransport",
    multiplexed: true,
    incoming: session.incomingBidirectionalStreams as ReadableStream<Duplex>,
    closed,
    open: () => session.createBidirectionalStream(),
    close: (closeCode = 0) => session.close({ closeCode }),
  };
}
