import { race } from "../deadline.js";

/** How long a node may say nothing: git says every few seconds that it is at work. */
const SILENCE_MS = 120_000;

/** Waits for the other side, as long as there is something of it now and then. */
export class Silence {
  readonly #signal: AbortSignal;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #late: (() => void) | undefined;

  constructor(signal: AbortSignal) {
    this.#signal = signal;
  }

  /** Waits for `promise`, no longer than the silence may last. */
  async while<T>(promise: Promise<T>): Promise<T> {
    const silent = new Promise<never>((_, reject) => {
      this.#late = () => reject(new Error("the node has said nothing for two minutes"));
    });
    this.stir();
    try {
      return await race(Promise.race([promise, silent]), this.#signal);
    } finally {
      clearTimeout(this.#timer);
      this.#late = undefined;
    }
  }

  /** Something has moved in either direction. */
  stir(): void {
    clearTimeout(this.#timer);
    if (this.#late !== undefined) this.#timer = setTimeout(this.#late, SILENCE_MS);
  }
}
