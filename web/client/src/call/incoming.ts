import { CallError } from "./error.js";
import { FrameError, isId, TooLongError, type Frame, type Payload } from "./frame.js";
import { Item, type HandlerContext, type Operation, type Services } from "./services.js";

/** How long an item may wait for a subscriber that gives no room. */
const SLOW_MS = 30_000;

/** The longest time that a platform's timer can be set to. */
const MAX_TIMER_MS = 0x7fff_ffff;

/** Throws at once if the frame cannot be sent; resolves when the transport has taken it. */
type Send = (frame: Frame) => Promise<void>;

/** The peer's calls on one stream. */
export class Incoming {
  readonly #services: Services;
  readonly #send: Send;
  readonly #mention: (frame: Frame) => void;
  readonly #isTheirs: (id: string) => boolean;
  readonly #calls = new Map<string, Call>();
  #running = 0;
  #idle: () => void = () => undefined;

  /** `mention` sends what nobody waits for. */
  constructor(
    services: Services,
    send: Send,
    mention: (frame: Frame) => void,
    isTheirs: (id: string) => boolean,
  ) {
    this.#services = services;
    this.#send = send;
    this.#mention = mention;
    this.#isTheirs = isTheirs;
  }

  requested(id: string, payload: Payload): void {
    if (!isId(id)) throw new FrameError("a call without a proper id");
    const { operationId: name, input = null } = payload;
    const operation = typeof name === "string" ? this.#services.get(name) : undefined;
    if (!this.#isTheirs(id) || this.#calls.has(id)) {
      this.#refuse(id, new CallError("INVALID_INPUT", "this id cannot be used"));
    } else if (typeof name !== "string") {
      this.#refuse(id, new CallError("INVALID_INPUT", "a call without an operation"));
    } else if (operation === undefined) {
      this.#refuse(id, new CallError("NOT_FOUND", "there is no such operation here"));
    } else if (!this.#services.enter()) {
      this.#refuse(id, new CallError("UNAVAILABLE", "too many calls", { retryable: true }));
    } else {
      // The peer may use the id again as soon as it has the last word.
      const ended = () => this.#calls.delete(id);
      this.#start(new Call(id, name, payload, this.#send, ended), operation, input);
    }
  }

  widened(id: string, items: unknown): void {
    if (typeof items !== "number" || !Number.isSafeInteger(items) || items < 0) {
      throw new FrameError("a window that is no number");
    }
    this.#calls.get(id)?.room.add(items);
  }

  aborted(id: string): void {
    this.#calls.get(id)?.abort();
  }

  /** Stops everything, and says nothing of it. */
  abortAll(): void {
    for (const call of this.#calls.values()) call.drop();
  }

  /** Waits until nothing is in progress. */
  async idle(): Promise<void> {
    if (this.#running > 0) await new Promise<void>((resolve) => (this.#idle = resolve));
  }

  #start(call: Call, operation: Operation, input: unknown): void {
    this.#calls.set(call.id, call);
    this.#running++;
    const failed = (error: unknown) => this.#services.failed(call.name, error);
    const done = () => {
      this.#services.leave();
      this.#running--;
      if (this.#running === 0) this.#idle();
    };
    // A stream that takes no answer has its reader to tell.
    call.run(operation, input, failed).then(done, done);
  }

  #refuse(id: string, error: CallError): void {
    this.#mention(errorFrame(id, error));
  }
}

/** One call of the peer. */
class Call {
  readonly id: string;
  readonly name: string;
  readonly room: Room;
  readonly #after: string | undefined;
  readonly #send: Send;
  readonly #ended: () => void;
  readonly #abort = new AbortController();
  readonly #timer: ReturnType<typeof setTimeout> | undefined;
  #answered = false;

