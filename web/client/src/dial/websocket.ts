import type { Bytes } from "../bytes.js";
import { TICKET, type Duplex, type Session } from "./session.js";

const DEADLINE_MS = 10_000;

/** A message's size: what goes out in one piece. */
const MESSAGE = 64 * 1024;

/** Bytes the platform may hold for sending before a writer has to wait. */
const SENDING = 1024 * 1024;

/** A WebSocket tells nobody when it has sent something, so a waiting writer looks again. */
const LOOK_AGAIN_MS = 5;

/**
 * Bytes that may wait to be read. A WebSocket cannot be told to slow down; the windows of the
 * protocols inside keep far below this, so a peer that goes beyond it is cut off.
 */
const WAITING = 16 * 1024 * 1024;

const NORMAL = 1000;

/** A node's codes stand in the range for applications (RFC 6455 §7.4.2). */
const CODES = 4000;

/** The part of the standard's WebSocket that is used here. */
export interface Socket {
  readonly OPEN: number;
  readonly readyState: number;
  readonly bufferedAmount: number;
  binaryType: string;
  onopen: ((event: never) => void) | null;
  onmessage: ((event: never) => void) | null;
  onclose: ((event: never) => void) | null;
  send(data: Bytes): void;
  close(code?: number): void;
}

/** A service as a WebSocket subprotocol, in which a slash is not allowed (RFC 6455 §4.1). */
export function subprotocol(alpn: string): string {
  return alpn.replace("/", ".");
}

/** The address of a service's WebSocket. */
export function address(alpn: string, origin: string): string {
  const url = new URL(`/${alpn}`, origin);
  url.protocol = "wss:";
  return url.href;
}

/** A WebSocket with the ticket among its subprotocols. */
export function overWebSocket(
  alpn: string,
  origin: string,
  ticket: string,
  signal?: AbortSignal,
): Promise<Session> {
  const protocols = [subprotocol(alpn), TICKET + ticket];
  return opened(new WebSocket(address(alpn, origin), protocols), signal);
}

/**
 * Waits until a WebSocket is open. `reason` is asked for what went wrong where the platform
 * tells more than that something did.
 */
export function opened(
  socket: Socket,
  signal?: AbortSignal,
  reason: () => Error | undefined = () => undefined,
): Promise<Session> {
  return new Promise((resolve, reject) => {
    const cut = () => socket.close();
    const deadline = setTimeout(cut, DEADLINE_MS);
    const settle = () => {
      clearTimeout(deadline);
      signal?.removeEventListener("abort", cut);
    };
    signal?.addEventListener("abort", cut, { once: true });
    if (signal?.aborted) cut();
    socket.onopen = () => {
      settle();
      resolve(session(socket));
    };
    socket.onclose = () => {
      settle();
      const refused = () => reason() ?? new Error("the WebSocket was refused or timed out");
      reject(signal?.aborted ? signal.reason : refused());
    };
  });
}

function session(socket: Socket): Session {
  let end: (code: number | undefined) => void;
  const closed = new Promise<number | undefined>((resolve) => (end = resolve));
  let stream: Duplex | undefined = streams(socket, (code) =>
    end(code < CODES ? undefined : code - CODES),
  );
  return {
    carrier: "websocket",
    multiplexed: false,
    incoming: new ReadableStream(),
    closed,
    open: async () => {
      const only = stream;
      if (only === undefined) throw new Error("a WebSocket has one stream");
      stream = undefined;
      return only;
    },
    close: (code) => socket.close(code ? CODES + code : NORMAL),
  };
}

/**
 * An open WebSocket as a pair of streams. Binary messages are bytes; an empty one ends its
 * direction, which a WebSocket has no other sign for.
 */
export function streams(socket: Socket, closed: (code: number) => void = () => undefined): Duplex {
  socket.binaryType = "arraybuffer";
  return { readable: incoming(socket, closed), writable: outgoing(socket) };
}

function incoming(socket: Socket, closed: (code: number) => void): ReadableStream<Bytes> {
  let ended = false;
  const start = (controller: ReadableStreamDefaultController<Bytes>) => {
    const finish = (error?: Error) => {
      if (ended) return;
      ended = true;
      if (error) controller.error(error);
      else controller.close();
    };
    const fail = (what: string) => {
      finish(new Error(`the node sent ${what}`));
      socket.close();
    };
    socket.onmessage = ({ data }: { data: ArrayBuffer | string }) => {
      if (ended) return;
      if (typeof data === "string") return fail("a text message");
      if (data.byteLength === 0) return finish();
      controller.enqueue(new Uint8Array(data));
      if ((controller.desiredSize ?? 0) < -WAITING) fail("more than can be held");
    };
    socket.onclose = ({ code }: { code: number }) => {
      finish(code === NORMAL ? undefined : new Error(`the WebSocket closed with ${code}`));
      closed(code);
    };
  };
  const cancel = () => {
    ended = true;
  };
  return new ReadableStream({ start, cancel }, new ByteLengthQueuingStrategy({ highWaterMark: 0 }));
}

function outgoing(socket: Socket): WritableStream<Bytes> {
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
