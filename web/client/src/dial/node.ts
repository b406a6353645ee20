// What a client asks of the node by HTTPS before it opens a connection.
import { parseNodeId, verifyStatement, type Certificate, type NodeId } from "../statement.js";

const DEADLINE_MS = 10_000;

/** The node does not know this caller, or has nothing for them here. */
export class SignedOutError extends Error {
  override readonly name = "SignedOutError";

  constructor() {
    super("the node does not know who is asking, or lets them have no such service");
  }
}

/** A way to ask one node, as one caller. */
export interface Asking {
  origin: string;
  /** A bearer token; without one the browser's session cookie counts. */
  token?: string | undefined;
  signal?: AbortSignal | undefined;
}

/** A single-use ticket for one connection, good for some seconds. */
export async function fetchTicket(alpn: string, asking: Asking): Promise<string> {
  const { ticket } = await ask(asking, "POST", "/alknet/ticket", { alpn });
  if (typeof ticket !== "string") throw unexpected();
  return ticket;
}

/**
 * The certificates that the node vouches for. Without a known `node` the statement is taken
 * from whoever answers at this origin: good enough for a page that comes from there itself.
 */
export async function fetchCertificates(asking: Asking, node?: NodeId): Promise<Certificate[]> {
  const session = await ask(asking, "GET", "/alknet/session");
  return readStatement(session, node);
}

/** The certificates in the answer to `GET /alknet/session`. */
export async function readStatement(
  session: Record<string, unknown>,
  node?: NodeId,
): Promise<Certificate[]> {
  const { node: subject, statement, signature } = session;
  const by = node ?? (typeof subject === "string" ? parseNodeId(subject) : undefined);
  if (by === undefined || typeof statement !== "string" || typeof signature !== "string") {
    throw unexpected();
  }
  return verifyStatement(statement, signature, by);
}

/**
 * The answer's JSON. A caller whom the node does not know gets whatever it shows to
 * strangers, so anything but JSON means "not signed in", unless a server says of itself that
 * it is out of order.
 */
async function ask(
  { origin, token, signal }: Asking,
  method: string,
  path: string,
  body?: unknown,
): Promise<Record<string, unknown>> {
  const headers: Record<string, string> = {};
  if (body !== undefined) headers["content-type"] = "application/json";
  if (token !== undefined) headers["authorization"] = `Bearer ${token}`;
  const deadline = AbortSignal.timeout(DEADLINE_MS);
  const answer = await fetch(new URL(path, origin), {
    method,
    headers,
    cache: "no-store",
    redirect: "manual",
    signal: signal === undefined ? deadline : AbortSignal.any([signal, deadline]),
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  if (answer.status >= 500 || answer.status === 429) {
    throw new Error(`${path} answered ${answer.status}`);
  }
  const json = answer.headers.get("content-type")?.startsWith("application/json") ?? false;
  if (!answer.ok || !json) throw new SignedOutError();
  const value: unknown = await answer.json();
  if (typeof value !== "object" || value === null) throw unexpected();
  return value as Record<string, unknown>;
}

function unexpected(): Error {
  return new Error("the node's answer makes no sense: perhaps this client is older than it");
}
