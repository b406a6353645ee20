import { CallError, Lost } from "./call/error.js";
import { isObject } from "./call/frame.js";
import type { Link } from "./call/link.js";
import type { Connector } from "./connector.js";
import { Deadline } from "./deadline.js";

/** How to subscribe. */
export interface SubscribeOptions {
  /** Items that may wait here to be taken; the node sends no more than that. */
  window?: number;
  /** Goes on behind the item with this event, where the operation supports it. */
  after?: string;
  /** Its abort ends the subscription; the loop over it throws the signal's reason. */
  signal?: AbortSignal;
  /** How long the subscription may last as a whole. */
  timeoutMs?: number;
}

const WINDOW = 256;

/** How long a node may take to go, once it has ended its subscriptions. */
const LEAVING_MS = 10_000;

/** What is asked for. */
export interface Request {
  operationId: string;
  input?: unknown;
}

interface Taken {
  output: unknown;
  event: string | undefined;
}

/**
 * The items of a subscription, for one `for await` loop. Leaving the loop ends it. It is asked
 * for when the first item is.
 */
export class Subscription<T> implements AsyncIterableIterator<T, undefined> {
  readonly #connector: Connector;
  readonly #request: Request;
  readonly #window: number;
  readonly #deadline: Deadline;
  readonly #left = new AbortController();
  readonly #items: Taken[] = [];
  /** The event of the last item that has come. */
  #after: string | undefined;
  /** The event of the last item that was taken. */
  #event: string | undefined;
  /** Items that the node may still send. */
  #room = 0;
  /** Items taken since the node was last told. */
  #taken = 0;
  #widen: (items: number) => void = () => undefined;
  #heard: () => void = () => undefined;
  #turn: Promise<unknown> = Promise.resolve();
  #running = false;
  #end: { error?: unknown } | undefined;

  constructor(connector: Connector, request: Request, options: SubscribeOptions) {
    const { window = WINDOW, after, signal, timeoutMs } = options;
    if (!Number.isSafeInteger(window) || window < 1) throw new RangeError("a window is 1 or more");
    this.#connector = connector;
    this.#request = request;
    this.#window = window;
    this.#after = after;
    this.#deadline = new Deadline(timeoutMs, signal, this.#left.signal);
    const { signal: over } = this.#deadline;
    if (over.aborted) this.#finish({ error: over.reason });
    over.addEventListener("abort", () => {
      if (this.#end !== undefined) return;
      this.#items.length = 0;
      this.#finish({ error: over.reason });
    });
  }

  /** The event of the item that was last taken: with it as `after` another one goes on. */
  get lastEvent(): string | undefined {
    return this.#event;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<IteratorResult<T, undefined>> {
    const next = this.#turn.then(() => this.#next());
    this.#turn = next.catch(() => undefined);
    return next;
  }

  async return(): Promise<IteratorResult<T, undefined>> {
    this.#items.length = 0;
    this.#leave({});
    return { done: true, value: undefined };
  }

  async #next(): Promise<IteratorResult<T, undefined>> {
    if (!this.#running) {
      this.#running = true;
      void this.#run();
    }
    while (this.#items.length === 0 && this.#end === undefined) {
      await new Promise<void>((resolve) => (this.#heard = resolve));
    }
    const item = this.#items.shift();
    if (item !== undefined) return { done: false, value: this.#take(item) as T };
    const { error } = this.#end!;
    // Once: after that there is just nothing more.
    this.#end = {};
    if (error !== undefined) throw error;
    return { done: true, value: undefined };
  }

  /** Subscribes, and again after each end that can be bridged. */
  async #run(): Promise<void> {
    try {
      while (this.#end === undefined) {
        const link = await this.#deadline.race(this.#connector.link);
        const broken = await this.#over(link);
        if (broken === undefined) return this.#finish({});
        await this.#deadline.race(this.#bridge(broken, link));
      }
    } catch (error) {
      this.#finish({ error });
    }
  }

  /** The subscription over one connection: what it ended with, if not by itself. */
  #over(link: Link): Promise<CallError | Lost | undefined> {
    const window = this.#window - this.#items.length;
    this.#room = window;
    this.#taken = 0;
    const after = this.#after === undefined ? {} : { after: this.#after };
    const payload = { ...this.#request, ...this.#deadline.left, window, ...after };
    return new Promise((resolve, reject) => {
      const sink = {
        responded: (output: unknown, event: string | undefined) => this.#put({ output, event }),
        completed: () => resolve(undefined),
        ended: resolve,
      };
      const subscribing = link.subscribe(payload, sink, this.#deadline.signal);
      subscribing.then(
        ({ widen }) => (this.#widen = widen),
        (error) => (error instanceof Lost ? resolve(error) : reject(error)),
      );
    });
  }

  /** Waits for the end of the connection, or throws if there is no going on behind it. */
  async #bridge(broken: CallError | Lost, link: Link): Promise<void> {
    const fresh = broken instanceof Lost && !broken.sent;
    if (this.#after === undefined && !fresh) {
      throw broken instanceof Lost ? unavailable(broken) : broken;
    }
    if (broken instanceof Lost) return void (await link.closed);
    if (!mayLeave(broken)) throw broken;
    // A node that shuts down says so before it goes.
    const patience = new Deadline(LEAVING_MS);
    const stays = () => {
      throw broken;
    };
    await patience.race(link.closed).catch(stays);
    patience.clear();
  }

  #put(item: Taken): void {
    if (this.#end !== undefined) return;
    if (this.#room === 0) {
      const error = new CallError("INTERNAL", "the node sent more than was asked for");
      return this.#leave({ error });
    }
    this.#room--;
    this.#after = item.event;
    this.#items.push(item);
    this.#heard();
  }

  #take({ output, event }: Taken): unknown {
    this.#event = event;
    this.#taken++;
    if (2 * this.#taken >= this.#window) {
      this.#room += this.#taken;
      this.#widen(this.#taken);
      this.#taken = 0;
    }
    return output;
  }

  /** Ends it, and tells the node. */
  #leave(end: { error?: unknown }): void {
    this.#end ??= end;
    this.#left.abort();
    this.#finish(end);
  }

  #finish(end: { error?: unknown }): void {
    this.#end ??= end;
    this.#deadline.clear();
    this.#heard();
  }
}

/** Whether a node may say this because it shuts down. */
function mayLeave({ code, retryable, details }: CallError): boolean {
  const slow = isObject(details) && details["reason"] === "slow-consumer";
  return code === "UNAVAILABLE" && retryable && !slow;
}

function unavailable(cause: Lost): CallError {
  return new CallError("UNAVAILABLE", "the connection was lost, and the items with it", { cause });
}