  constructor(id: string, name: string, payload: Payload, send: Send, ended: () => void) {
    const { timeout_ms, window, after } = payload;
    this.id = id;
    this.name = name;
    this.#after = typeof after === "string" ? after : undefined;
    this.#send = send;
    this.#ended = ended;
    this.room = new Room(typeof window === "number" ? window : Infinity, this.#abort.signal);
    if (typeof timeout_ms === "number") {
      const late = new CallError("TIMEOUT", "the deadline has passed", { retryable: true });
      const time = Math.min(timeout_ms, MAX_TIMER_MS);
      this.#timer = setTimeout(() => void this.#stop(late).catch(() => undefined), time);
    }
  }

  /** The caller has given up. */
  abort(): void {
    this.#abort.abort(new CallError("UNAVAILABLE", "the caller has given up"));
  }

  /** The caller is gone. */
  drop(): void {
    this.#answered = true;
    this.#ended();
    this.abort();
  }

  /** Runs the operation to its end, whatever it is; nothing of it runs after that. */
  async run(operation: Operation, input: unknown, failed: (e: unknown) => void): Promise<void> {
    const { signal } = this.#abort;
    const context: HandlerContext = { signal, name: this.name, after: this.#after };
    try {
      if (operation.type === "subscription") {
        await this.#items(operation.handler(input, context));
        await this.#answer({ type: "call.completed", id: this.id, payload: {} });
      } else {
        const output = (await operation.handler(input, context)) ?? null;
        await this.#answer({ type: "call.responded", id: this.id, payload: { output } });
      }
    } catch (error) {
      if (!signal.aborted && !(error instanceof CallError)) failed(error);
      await this.#answer(errorFrame(this.id, error));
    } finally {
      clearTimeout(this.#timer);
    }
  }

  async #items(items: AsyncIterable<unknown>): Promise<void> {
    const iterator = items[Symbol.asyncIterator]();
    try {
      for (;;) {
        const { done, value } = await iterator.next();
        if (done || this.#abort.signal.aborted) return;
        await this.room.take();
        const payload =
          value instanceof Item
            ? { output: value.output ?? null, event: value.event }
            : { output: value ?? null };
        await this.#send({ type: "call.responded", id: this.id, payload });
      }
    } finally {
      await iterator.return?.();
    }
  }

  /** The last word; after an abort it is that nothing runs any more. */
  async #answer(frame: Frame): Promise<void> {
    if (this.#answered) return;
    const { aborted } = this.#abort.signal;
    const sent = this.#send(aborted ? { type: "call.aborted", id: this.id, payload: {} } : frame);
    this.#answered = true;
    this.#ended();
    await sent;
  }

  /** Tells the caller now, and the operation to stop. */
  async #stop(error: CallError): Promise<void> {
    if (this.#answered || this.#abort.signal.aborted) return;
    await this.#answer(errorFrame(this.id, error));
    this.#abort.abort(error);
  }
}

/** How many items the caller has room for. */
class Room {
  readonly #signal: AbortSignal;
  #items: number;
  #widened: () => void = () => undefined;

  constructor(items: number, signal: AbortSignal) {
    this.#items = items;
    this.#signal = signal;
  }

  add(items: number): void {
    this.#items += items;
    this.#widened();
  }

  /** Takes room for one item, once there is some. */
  async take(): Promise<void> {
    if (this.#items < 1) await this.#wait();
    this.#items--;
  }

  #wait(): Promise<void> {
    return new Promise((resolve, reject) => {
      const details = { reason: "slow-consumer" };
      const slow = () =>
        settle(() =>
          reject(new CallError("UNAVAILABLE", "the subscriber is too slow", { details })),
        );
      const aborted = () => settle(() => reject(this.#signal.reason as Error));
      const timer = setTimeout(slow, SLOW_MS);
      const settle = (then: () => void) => {
        clearTimeout(timer);
        this.#signal.removeEventListener("abort", aborted);
        this.#widened = () => undefined;
        then();
      };
      this.#widened = () => {
        if (this.#items >= 1) settle(resolve);
      };
      this.#signal.addEventListener("abort", aborted);
      if (this.#signal.aborted) aborted();
    });
  }
}

function errorFrame(id: string, error: unknown): Frame {
  const { code, message, retryable, details } = toldOf(error);
  const payload = { code, message, retryable, ...(details === undefined ? {} : { details }) };
  return { type: "call.error", id, payload };
}

/** What the caller is told of an error: of one that was not meant for it, nothing. */
function toldOf(error: unknown): CallError {
  if (error instanceof CallError) return error;
  if (error instanceof TooLongError) return new CallError("INTERNAL", "the answer is too long");
  return new CallError("INTERNAL", "the operation failed");
}
