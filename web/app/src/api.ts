import { parseNodeId, type NodeId } from "./node";
import { Problem, sentence, SignedOut } from "./problem";

/** What the node says about itself and about who is signed in. */
export interface Session {
  node: NodeId;
  name: string;
  user: string;
  identity: string;
  /** What the sign-in may do, in the words of grants. */
  scopes: string[];
  statement: string;
  signature: string;
}

const DEADLINE_MS = 10_000;

/** The signed-in session; undefined if this browser is not signed in. */
export async function session(): Promise<Session | undefined> {
  const answer = await call("GET", "/alknet/session");
  if (answer === undefined) return undefined;
  const identity = answer["identity"];
  const node = parseNodeId(text(answer, "node"));
  if (node === undefined || !isObject(identity)) throw unexpected();
  return {
    node,
    name: text(answer, "name"),
    user: text(answer, "ssh_user"),
    identity: text(identity, "name"),
    scopes: texts(identity, "scopes"),
    statement: text(answer, "statement"),
    signature: text(answer, "signature"),
  };
}

/** Whether any of these scopes is for a service. */
export function covers(scopes: readonly string[], service: string): boolean {
  return scopes.some((scope) => ["*", service].includes(scope.split(":", 1)[0]!));
}

/** Allows an SSH key to log in as whoever is signed in, until this session ends. */
export async function authoriseKey(openssh: string): Promise<void> {
  if ((await call("POST", "/alknet/keys", { openssh })) === undefined) throw new SignedOut();
}

/** A single-use ticket for one connection, good for some seconds. */
export async function ticket(alpn: string): Promise<string> {
  const answer = await call("POST", "/alknet/ticket", { alpn });
  if (answer === undefined) throw new SignedOut();
  return text(answer, "ticket");
}

export async function signOut(): Promise<void> {
  await call("POST", "/alknet/signout", {});
}

type Json = Record<string, unknown>;

/**
 * The answer's JSON. A caller whom the node does not know gets whatever it shows to
 * strangers, so anything but JSON, or a success without content, means "not signed in".
 */
async function call(method: string, path: string, body?: Json): Promise<Json | undefined> {
  const request: RequestInit = {
    method,
    cache: "no-store",
    signal: AbortSignal.timeout(DEADLINE_MS),
  };
  if (body !== undefined) {
    request.body = JSON.stringify(body);
    request.headers = { "content-type": "application/json" };
  }
  const answer = await fetch(path, request).catch((cause: unknown) => {
    throw new Problem("The node does not answer", "Is it running, and reachable from here?", {
      cause,
    });
  });
  if (answer.status === 204) return {};
  const json = answer.headers.get("content-type")?.startsWith("application/json") ?? false;
  if (!json) return undefined;
  const value: unknown = await answer.json();
  if (!isObject(value)) throw unexpected();
  if (!answer.ok) throw new Problem("The node refused", sentence(text(value, "error")));
  return value;
}

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function text(json: Json, name: string): string {
  const value = json[name];
  if (typeof value !== "string") throw unexpected();
  return value;
}

function texts(json: Json, name: string): string[] {
  const value = json[name];
  if (!Array.isArray(value) || !value.every((it) => typeof it === "string")) throw unexpected();
  return value;
}

function unexpected(): Problem {
  return new Problem(
    "The node's answer makes no sense",
    "Perhaps this page is older than the node: reload it.",
  );
}
