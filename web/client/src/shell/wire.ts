import { concat, type Bytes } from "../bytes.js";
import type { Duplex } from "../dial/session.js";
import type { Core } from "./core.js";
import { ShellDecoder } from "./frame.js";

/** How long a node may be silent before it is asked for a sign of life. */
const QUIET_MS = 1_000;
/** How long it may take to give one. */
const ANSWER_MS = 1_500;
/** A timer that fires later than this says more of this computer than of the node. */
const LATE_MS = 1_000;
/** How long a node may take to answer the first frame. */
const ATTACH_MS = 10_000;

/** Who is told of what happens on a {@link Wire}. */
export interface Listener {
  /** Frames have been taken into the core. */
  heard(): void;
  /** The node is silent for so long that its transport may be gone; said again and again. */
  silent(): void;
}

/** One attachment: a stream, its core's frames on it, and a watch on its being alive. */
export class Wire {
  /** Resolves when nothing comes any more: with the error, if there was one. */
  readonly over: Promise<unknown>;
  readonly #core: Core;
  readonly #listener: Listener;
  readonly #reader: ReadableStreamDefaultReader<Bytes>;
  readonly #writer: WritableStreamDefaultWriter<Bytes>;
  #closed = false;
  #sending = false;
  #token = 0n;
  #lastHeard = performance.now();
  #askedAt: number | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  readonly #attach: ReturnType<typeof setTimeout>;

  /** Begins an attachment of the core's on a new stream. */
  constructor({ readable, writable }: Duplex, core: Core, listener: Listener) {
    this.#core = core;
    this.#listener = listener;
    this.#reader = readable.getReader();
    this.#writer = writable.getWriter();
    // It shows in every write, too.
    this.#writer.closed.catch(() => undefined);
    this.#attach = setTimeout(() => this.close(new Error("no answer in time")), ATTACH_MS);
    this.over = this.#read().then(
      () => this.close(),
      (error: unknown) => {
        this.close(error);
        return error;
      },
    );
    void this.#write([core.begin()]);
    this.#watch(QUIET_MS);
  }

  /** Sends what the core has to say. */
  send(): void {
    if (!this.#sending) void this.#write([]);
  }

  /** Asks for a sign of life now. */
  ask(): void {
    if (this.#askedAt === undefined) this.#ask();
  }

  /** Cuts the stream. */
  close(reason: unknown = new Error("the stream is not needed any more")): void {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#attach);
    this.#reader.cancel(reason).catch(() => undefined);
    this.#writer.abort(reason).catch(() => undefined);
  }

  async #read(): Promise<void> {
    const decoder = new ShellDecoder();
    for (;;) {
      const { done, value } = await this.#reader.read();
      // What is cut brings nothing more to a core that may have gone on elsewhere.
      if (done || this.#closed) break;
      this.#hear();
      for (const frame of decoder.push(value)) this.#core.take(frame);
      if (this.#core.attached !== undefined) clearTimeout(this.#attach);
      this.send();
      this.#listener.heard();
    }
  }

  async #write(frames: Bytes[]): Promise<void> {
    this.#sending = true;
    try {
      while (!this.#closed) {
        frames.push(...this.#core.drain());
        if (frames.length === 0) break;
        await this.#writer.write(concat(...frames.splice(0)));
      }
    } catch (error) {
      // What the node has said before may still be there to be read.
      if (!this.#core.over) this.close(error);
    } finally {
      this.#sending = false;
    }
  }

  #hear(): void {
    this.#lastHeard = performance.now();
    this.#askedAt = undefined;
  }

  #watch(ms: number): void {
    clearTimeout(this.#timer);
    const due = performance.now() + ms;
    this.#timer = setTimeout(() => this.#look(performance.now() - due), ms);
  }

  #look(lateMs: number): void {
    if (this.#askedAt === undefined) {
      const quiet = performance.now() - this.#lastHeard;
      if (quiet >= QUIET_MS) this.#ask();
      else this.#watch(QUIET_MS - quiet);
    } else if (lateMs > LATE_MS) {
      // Asleep meanwhile: an answer may wait to be read.
      this.#ask();
    } else {
      this.#listener.silent();
      if (!this.#closed) this.#ask();
    }
  }

  #ask(): void {
    this.#askedAt = performance.now();
    this.#core.ping(this.#token++);
    this.send();
    this.#watch(ANSWER_MS);
  }
}
