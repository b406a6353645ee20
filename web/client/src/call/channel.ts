import type { Bytes } from "../bytes.js";
import type { Duplex } from "../dial/session.js";
import { CallError, Lost } from "./error.js";
import { Decoder, encode, FrameError, type Frame, type Payload } from "./frame.js";
import { Incoming } from "./incoming.js";
import type { Services } from "./services.js";

/** Aborted calls of which something may still come. Beyond that the oldest are forgotten. */
const MAX_ABORTED = 1024;

/** Small answers that may wait for a peer that sends and does not read. */
const MAX_WAITING = 1024;

/** How long a peer that made a mistake may take to hear of it. */
const COMPLAINT_MS = 1_000;

/** What becomes of a call of ours. After `ended` nothing comes. */
export interface Sink {
  responded(output: unknown, event: string | undefined): void;
  completed(): void;
  /** A {@link CallError} of the callee, or {@link Lost}. */
  ended(error: CallError | Lost): void;
}

/** One stream with calls of both sides on it. */
export class Channel {
  /** Resolves when nothing comes from the peer any more: with the error, if there was one. */
  readonly over: Promise<unknown>;
  readonly #writer: WritableStreamDefaultWriter<Bytes>;
  readonly #reader: ReadableStreamDefaultReader<Bytes>;
  readonly #calls = new Map<string, Sink>();
  readonly #aborted = new Set<string>();
  readonly #incoming: Incoming;
  readonly #prefix: string;
  #next = 1;
  #waiting = 0;
  #ended = false;
  #bereft = false;
  #overrun: Error | undefined;

