// TLS to a node whose certificate no authority has signed.
import { createHash } from "node:crypto";
import { isIP } from "node:net";
import { connect, type TLSSocket } from "node:tls";
import type { Certificate } from "../statement.js";

const DEADLINE_MS = 10_000;

/** The node's certificate is not one of those that are trusted. */
export class CertificateError extends Error {
  override readonly name = "CertificateError";

  constructor(sha256: string) {
    super(`the node's certificate is not one of those it may have: its SHA-256 is ${sha256}`);
  }
}

/** SHA-256 of the certificate that the other end has shown, in hex. */
export function shown(socket: TLSSocket): string {
  const certificate = socket.getPeerX509Certificate();
  if (certificate === undefined) throw new Error("the node has shown no certificate");
  return createHash("sha256").update(certificate.raw).digest("hex");
}

/**
 * A TLS connection whose certificate was not looked at: nothing secret goes over it before
 * somebody has.
 */
export function openUnchecked(origin: string, signal?: AbortSignal): Promise<TLSSocket> {
  return open(origin, false, undefined, signal);
}

/** A TLS connection to whoever shows one of these certificates. */
export async function openPinned(
  origin: string,
  pins: readonly string[],
  signal?: AbortSignal,
): Promise<TLSSocket> {
  const socket = await openUnchecked(origin, signal);
  const found = shown(socket);
  if (pins.includes(found)) return socket;
  socket.destroy();
  throw new CertificateError(found);
}

/** A TLS connection to a certificate of Node's own authorities, or of these. */
export function openTrusted(
  origin: string,
  ca: string | undefined,
  signal?: AbortSignal,
): Promise<TLSSocket> {
  return open(origin, true, ca, signal);
}

/** SHA-256 of certificates, in hex. */
export function pinsOf(certificates: readonly Certificate[]): string[] {
  return certificates.map(({ sha256 }) => Buffer.from(sha256).toString("hex"));
}

/** What somebody may have copied from anywhere, as the hexadecimal digits of a SHA-256. */
export function parsePin(text: string): string {
  const digits = text.replaceAll(":", "").toLowerCase();
  if (!/^[0-9a-f]{64}$/.test(digits)) throw new TypeError(`no SHA-256 of a certificate: ${text}`);
  return digits;
}

function open(
  origin: string,
  rejectUnauthorized: boolean,
  ca: string | undefined,
  signal?: AbortSignal,
): Promise<TLSSocket> {
  signal?.throwIfAborted();
  const { hostname, port } = new URL(origin);
  const host = hostname.replace(/^\[|\]$/g, "");
  return new Promise((resolve, reject) => {
    const socket = connect({
      host,
      port: Number(port || 443),
      ALPNProtocols: ["http/1.1"],
      rejectUnauthorized,
      ...(isIP(host) === 0 ? { servername: host } : {}),
      ...(ca === undefined ? {} : { ca }),
    });
    const abort = () => socket.destroy(signal?.reason as Error);
    const settle = () => {
      socket.setTimeout(0);
      signal?.removeEventListener("abort", abort);
    };
    signal?.addEventListener("abort", abort, { once: true });
    socket.setTimeout(DEADLINE_MS, () => socket.destroy(new Error("no TLS handshake in time")));
    socket.once("secureConnect", () => {
      settle();
      socket.off("error", reject);
      resolve(socket);
    });
    socket.once("error", reject);
    socket.once("close", settle);
  });
}
