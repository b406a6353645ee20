/** What is made of a text. */
export type Task =
  { kind: "markdown"; text: string } | { kind: "colours"; text: string; language: string };

/** What is heard of it: first that everything is there that it takes. */
export interface Heard {
  begun?: true;
  text?: string;
  error?: string;
}

/** What is needed of a `Worker`. */
export interface Thread {
  onmessage: ((event: { data: Heard }) => void) | null;
  onerror: ((event: { message?: string }) => void) | null;
  postMessage(task: Task): void;
  terminate(): void;
}

/** How long a text may take, and how long what works on it may take to come. */
const WORKING_MS = 2_000;
const COMING_MS = 30_000;
/** How many texts may wait. */
const MAX_WAITING = 64;

/**
 * A thread that works on texts of strangers, one after the other. What makes pages and colours
 * of texts may take a time that grows with the square of their size, or worse; a text that takes
 * too long is given up, and the thread with it.
 */
export class Aside {
  readonly #start: () => Thread;
  #thread: Thread | undefined;
  #last: Promise<unknown> = Promise.resolve();
  #waiting = 0;

  constructor(start: () => Thread) {
    this.#start = start;
  }

  /** What is made of a text. Throws if that takes too long. */
  async work(task: Task): Promise<string> {
    if (this.#waiting >= MAX_WAITING) throw new Error("too much is waiting to be shown");
    this.#waiting++;
    const done = this.#last.then(() => this.#work(task));
    this.#last = done.catch(() => undefined);
    try {
      return await done;
    } finally {
      this.#waiting--;
    }
  }

  async #work(task: Task): Promise<string> {
    const thread = (this.#thread ??= this.#start());
    let timer: ReturnType<typeof setTimeout> | undefined;
    try {
      return await new Promise((resolve, reject) => {
        const giveUp = (why: string) => {
          this.#thread = undefined;
          thread.terminate();
          reject(new Error(why));
        };
        const wait = (ms: number) => {
          clearTimeout(timer);
          timer = setTimeout(giveUp, ms, "it takes too long");
        };
        thread.onmessage = ({ data }) => {
          if (data.text !== undefined) resolve(data.text);
          else if (data.begun) wait(WORKING_MS);
          else reject(new Error(data.error));
        };
        thread.onerror = ({ message }) => giveUp(message || "what is needed for it has not come");
        wait(COMING_MS);
        thread.postMessage(task);
      });
    } finally {
      clearTimeout(timer);
      thread.onmessage = thread.onerror = null;
    }
  }
}

let only: Aside | undefined;

/** The page's only one. */
export function aside(): Aside {
  only ??= new Aside(() => {
    // In one expression, by which Vite knows that this is a worker.
    const worker = new Worker(new URL("./aside.worker.ts", import.meta.url), { type: "module" });
    return worker as unknown as Thread;
  });
  return only;
}
