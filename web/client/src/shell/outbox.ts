import type { Bytes } from "../bytes.js";
import { MAX_DATA, ShellProtocolError } from "./frame.js";

/** The most input that waits for the node, in bytes. */
export const MAX_INPUT = 8 * 1024 * 1024;

interface Piece {
  readonly bytes: Bytes;
  readonly taken: () => void;
  readonly lost: (error: Error) => void;
}

/**
 * A viewer's input: numbered bytes, each kept until the node has it, so that after a loss the
 * rest can be sent from wherever the node says that it is.
 */
export class Outbox {
  /** What the node has not acknowledged yet, in order. */
  readonly #pieces: Piece[] = [];
  /** Bytes of the first piece that the node has already. */
  #head = 0;
  #length = 0;
  /** The offset of the first byte that is kept. */
  #base = 0;
  /** The node's last ACK, from which its window counts: what it has may not be taken yet. */
  #acked = 0;
  /** The offset up to which it was sent on this attachment. */
  #sent = 0;
  /** The offset up to which it was ever sent. */
  #everSent = 0;
  #window = 0;

  /** Adds input; resolves when the node has it, be it not taken by the program. Throws a `RangeError` if too much waits. */
  push(bytes: Bytes): Promise<void> {
    if (bytes.length === 0) return Promise.resolve();
    if (this.#length + bytes.length > MAX_INPUT) {
      return Promise.reject(new RangeError("more than 8 MiB of input wait for the node"));
    }
    this.#length += bytes.length;
    const copy = bytes.slice();
    return new Promise((taken, lost) => void this.#pieces.push({ bytes: copy, taken, lost }));
  }

  /**
   * An attachment begins, of which the node says that it has everything before `offset`. If it
   * counts anew, nobody knows whether it has had what was sent: that is not sent again, and
   * what was to follow makes no sense without it. Its next ACK says how much may follow.
   */
  rewind(offset: number, window: number): void {
    this.#window = window;
    if (offset >= this.#base && offset <= this.#everSent) {
      this.#release(offset);
    } else {
      this.forget(new Error("the node does not know how much it has of the input"));
      this.#base = this.#everSent = offset;
    }
    this.#sent = offset;
  }

  /** The node has everything before `offset`. */
  acked(offset: number): void {
    if (offset > this.#sent) throw new ShellProtocolError("an ACK of what was not sent");
    this.#acked = Math.max(this.#acked, offset);
    if (offset > this.#base) this.#release(offset);
  }

  /** What may be sent next, with its offset. */
  next(): { offset: number; bytes: Bytes } | undefined {
    const offset = this.#sent;
    const room = Math.min(this.#acked + this.#window - offset, MAX_DATA);
    const bytes = this.#slice(offset - this.#base, room);
    if (bytes.length === 0) return undefined;
    this.#sent += bytes.length;
    this.#everSent = Math.max(this.#everSent, this.#sent);
    return { offset, bytes };
  }

  /** Begins anew. If anything was sent that may have arrived, all that waits is given up. */
  forget(error: Error): void {
    if (this.#everSent > this.#base) this.close(error);
    this.#base = this.#acked = this.#sent = this.#everSent = 0;
  }

  /** Gives up all that waits. */
  close(error: Error): void {
    this.#shift(this.#length, ({ lost }) => lost(error));
  }

  /** Bytes from `skip` on, of at most so many, in one piece. */
  #slice(skip: number, most: number): Bytes {
    const out = new Uint8Array(Math.max(0, Math.min(most, this.#length - skip)));
    let at = 0;
    let from = skip + this.#head;
    for (const { bytes } of this.#pieces) {
      if (at >= out.length) break;
      const part = bytes.subarray(from, from + out.length - at);
      from = Math.max(0, from - bytes.length);
      out.set(part, at);
      at += part.length;
    }
    return out;
  }

  #release(offset: number): void {
    const count = offset - this.#base;
    this.#base = offset;
    this.#shift(count, ({ taken }) => taken());
  }

  #shift(count: number, settle: (piece: Piece) => void): void {
    this.#length -= count;
    this.#head += count;
    for (let first; (first = this.#pieces[0]) !== undefined;) {
      if (this.#head < first.bytes.length) break;
      this.#head -= first.bytes.length;
      this.#pieces.shift();
      settle(first);
    }
  }
}
