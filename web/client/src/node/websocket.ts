import type { ClientRequest, IncomingMessage } from "node:http";
import { SignedOutError } from "../dial/node.js";
import type { Session } from "../dial/session.js";
import { address, opened, subprotocol } from "../dial/websocket.js";
import type { Trusted } from "./trust.js";

/** A message's greatest size: the node sends none that is longer. */
const MAX_MESSAGE = 1024 * 1024;

/** How long the node may take to close its side, too. */
const GOODBYE_MS = 2_000;

/** The `WebSocket` of the npm package `ws`. */
export type WebSocketClass = typeof import("ws").WebSocket;

/** `ws`, if it is installed. */
export async function loadWebSocket(): Promise<WebSocketClass | undefined> {
  try {
    return (await import("ws")).WebSocket;
  } catch {
    return undefined;
  }
}

/** A WebSocket of a caller with a bearer token, over a connection that was checked. */
export async function overTrusted(
  WebSocket: WebSocketClass,
  alpn: string,
  trusted: Trusted,
  token: string,
  signal?: AbortSignal,
): Promise<Session> {
  const tls = await trusted.open(token, signal);
  const socket = new WebSocket(address(alpn, trusted.origin), [subprotocol(alpn)], {
    headers: { authorization: `Bearer ${token}` },
    createConnection: () => tls,
    perMessageDeflate: false,
    maxPayload: MAX_MESSAGE,
    followRedirects: false,
  });
  let failure: Error | undefined;
  socket.on("error", (error) => (failure ??= error));
  socket.on("unexpected-response", (request: ClientRequest, answer: IncomingMessage) => {
    const status = answer.statusCode ?? 0;
    failure =
      status >= 500 || status === 429 ? new Error(`answered ${status}`) : new SignedOutError();
    request.destroy();
    socket.terminate();
  });
  const session = await opened(socket, signal, () => failure);
  const close = (code?: number) => {
    session.close(code);
    // Nothing has to wait for a node that does not answer.
    setTimeout(() => socket.terminate(), GOODBYE_MS).unref();
  };
  return { ...session, close };
}
