import { CallError } from "./call/error.js";

/** The longest time that a platform's timer can be set to. */
const MAX_TIMER_MS = 0x7fff_ffff;

/** How long something may take, and whoever else may end it sooner. */
export class Deadline {
  /** Aborted with a `CallError` of code `TIMEOUT`, or with the reason of whoever was sooner. */
  readonly signal: AbortSignal;
  readonly #controller = new AbortController();
  readonly #end: number | undefined;
  readonly #timer: ReturnType<typeof setTimeout> | undefined;
  readonly #others: AbortSignal[];

  constructor(timeoutMs: number | undefined, ...others: (AbortSignal | undefined)[]) {
    this.signal = this.#controller.signal;
    this.#others = others.filter((other) => other !== undefined);
    for (const other of this.#others) {
      if (other.aborted) this.#controller.abort(other.reason);
      other.addEventListener("abort", this.#abort);
    }
    if (timeoutMs === undefined || timeoutMs === Infinity) return;
    this.#end = performance.now() + timeoutMs;
    this.#timer = setTimeout(
      () => this.#controller.abort(new CallError("TIMEOUT", "the deadline has passed")),
      Math.min(timeoutMs, MAX_TIMER_MS),
    );
  }

  /** What is left, in whole milliseconds, for the payload of a request. */
  get left(): { timeout_ms?: number } {
    if (this.#end === undefined) return {};
    return { timeout_ms: Math.max(1, Math.ceil(this.#end - performance.now())) };
  }

  /** Waits for `promise`, but no longer than this. */
  async race<T>(promise: Promise<T>): Promise<T> {
    return await race(promise, this.signal);
  }

  /** Nothing waits for it any more. */
  clear(): void {
    clearTimeout(this.#timer);
    for (const other of this.#others) other.removeEventListener("abort", this.#abort);
  }

  readonly #abort = (event: Event) => {
    this.#controller.abort((event.target as AbortSignal).reason);
  };
}

/** Waits for `promise`, or throws the reason of an abort that is sooner. */
export function race<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason as Error);
    const settle = () => signal.removeEventListener("abort", abort);
    promise.then(resolve, reject).finally(settle);
    if (signal.aborted) abort();
    else signal.addEventListener("abort", abort, { once: true });
  });
}
