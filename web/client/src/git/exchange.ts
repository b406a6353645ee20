import type { Bytes } from "../bytes.js";
import type { Duplex } from "../dial/session.js";
import { FLUSH, GitProtocolError, Packets } from "./packets.js";
import { Silence } from "./silence.js";

/** What goes out in one piece, so that a large body is not in the platform's hands at once. */
const PIECE = 64 * 1024;
/** The most that a node may say of its references, in bytes: half a million of them. */
const MAX_ADVERTISEMENT = 64 * 1024 * 1024;

/** The node refuses, in its own words. */
export class GitRefusedError extends Error {
  override readonly name = "GitRefusedError";
}

/** Bytes to send, one piece after the other. */
export type Pieces = Iterable<Uint8Array> | AsyncIterable<Uint8Array>;

/** One exchange of git's protocol, on a stream of its own. */
export class Exchange {
  readonly #packets: Packets;
  readonly #writer: WritableStreamDefaultWriter<Bytes>;
  readonly #silence: Silence;
  readonly #released: () => void;
  readonly #signal: AbortSignal;
  /** Why the body was not sent to its end. */
  #unsent: unknown;
  #over = false;

  /** `released` is called when it is over; an abort of `signal` ends it. */
  constructor(stream: Duplex, signal: AbortSignal, released: () => void) {
    this.#silence = new Silence(signal);
    this.#packets = new Packets(stream.readable, this.#silence);
    this.#writer = stream.writable.getWriter();
    this.#writer.closed.catch(() => undefined);
    this.#released = released;
    this.#signal = signal;
    signal.addEventListener("abort", this.#cut);
    if (signal.aborted) this.#cut();
  }

  /** Asks for the service, and waits until the node has begun to answer. */
  async begin(line: Bytes): Promise<void> {
    await this.#guarded(async () => {
      await this.#silence.while(this.#writer.write(line));
      await this.#admitted();
    });
  }

  /** The node's references, as they come; after them it is told that this was all. */
  async *references(): AsyncGenerator<Bytes, void> {
    try {
      yield* this.#packets.section(MAX_ADVERTISEMENT);
      await this.#silence.while(this.#finish([FLUSH]));
      this.#end();
    } finally {
      this.close();
    }
  }

  /** Sends a body, and waits until the node has begun to answer that. */
  async ask(body: Pieces): Promise<void> {
    await this.#guarded(async () => {
      // What the node says before it knows what is wanted was said to an earlier request.
      for await (const _ of this.#packets.section(MAX_ADVERTISEMENT));
      // The node may answer before it has read everything, and must not wait for its reader.
      // It may also refuse what it has not read: then its answer counts, if there is one.
      this.#finish(body).catch((error: unknown) => (this.#unsent = error));
      await this.#admitted();
    });
  }

  /** The answer to the body. Whoever leaves the loop over it ends the exchange. */
  async *answer(): AsyncGenerator<Bytes, void> {
    try {
      let empty = true;
      for await (const bytes of this.#packets.rest()) {
        empty = false;
        yield bytes;
      }
      if (empty && this.#unsent !== undefined) throw lost(this.#unsent);
      this.#end();
    } finally {
      this.close();
    }
  }

  /** Ends it, wherever it is. */
  close(): void {
    this.#cut();
  }

  async #admitted(): Promise<void> {
    const refusal = await this.#packets.refusal();
    if (refusal !== undefined) throw new GitRefusedError(refusal);
  }

  async #finish(body: Pieces): Promise<void> {
    for await (const bytes of body) {
      for (let at = 0; at < bytes.length; at += PIECE) {
        await this.#writer.write(bytes.subarray(at, at + PIECE) as Bytes);
        this.#silence.stir();
      }
    }
    await this.#writer.close();
  }

  /** Runs a part of the exchange, whose failure ends the whole. */
  async #guarded(part: () => Promise<void>): Promise<void> {
    try {
      await part();
    } catch (error) {
      this.#cut();
      this.#signal.throwIfAborted();
      if (error instanceof GitRefusedError || error instanceof GitProtocolError) throw error;
      throw lost(error);
    }
  }

  /** It has ended well. */
  #end(): void {
    if (this.#over) return;
    this.#over = true;
    this.#signal.removeEventListener("abort", this.#cut);
    this.#released();
  }

  readonly #cut = () => {
    if (this.#over) return;
    this.#end();
    const reason = new Error("the exchange is over");
    this.#packets.cancel(reason).catch(() => undefined);
    this.#writer.abort(reason).catch(() => undefined);
  };
}

function lost(cause: unknown): Error {
  return new Error("the connection to the node was lost", { cause });
}
