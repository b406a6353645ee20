// Requests over TLS connections that were opened, and checked, before.
import { request, type IncomingMessage } from "node:http";
import type { TLSSocket } from "node:tls";
import { isObject } from "../call/frame.js";
import { SignedOutError } from "../dial/node.js";

const DEADLINE_MS = 20_000;

/** The longest answer that is read. */
const MAX_ANSWER = 16 * 1024 * 1024;

/** What is asked. */
export interface Asked {
  path: string;
  authorization: string;
  body?: unknown;
  signal?: AbortSignal | undefined;
}

/**
 * Asks over the connection, which is used up by it; the answer's JSON. A node shows strangers
 * anything but that.
 */
export async function ask(socket: TLSSocket, origin: string, asked: Asked): Promise<unknown> {
  try {
    const answer = await send(socket, origin, asked);
    const text = await read(answer);
    const status = answer.statusCode ?? 0;
    if (status >= 500 || status === 429) throw new Error(`${asked.path} answered ${status}`);
    const kind = answer.headers["content-type"] ?? "";
    if (!/^application\/(json|problem\+json)\b/.test(kind)) throw new SignedOutError();
    const json: unknown = JSON.parse(text);
    if (status >= 400) throw refused(asked.path, status, json);
    return json;
  } finally {
    socket.destroy();
  }
}

function send(socket: TLSSocket, origin: string, asked: Asked): Promise<IncomingMessage> {
  const { path, authorization, body, signal } = asked;
  const content = body === undefined ? undefined : JSON.stringify(body);
  const headers: Record<string, string | number> = { host: new URL(origin).host, authorization };
  if (content !== undefined) {
    headers["content-type"] = "application/json";
    headers["content-length"] = Buffer.byteLength(content);
  }
  return new Promise((resolve, reject) => {
    const sending = request({
      method: content === undefined ? "GET" : "POST",
      path,
      headers,
      createConnection: () => socket,
      ...(signal === undefined ? {} : { signal }),
    });
    sending.setTimeout(DEADLINE_MS, () => sending.destroy(new Error(`${path} does not answer`)));
    sending.once("response", resolve);
    sending.once("error", reject);
    sending.end(content);
  });
}

async function read(answer: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of answer as AsyncIterable<Buffer>) {
    length += part.length;
    if (length > MAX_ANSWER) throw new Error("the node's answer is too long");
    parts.push(part);
  }
  return Buffer.concat(parts).toString();
}

function refused(path: string, status: number, json: unknown): Error {
  const said = isObject(json) ? (json["detail"] ?? json["title"] ?? json["error"]) : undefined;
  return new Error(`${path} answered ${status}${typeof said === "string" ? `: ${said}` : ""}`);
}
