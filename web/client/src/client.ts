import { CallError, Lost } from "./call/error.js";
import type { Link } from "./call/link.js";
import { Services, type Operations } from "./call/services.js";
import { Connector, type Dialler, type Reason, type State } from "./connector.js";
import { Deadline } from "./deadline.js";
import type {
  AnyOperations,
  Args,
  CallName,
  OperationTypes,
  SubscriptionName,
} from "./operations.js";
import { Subscription, type Request, type SubscribeOptions } from "./subscription.js";

/** How to call. */
export interface CallOptions {
  /** Its abort cancels the call at the node; the call throws the signal's reason. */
  signal?: AbortSignal;
  /** How long to wait, with the time until there is a connection; half a minute if left out. */
  timeoutMs?: number;
  /**
   * Whether the call may be made once more if the connection is lost over it. If left out,
   * queries are, as the node lists them.
   */
  repeatable?: boolean;
}

/** What a client is made of. */
export interface ClientOptions {
  /** Hears of what a handler of `serve` throws, other than a `CallError`. */
  onHandlerError?: (name: string, error: unknown) => void;
}

const TIMEOUT_MS = 30_000;

/** The state of a client's connection has changed. */
export class StateEvent extends Event {
  readonly state: State;
  /** The error, or the node's code, that ended the connection or the try. */
  readonly reason: Reason;

  constructor(state: State, reason: Reason) {
    super("state");
    this.state = state;
    this.reason = reason;
  }
}

/** The node does not take what is served here any more, after a reconnect. */
export class RegistrationEvent extends Event {
  readonly error: unknown;

  constructor(error: unknown) {
    super("registration");
    this.error = error;
  }
}

interface ClientEvents {
  state: StateEvent;
  registration: RegistrationEvent;
}

/** The call client of one node. It connects by itself, and again whenever it has to. */
export class Client<Ops extends OperationTypes<Ops> = AnyOperations> extends EventTarget {
  readonly #connector: Connector;
  readonly #services: Services;
  /** Which operations are queries, once it was asked. */
  #queries: Promise<ReadonlySet<string>> | undefined;
  #registering: Promise<void> = Promise.resolve();

  constructor(dial: Dialler, { onHandlerError = report }: ClientOptions = {}) {
    super();
    this.#services = new Services(onHandlerError);
    this.#connector = new Connector(dial, this.#services, (state, reason) => {
      if (state === "open") this.#opened();
      this.dispatchEvent(new StateEvent(state, reason));
    });
  }

  get state(): State {
    return this.#connector.state;
  }

  /** Waits for a connection. Throws a {@link CallError} when there will be none. */
  async ready({ signal }: { signal?: AbortSignal } = {}): Promise<void> {
    const deadline = new Deadline(undefined, signal);
    await deadline.race(this.#connector.link).finally(() => deadline.clear());
  }

  /** Calls a query or a mutation. Throws a {@link CallError}, or the signal's reason. */
  async call<Name extends CallName<Ops>>(
    name: Name,
    ...[input, options]: Args<Ops[Name]["input"], CallOptions>
  ): Promise<Ops[Name]["output"]> {
    const { signal, timeoutMs = TIMEOUT_MS, repeatable } = (options ?? {}) as CallOptions;
    const deadline = new Deadline(timeoutMs, signal);
    try {
      return await this.#call({ operationId: name, input }, deadline, repeatable);
    } finally {
      deadline.clear();
    }
  }

  /** The items of a subscription; it begins when the first is asked for. */
  subscribe<Name extends SubscriptionName<Ops>>(
    name: Name,
    ...[input, options]: Args<Ops[Name]["input"], SubscribeOptions>
  ): Subscription<Ops[Name]["output"]> {
    const request = { operationId: name, input };
    return new Subscription(this.#connector, request, (options ?? {}) as SubscribeOptions);
  }

  /**
   * Serves operations to the node, besides those served already, on this connection and on
   * those after it. Resolves when the node has taken them, with a function that withdraws
   * them; throws a {@link CallError} if it does not.
   */
  async serve(operations: Operations): Promise<() => Promise<void>> {
    this.#services.add(operations);
    const withdraw = async () => {
      this.#services.remove(operations);
      await this.#register();
    };
    try {
      await this.#register();
    } catch (error) {
      await withdraw().catch(() => undefined);
      throw error;
    }
    return withdraw;
  }

  /** Ends the connection and everything on it, for good. */
  close(): void {
    this.#connector.close();
  }

  override addEventListener<Type extends keyof ClientEvents>(
    type: Type,
    listener: (event: ClientEvents[Type]) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  override addEventListener(...args: Parameters<EventTarget["addEventListener"]>): void;
  override addEventListener(...args: unknown[]): void {
    super.addEventListener(...(args as Parameters<EventTarget["addEventListener"]>));
  }

  async #call(request: Request, deadline: Deadline, repeatable?: boolean): Promise<unknown> {
    for (let repeated = false; ;) {
      const link = await deadline.race(this.#connector.link);
      try {
        const payload = { ...request, ...deadline.left };
        return await deadline.race(link.call(payload, deadline.signal));
      } catch (error) {
        if (!(error instanceof Lost)) throw error;
        if (error.sent) {
          const may = !repeated && (repeatable ?? (await this.#isQuery(request, deadline)));
          if (!may) throw unknownOutcome(error);
          repeated = true;
        }
        await deadline.race(link.closed);
      }
    }
  }

  /** Whether an operation is a query, as far as the node says. */
  async #isQuery({ operationId }: Request, deadline: Deadline): Promise<boolean> {
    const queries = (this.#queries ??= this.#listQueries());
    return (await deadline.race(queries)).has(operationId);
  }

  async #listQueries(): Promise<ReadonlySet<string>> {
    const request = { operationId: "services/list", input: {} };
    const deadline = new Deadline(TIMEOUT_MS);
    try {
      const { operations } = (await this.#call(request, deadline, true)) as Listing;
      return new Set(operations.filter(({ type }) => type === "query").map(({ name }) => name));
    } catch {
      // Not known: then nothing is called twice. The next to ask may have more luck.
      this.#queries = undefined;
      return new Set();
    } finally {
      deadline.clear();
    }
  }

  /** A new connection knows nothing of what is served. */
  #opened(): void {
    if (this.#services.size === 0) return;
    this.#register().catch((error: unknown) => {
      if (this.state !== "closed") this.dispatchEvent(new RegistrationEvent(error));
    });
  }

  /** Tells the node what is served now; one telling at a time, so that the last one holds. */
  #register(): Promise<void> {
    const next = this.#registering.then(async () => {
      for (;;) {
        const link = await this.#connector.link;
        try {
          return await this.#registerOn(link);
        } catch (error) {
          if (!(error instanceof Lost)) throw error;
          await link.closed;
        }
      }
    });
    this.#registering = next.catch(() => undefined);
    return next;
  }

  async #registerOn(link: Link): Promise<void> {
    const deadline = new Deadline(TIMEOUT_MS, this.#connector.signal);
    const payload = { operationId: "services/register", input: this.#services.registration };
    try {
      await deadline.race(link.call(payload, deadline.signal));
    } finally {
      deadline.clear();
    }
  }
}

interface Listing {
  operations: { name: string; type: string }[];
}

function unknownOutcome(cause: Lost): CallError {
  const message = "the connection was lost, and whether the call took effect is not known";
  return new CallError("UNAVAILABLE", message, { cause });
}

function report(name: string, error: unknown): void {
  console.error(`the handler of ${name} failed`, error);
}
