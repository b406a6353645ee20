import type { Certificate, NodeId } from "../statement.js";
import { fetchCertificates, fetchTicket } from "./node.js";
import type { Carrier, Line, Session } from "./session.js";
import { overWebSocket } from "./websocket.js";
import { overWebTransport } from "./webtransport.js";

/** Which carrier to use; `auto` is WebTransport, and WebSocket where that fails. */
export type Via = "auto" | Carrier;

/** How to reach a node. */
export interface DialOptions {
  /** The node's origin, `https://HOST[:PORT]`; the page's own if left out. */
  origin?: string;
  via?: Via;
  /** A bearer token; without one the browser's session cookie counts. */
  token?: string | (() => string | Promise<string>);
  /** The node's id. What the node says of its certificates has to be signed by it. */
  node?: NodeId;
  /** The certificates for WebTransport to accept, where the caller has them already. */
  certificates?: Certificate[];
  /** Gets a ticket for one try; from `POST /alknet/ticket` if left out. */
  ticket?: (alpn: string) => Promise<string>;
  /** Hears of each carrier that is tried. */
  trying?: (carrier: Carrier) => void;
  signal?: AbortSignal;
}

/** No carrier reached the node. */
export class DialError extends Error {
  override readonly name = "DialError";
  /** What each carrier failed with. */
  readonly failures: ReadonlyMap<Carrier, unknown>;

  constructor(failures: ReadonlyMap<Carrier, unknown>) {
    const reasons = [...failures].map(([carrier, error]) => `${carrier}: ${textOf(error)}`);
    super(`the node cannot be reached (${reasons.join("; ")})`);
    this.failures = failures;
  }
}

/** What it takes is not to be had on this platform. */
export class UnsupportedError extends Error {
  override readonly name = "UnsupportedError";

  constructor(what: string) {
    super(`there is no ${what}`);
  }
}

/** A connection to a service of the node, with its only stream: a byte stream each way. */
export async function dial(alpn: string, options: DialOptions = {}): Promise<Line> {
  const session = await dialSession(alpn, options);
  try {
    const { readable, writable } = await session.open();
    const { carrier, closed } = session;
    return { carrier, readable, writable, closed, close: () => session.close() };
  } catch (error) {
    session.close();
    throw error;
  }
}

/**
 * A connection to a service of the node: over WebTransport, and where that is missing or
 * fails over WebSocket, unless `via` says which. Each try has a ticket of its own. Throws a
 * {@link DialError}, {@link UnsupportedError}, `SignedOutError`, `StatementError`, or the
 * signal's reason.
 */
export async function dialSession(alpn: string, options: DialOptions = {}): Promise<Session> {
  const { signal, trying = () => undefined } = options;
  const failures = new Map<Carrier, unknown>();
  for (const carrier of order(options.via ?? "auto")) {
    signal?.throwIfAborted();
    trying(carrier);
    try {
      return await over(carrier, alpn, options);
    } catch (error) {
      signal?.throwIfAborted();
      if (!(error instanceof CarrierError)) throw error;
      failures.set(carrier, error.cause);
    }
  }
  throw new DialError(failures);
}

/** Something that another carrier may not suffer from. */
class CarrierError extends Error {}

async function over(carrier: Carrier, alpn: string, options: DialOptions): Promise<Session> {
  const origin = options.origin ?? location.origin;
  const asking = { origin, token: await tokenOf(options), signal: options.signal };
  const certificates = async () =>
    options.certificates ?? (await fetchCertificates(asking, options.node));
  const hashes = carrier === "webtransport" ? await certificates() : [];
  const ticket = await (options.ticket?.(alpn) ?? fetchTicket(alpn, asking));
  const session =
    carrier === "webtransport"
      ? overWebTransport(alpn, origin, ticket, hashes, options.signal)
      : overWebSocket(alpn, origin, ticket, options.signal);
  return session.catch((cause: unknown) => {
    throw new CarrierError(carrier, { cause });
  });
}

/** The bearer token, if the options have one. */
export async function tokenOf({ token }: Pick<DialOptions, "token">): Promise<string | undefined> {
  return typeof token === "function" ? await token() : token;
}

function order(via: Via): Carrier[] {
  const supported = "WebTransport" in globalThis;
  if (via === "webtransport" && !supported) throw new UnsupportedError("WebTransport here");
  if (via !== "auto") return [via];
  return supported ? ["webtransport", "websocket"] : ["websocket"];
}

/** What stays as it is, however often one dials; by name, because not all of it is for browsers. */
const FINAL = new Set(["SignedOutError", "UnsupportedError", "StatementError", "CertificateError"]);

/** Whether dialling again in a while may succeed. */
export function isTransient(error: unknown): boolean {
  return !(error instanceof Error && FINAL.has(error.name));
}

/** The text of anything that was thrown. */
export function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
