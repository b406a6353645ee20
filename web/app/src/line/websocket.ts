import type { Bytes } from "../bytes";
import { SERVICE, TICKET, type Line } from "./line";

const DEADLINE_MS = 10_000;

/** A message's size: what goes out in one piece. */
const MESSAGE = 64 * 1024;

/** Bytes the browser may hold for sending before a writer has to wait. */
const SENDING = 1024 * 1024;

/** A WebSocket tells nobody when it has sent something, so a waiting writer looks again. */
const LOOK_AGAIN_MS = 5;

/**
 * Bytes that may wait to be read. A WebSocket cannot be told to slow down; the SSH windows
 * keep far below this, so a peer that goes beyond it is cut off.
 */
const WAITING = 16 * 1024 * 1024;

const NORMAL = 1000;

/** A node's codes stand in the range for applications (RFC 6455 §7.4.2). */
const CODES = 4000;

/** The service as a WebSocket subprotocol, in which a slash is not allowed (RFC 6455 §4.1). */
const SUBPROTOCOL = SERVICE.replace("/", ".");

/** A WebSocket with the ticket among its subprotocols. */
export function overWebSocket(host: string, ticket: string): Promise<Line> {
  const socket = new WebSocket(`wss://${host}/${SERVICE}`, [SUBPROTOCOL, TICKET + ticket]);
  const closed = new Promise<number | undefined>((resolve) =>
    socket.addEventListener("close", ({ code }) =>
      resolve(code < CODES ? undefined : code - CODES),
    ),
  );
  return new Promise((resolve, reject) => {
    const deadline = setTimeout(() => socket.close(), DEADLINE_MS);
    socket.onopen = () => {
      clearTimeout(deadline);
      const close = () => socket.close(NORMAL);
      resolve({ carrier: "websocket", ...streams(socket), closed, close });
    };
    socket.onclose = () => {
      clearTimeout(deadline);
      reject(new Error("the WebSocket was refused or timed out"));
    };
  });
}

/**
 * An open WebSocket as a pair of streams. Binary messages are bytes; an empty one ends its
 * direction, which a WebSocket has no other sign for.
 */
export function streams(socket: WebSocket): Pick<Line, "readable" | "writable"> {
  socket.binaryType = "arraybuffer";
  return { readable: incoming(socket), writable: outgoing(socket) };
}

function incoming(socket: WebSocket): ReadableStream<Bytes> {
  let ended = false;
  const start = (controller: ReadableStreamDefaultController<Bytes>) => {
    const finish = (error?: Error) => {
      if (ended) return;
      ended = true;
      if (error) controller.error(error);
      else controller.close();
    };
    socket.onmessage = ({ data }: MessageEvent<ArrayBuffer | string>) => {
      if (ended) return;
      if (typeof data === "string") return fail("a text message");
      if (data.byteLength === 0) return finish();
      controller.enqueue(new Uint8Array(data));
      if ((controller.desiredSize ?? 0) < -WAITING) fail("more than a page should hold");
    };
    const fail = (what: string) => {
      finish(new Error(`the node sent ${what}`));
      socket.close();
    };
    socket.onclose = ({ code }) =>
      finish(code === NORMAL ? undefined : new Error(`the WebSocket closed with ${code}`));
  };
  const cancel = () => {
    ended = true;
  };
  return new ReadableStream({ start, cancel }, new ByteLengthQueuingStrategy({ highWaterMark: 0 }));
}

function outgoing(socket: WebSocket): WritableStream<Bytes> {
  const open = () => {
    if (socket.readyState !== socket.OPEN) throw new Error("the WebSocket is closed");
  };
  return new WritableStream<Bytes>({
    async write(chunk) {
      for (let at = 0; at < chunk.length; at += MESSAGE) {
        open();
        socket.send(chunk.subarray(at, at + MESSAGE));
        while (socket.bufferedAmount > SENDING) {
          await new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN_MS));
          open();
        }
      }
    },
    close() {
      open();
      socket.send(new Uint8Array());
    },
    abort() {
      socket.close();
    },
  });
}
