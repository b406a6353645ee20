import type { Bytes } from "../bytes.js";

/** The longest frame, in bytes, without its length. */
export const MAX_FRAME = 4 * 1024 * 1024;

/** The longest id, in bytes of UTF-8. */
const MAX_ID = 64;

/** Bytes of a frame's length. */
const HEAD = 4;

export type FrameType =
  | "call.requested"
  | "call.responded"
  | "call.completed"
  | "call.error"
  | "call.aborted"
  | "call.window";

const TYPES: ReadonlySet<string> = new Set<FrameType>([
  "call.requested",
  "call.responded",
  "call.completed",
  "call.error",
  "call.aborted",
  "call.window",
]);

export type Payload = Readonly<Record<string, unknown>>;

export interface Frame {
  type: FrameType;
  id: string;
  payload: Payload;
}

/** What was received is no frame; the stream cannot go on. */
export class FrameError extends Error {
  override readonly name = "FrameError";
}

/** The frame is longer than any may be. */
export class TooLongError extends Error {
  override readonly name = "TooLongError";
}

const encoder = new TextEncoder();

/** The bytes of a frame, length first. Throws a {@link TooLongError}, or if it is no JSON. */
export function encode(frame: Frame): Bytes {
  const text = encoder.encode(JSON.stringify(frame));
  if (text.length > MAX_FRAME) {
    throw new TooLongError(`a frame of ${text.length} bytes; ${MAX_FRAME} is the most`);
  }
  const bytes = new Uint8Array(HEAD + text.length);
  new DataView(bytes.buffer).setUint32(0, text.length);
  bytes.set(text, HEAD);
  return bytes;
}

/** Cuts a stream of bytes into frames. What is waited for is never longer than one frame. */
export class Decoder {
  readonly #text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  /** What has come of a part that is not whole yet: grows as it comes, not as it is announced. */
  #held: Bytes = new Uint8Array(0);
  #have = 0;
  #need = HEAD;
  #inBody = false;

  /**
   * The frames that end in `chunk`, in order; those of an unknown type are left out. Throws a
   * {@link FrameError} at the first that is none; after that the decoder is not to be used.
   */
  *push(chunk: Bytes): Generator<Frame> {
    while (this.#have + chunk.length >= this.#need) {
      const rest = this.#need - this.#have;
      const whole = this.#take(chunk.subarray(0, rest));
      chunk = chunk.subarray(rest);
      if (this.#inBody) {
        const frame = this.#parse(whole);
        this.#expect(HEAD, false);
        if (frame !== undefined) yield frame;
      } else {
        this.#expect(length(whole), true);
      }
    }
    this.#hold(chunk);
  }

  /** Whether a frame has begun and not ended. */
  get partial(): boolean {
    return this.#inBody || this.#have > 0;
  }

  #take(last: Bytes): Bytes {
    if (this.#have === 0) return last;
    this.#hold(last);
    return this.#held.subarray(0, this.#have);
  }

  #hold(chunk: Bytes): void {
    const have = this.#have + chunk.length;
    if (have > this.#held.length) {
      const grown = new Uint8Array(Math.min(this.#need, 2 * have));
      grown.set(this.#held.subarray(0, this.#have));
      this.#held = grown;
    }
    this.#held.set(chunk, this.#have);
    this.#have = have;
  }

  #expect(need: number, inBody: boolean): void {
    this.#held = new Uint8Array(0);
    this.#have = 0;
    this.#need = need;
    this.#inBody = inBody;
  }

  #parse(bytes: Bytes): Frame | undefined {
    let value: unknown;
    try {
      value = JSON.parse(this.#text.decode(bytes));
    } catch (cause) {
      throw new FrameError("a frame that is not JSON", { cause });
    }
    if (!isObject(value)) throw new FrameError("a frame that is not an object");
    const { type, id, payload } = value;
    if (typeof type !== "string") throw new FrameError("a frame without a type");
    if (!isKnown(type)) return undefined;
    if (typeof id !== "string") throw new FrameError("a frame without an id");
    return { type, id, payload: isObject(payload) ? payload : {} };
  }
}

/** Whether this can be the id of a call. */
export function isId(id: string): boolean {
  return id.length > 0 && id.length <= MAX_ID && encoder.encode(id).length <= MAX_ID;
}

function length(head: Bytes): number {
  const length = new DataView(head.buffer, head.byteOffset).getUint32(0);
  if (length > MAX_FRAME) throw new FrameError(`a frame of ${length} bytes`);
  return length;
}

function isKnown(type: string): type is FrameType {
  return TYPES.has(type);
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
