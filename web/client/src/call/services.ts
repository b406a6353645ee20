import type { Json } from "../json.js";

/** What a handler is told besides its input. */
export interface HandlerContext {
  /** Aborted when the caller gives up, its deadline has passed, or the connection is lost. */
  readonly signal: AbortSignal;
  /** The operation's name. */
  readonly name: string;
  /** The event of the {@link Item} behind which a subscription is to go on. */
  readonly after: string | undefined;
}

/** An item of a subscription with the string by which a subscriber can go on behind it. */
export class Item<T = unknown> {
  readonly output: T;
  readonly event: string;

  constructor(output: T, event: string) {
    this.output = output;
    this.event = event;
  }
}

interface Described {
  description?: string;
  /** JSON Schema (2020-12), for callers to see: the handler checks its input itself. */
  input?: Json;
  /** JSON Schema (2020-12), for callers to see. */
  output?: Json;
}

/** An operation that gives one answer. */
export interface Unary extends Described {
  type: "query" | "mutation";
  // The schema describes the input, so its type is the handler's to say.
  handler(input: any, context: HandlerContext): unknown;
}

/** An operation that gives items until it ends; they may be {@link Item}s. */
export interface Stream extends Described {
  type: "subscription";
  handler(input: any, context: HandlerContext): AsyncIterable<unknown>;
}

export type Operation = Unary | Stream;

/** Operations by their names. */
export type Operations = Readonly<Record<string, Operation>>;

/** Calls that the node may have in progress here. */
const MAX_CALLS = 256;

/** What is served here, over all streams of a client. */
export class Services {
  readonly #operations = new Map<string, Operation>();
  readonly #failed: (name: string, error: unknown) => void;
  #calls = 0;

  /** `failed` hears of what a handler throws, other than a `CallError`. */
  constructor(failed: (name: string, error: unknown) => void) {
    this.#failed = failed;
  }

  get size(): number {
    return this.#operations.size;
  }

  add(operations: Operations): void {
    const names = Object.keys(operations);
    const twice = names.find((name) => this.#operations.has(name));
    if (twice !== undefined) throw new TypeError(`${twice} is served already`);
    for (const name of names) this.#operations.set(name, operations[name]!);
  }

  remove(operations: Operations): void {
    for (const name of Object.keys(operations)) this.#operations.delete(name);
  }

  get(name: string): Operation | undefined {
    return this.#operations.get(name);
  }

  failed(name: string, error: unknown): void {
    this.#failed(name, error);
  }

  /** Takes room for a call, if there is some; {@link leave} gives it back. */
  enter(): boolean {
    if (this.#calls >= MAX_CALLS) return false;
    this.#calls++;
    return true;
  }

  leave(): void {
    this.#calls--;
  }

  /** The input of `services/register`. */
  get registration(): { operations: object[] } {
    const operations = [...this.#operations].map(([name, operation]) => {
      const { type, description = "", input = true, output = true } = operation;
      return { name, type, description, input, output };
    });
    return { operations };
  }
}