  /** `opened` is whether this side has opened the stream. */
  constructor({ readable, writable }: Duplex, opened: boolean, services: Services) {
    this.#writer = writable.getWriter();
    this.#reader = readable.getReader();
    // It shows in every write, too.
    this.#writer.closed.catch(() => undefined);
    this.#prefix = opened ? "" : "~";
    const isTheirs = (id: string) => id.startsWith("~") === opened;
    const mention = (frame: Frame) => this.#mention(frame);
    this.#incoming = new Incoming(services, (frame) => this.send(frame), mention, isTheirs);
    this.over = this.#read().then(
      () => this.#finish(),
      (error: unknown) => this.#cut(error),
    );
  }

  /** Whether calls of ours were lost with it. */
  get bereft(): boolean {
    return this.#bereft;
  }

  /** Sends a request; the sink is not called before this has returned. */
  request(payload: Payload, sink: Sink): string {
    if (this.#ended) throw new Lost(false);
    const id = `${this.#prefix}${this.#next++}`;
    const bytes = encode({ type: "call.requested", id, payload });
    this.#calls.set(id, sink);
    this.#write(bytes).catch((cause: unknown) => {
      if (this.#calls.delete(id)) sink.ended(new Lost(true, { cause }));
    });
    return id;
  }

  /** Gives a call up. Nothing more is heard of it. */
  abort(id: string): void {
    if (!this.#calls.delete(id)) return;
    this.#aborted.add(id);
    if (this.#aborted.size > MAX_ABORTED) {
      for (const oldest of this.#aborted) {
        this.#aborted.delete(oldest);
        break;
      }
    }
    this.#mention({ type: "call.aborted", id, payload: {} });
  }

  /** Lets the callee of a subscription send more. */
  widen(id: string, items: number): void {
    if (this.#calls.has(id)) this.#mention({ type: "call.window", id, payload: { items } });
  }

  /** Sends a frame; resolves when the transport has taken it. Throws if it is too long. */
  send(frame: Frame): Promise<void> {
    return this.#write(encode(frame));
  }

  /** Ends our direction. What the peer still has to say is heard. */
  async finish(): Promise<void> {
    await this.#writer.close().catch(() => undefined);
  }

  /** The connection is gone, and all that was in progress with it. */
  kill(): void {
    this.#incoming.abortAll();
    void this.#reset(new Error("the connection is closed"));
  }

  /** Cuts both directions. */
  async #reset(reason: unknown): Promise<void> {
    await Promise.allSettled([this.#writer.abort(reason), this.#reader.cancel(reason)]);
  }

  async #write(bytes: Bytes): Promise<void> {
    await this.#writer.write(bytes);
  }

  /** Sends a frame that nobody waits for. */
  #mention(frame: Frame): void {
    if (this.#waiting >= MAX_WAITING) {
      this.#overrun = new Error("the peer sends and does not read");
      this.#reader.cancel(this.#overrun).catch(() => undefined);
      return;
    }
    this.#waiting++;
    const done = () => void this.#waiting--;
    this.send(frame).then(done, done);
  }

  async #read(): Promise<void> {
    const decoder = new Decoder();
    for (;;) {
      const { done, value } = await this.#reader.read();
      if (done) break;
      for (const frame of decoder.push(value)) this.#take(frame);
    }
    if (this.#overrun !== undefined) throw this.#overrun;
    if (decoder.partial) throw new FrameError("the stream ended within a frame");
  }

  #take({ type, id, payload }: Frame): void {
    switch (type) {
      case "call.requested":
        return this.#incoming.requested(id, payload);
      case "call.window":
        return this.#incoming.widened(id, payload["items"]);
      case "call.responded":
        return this.#responded(id, payload);
      case "call.completed":
        return this.#conclude(id, (sink) => sink.completed());
      case "call.error":
        // The empty id means the stream as a whole.
        if (id === "") throw errorOf(payload);
        return this.#conclude(id, (sink) => sink.ended(errorOf(payload)));
      case "call.aborted":
        if (!this.#calls.has(id) && !this.#aborted.has(id)) return this.#incoming.aborted(id);
        return this.#conclude(id, (sink) => sink.ended(stopped(payload)));
    }
  }

  #responded(id: string, { output = null, event }: Payload): void {
    const sink = this.#calls.get(id);
    if (sink !== undefined) {
      sink.responded(output, typeof event === "string" ? event : undefined);
    } else if (!this.#aborted.has(id)) {
      this.#mention({ type: "call.aborted", id, payload: {} });
    }
  }

  /** The callee has said its last word. */
  #conclude(id: string, say: (sink: Sink) => void): void {
    this.#aborted.delete(id);
    const sink = this.#calls.get(id);
    this.#calls.delete(id);
    if (sink !== undefined) say(sink);
  }

  /** Forgets a call that has had its one answer. */
  forget(id: string): void {
    this.#calls.delete(id);
  }

  /** The peer asks nothing more; what it asked is still answered. */
  async #finish(): Promise<undefined> {
    this.#lose(undefined);
    await this.#incoming.idle();
    void this.finish();
    return undefined;
  }

  async #cut(error: unknown): Promise<unknown> {
    this.#lose(error);
    this.#incoming.abortAll();
    if (error instanceof FrameError) await this.#complain(error);
    void this.#reset(error);
    return error;
  }

  /** Tells the peer why the stream ends, if it listens. */
  async #complain({ message }: FrameError): Promise<void> {
    const payload = { code: "INVALID_INPUT", message, retryable: false };
    const said = this.send({ type: "call.error", id: "", payload }).then(
      () => this.finish(),
      () => undefined,
    );
    let timer: ReturnType<typeof setTimeout>;
    const late = new Promise((resolve) => (timer = setTimeout(resolve, COMPLAINT_MS)));
    await Promise.race([said, late]).finally(() => clearTimeout(timer));
  }

  #lose(cause: unknown): void {
    this.#ended = true;
    const lost = cause instanceof CallError ? cause : new Lost(true, { cause });
    const sinks = [...this.#calls.values()];
    this.#calls.clear();
    this.#bereft = sinks.length > 0;
    for (const sink of sinks) sink.ended(lost);
  }
}

function errorOf({ code, message, retryable, details }: Payload): CallError {
  return new CallError(
    typeof code === "string" ? code : "INTERNAL",
    typeof message === "string" ? message : "the call failed",
    { retryable: retryable === true, details },
  );
}

function stopped({ reason }: Payload): CallError {
  const why = typeof reason === "string" ? `: ${reason}` : "";
  return new CallError("UNAVAILABLE", `the call was stopped${why}`);
}
