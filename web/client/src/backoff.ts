const FIRST_MS = 250;
const LONGEST_MS = 30_000;

/** A connection that has lasted this long was a good one. */
const GOOD_MS = 10_000;

/** How long to wait before the next try: twice as long each time, and never all at once. */
export class Backoff {
  readonly #random: () => number;
  readonly #longest: number;
  #tries = 0;

  constructor(random: () => number = () => Math.random(), longestMs = LONGEST_MS) {
    this.#random = random;
    this.#longest = longestMs;
  }

  /** A connection has ended that had lasted so long. */
  ended(lastedMs: number): void {
    if (lastedMs >= GOOD_MS) this.#tries = 0;
  }

  /** Milliseconds until the next try. */
  next(): number {
    const most = Math.min(this.#longest, FIRST_MS * 2 ** this.#tries++);
    return most * (0.5 + this.#random() / 2);
  }
}
