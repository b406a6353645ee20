import { Client } from "../client.js";
import {
  dialSession as dialAnywhere,
  tokenOf,
  UnsupportedError,
  type DialOptions,
} from "../dial/dial.js";
import type { Line, Session } from "../dial/session.js";
import { GitHttp } from "../git/http.js";
import { CALL, GIT, SHELL, type ConnectOptions as AnyOptions } from "../index.js";
import type { AnyOperations, OperationTypes } from "../operations.js";
import { Shells } from "../shell/shells.js";
import { Trusted, type Trust } from "./trust.js";
import { loadWebSocket, overTrusted, type WebSocketClass } from "./websocket.js";

export * from "../index.js";
export { CertificateError } from "./tls.js";
export { Trusted, type Trust } from "./trust.js";
export type { WebSocketClass } from "./websocket.js";

/** How to reach a node from Node.js. */
export interface NodeDialOptions extends Trust {
  /** The node's origin, `https://HOST[:PORT]`. */
  origin: string;
  /** A bearer token, or what gives one for each try. */
  token: string | (() => string | Promise<string>);
  /** The `WebSocket` of the npm package `ws`; that package, if it is installed, if left out. */
  WebSocket?: WebSocketClass;
  signal?: AbortSignal;
}

/** How to reach a node from Node.js, and what its client is made of. */
export type NodeConnectOptions = Omit<NodeDialOptions, "signal"> &
  Pick<AnyOptions, "onHandlerError">;

/** A client of a node, which connects in the background. */
export function connect<Ops extends OperationTypes<Ops> = AnyOperations>(
  options: NodeConnectOptions,
): Client<Ops> {
  const trusted = new Trusted(options.origin, options);
  return new Client<Ops>((signal) => over(trusted, CALL, { ...options, signal }), options);
}

/** The shells of a node that outlive their transports. */
export function shells(options: Omit<NodeDialOptions, "signal">): Shells {
  const trusted = new Trusted(options.origin, options);
  return new Shells((signal) => over(trusted, SHELL, { ...options, signal }));
}

/** The `http` of isomorphic-git for a node's repositories, which `repositoryUrl` addresses. */
export function gitHttp(options: Omit<NodeDialOptions, "signal">): GitHttp {
  const trusted = new Trusted(options.origin, options);
  return new GitHttp((signal) => over(trusted, GIT, { ...options, signal }), options.origin);
}

/** A connection to a service of the node, with its only stream: a byte stream each way. */
export async function dial(alpn: string, options: NodeDialOptions): Promise<Line> {
  const session = await dialSession(alpn, options);
  const { readable, writable } = await session.open();
  const { carrier, closed } = session;
  return { carrier, readable, writable, closed, close: () => session.close() };
}

/** A connection to a service of the node, over a WebSocket. */
export function dialSession(alpn: string, options: NodeDialOptions): Promise<Session> {
  return over(new Trusted(options.origin, options), alpn, options);
}

async function over(trusted: Trusted, alpn: string, options: NodeDialOptions): Promise<Session> {
  const token = (await tokenOf(options))!;
  const WebSocket = options.WebSocket ?? (await loadWebSocket());
  return WebSocket === undefined
    ? await dialAnywhere(alpn, ownWebSocket(options, token))
    : await overTrusted(WebSocket, alpn, trusted, token, options.signal);
}

/** Node's own WebSocket checks certificates by Node's authorities, and by nothing else. */
function ownWebSocket(options: NodeDialOptions, token: string): DialOptions {
  const { origin, signal, node, certificateSha256, ca } = options;
  const plain = node === undefined && certificateSha256 === undefined && ca === undefined;
  if (!plain || !("WebSocket" in globalThis)) {
    throw new UnsupportedError("WebSocket that will do: install the npm package ws");
  }
  return { origin, token, via: "websocket", ...(signal === undefined ? {} : { signal }) };
}
