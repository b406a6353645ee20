import { concat, type Bytes } from "../bytes.js";
import type { Silence } from "./silence.js";

/** The digits of a packet line's length, which count themselves (gitprotocol-common). */
const LENGTH = 4;
/** The longest packet line. */
const MAX_PACKET = 65_520;

/** What came is not git's protocol, or not all of it. */
export class GitProtocolError extends Error {
  override readonly name = "GitProtocolError";
}

/** A stream that begins with packet lines. */
export class Packets {
  readonly #reader: ReadableStreamDefaultReader<Bytes>;
  readonly #silence: Silence;
  /** What was read and not given yet. */
  #held: Bytes = new Uint8Array();

  constructor(readable: ReadableStream<Bytes>, silence: Silence) {
    this.#reader = readable.getReader();
    this.#silence = silence;
  }

  /** What is said in the next packet, if that is an error; nothing is taken. */
  async refusal(): Promise<string | undefined> {
    let size = sizeAt(this.#held, 0);
    while (size === undefined || this.#held.length < size) {
      if (!(await this.#read())) return undefined;
      size = sizeAt(this.#held, 0);
    }
    const text = new TextDecoder().decode(this.#held.subarray(LENGTH, size));
    return text.startsWith("ERR ") ? text.slice("ERR ".length).trim() : undefined;
  }

  /** Packets up to a flush and with it, as many at a time as there are; `limit` bytes at most. */
  async *section(limit: number): AsyncGenerator<Bytes, void> {
    for (let given = 0; ;) {
      const { end, flushed } = whole(this.#held);
      given += end;
      if (given > limit)
        throw new GitProtocolError("the node has more references than can be held");
      const packets = this.#held.subarray(0, end);
      this.#held = this.#held.subarray(end);
      if (end > 0) yield packets;
      if (flushed) return;
      if (!(await this.#read())) throw new GitProtocolError("the node ended amid its references");
    }
  }

  /** Everything else, whatever it is. */
  async *rest(): AsyncGenerator<Bytes, void> {
    do {
      const held = this.#held;
      this.#held = new Uint8Array();
      if (held.length > 0) yield held;
    } while (await this.#read());
  }

  async cancel(reason: unknown): Promise<void> {
    await this.#reader.cancel(reason);
  }

  /** Reads on; false at the end. */
  async #read(): Promise<boolean> {
    const { done, value } = await this.#silence.while(this.#reader.read());
    if (done) return false;
    this.#held = this.#held.length === 0 ? value : concat(this.#held, value);
    return true;
  }
}

/** Where the packets end that are whole, or the first flush among them. */
function whole(bytes: Bytes): { end: number; flushed: boolean } {
  for (let end = 0; ;) {
    const size = sizeAt(bytes, end);
    if (size === undefined || end + size > bytes.length) return { end, flushed: false };
    if (isFlush(bytes, end)) return { end: end + LENGTH, flushed: true };
    end += size;
  }
}

/** How many bytes the packet takes that begins here; undefined if that is not known yet. */
function sizeAt(bytes: Bytes, at: number): number | undefined {
  if (bytes.length < at + LENGTH) return undefined;
  const digits = String.fromCharCode(...bytes.subarray(at, at + LENGTH));
  const size = /^[0-9a-f]{4}$/i.test(digits) ? parseInt(digits, 16) : -1;
  // 0 ends a section, 1 and 2 divide it: they have no length but their own.
  if (size >= 0 && size <= 2) return LENGTH;
  if (size < LENGTH || size > MAX_PACKET) {
    throw new GitProtocolError("the node does not speak git's protocol");
  }
  return size;
}

function isFlush(bytes: Bytes, at: number): boolean {
  return bytes.subarray(at, at + LENGTH).every((digit) => digit === 0x30);
}

/** A text as a packet line. */
export function packet(text: string): Bytes {
  const bytes = new TextEncoder().encode(text);
  const length = (bytes.length + LENGTH).toString(16).padStart(LENGTH, "0");
  return concat(new TextEncoder().encode(length), bytes);
}

export const FLUSH: Bytes = new TextEncoder().encode("0000");
