import { Backoff } from "./backoff.js";
import { CallError } from "./call/error.js";
import { Link } from "./call/link.js";
import type { Services } from "./call/services.js";
import { isTransient } from "./dial/dial.js";
import { Deferred } from "./deferred.js";
import type { Session } from "./dial/session.js";

/** Opens a connection to the node. */
export type Dialler = (signal: AbortSignal) => Promise<Session>;

/**
 * `connecting` until there is a connection and whenever it is lost; `closed` for good, by
 * `close` or because dialling again is of no use.
 */
export type State = "connecting" | "open" | "closed";

/** Why the state is what it is: an error, or the node's code. */
export interface Reason {
  error?: unknown;
  code?: number;
}

type Changed = (state: State, reason: Reason) => void;

/** Keeps one connection, and makes another when it is lost. */
export class Connector {
  readonly #dial: Dialler;
  readonly #services: Services;
  readonly #changed: Changed;
  readonly #backoff = new Backoff();
  readonly #closing = new AbortController();
  #state: State = "connecting";
  #link = new Deferred<Link>();
  #hurry: () => void = () => undefined;

  constructor(dial: Dialler, services: Services, changed: Changed) {
    this.#dial = dial;
    this.#services = services;
    this.#changed = changed;
    globalThis.addEventListener?.("online", this.#online);
    // Not before whoever makes it can listen.
    void Promise.resolve().then(() => this.#run());
  }

  get state(): State {
    return this.#state;
  }

  /** Aborted when it is closed for good. */
  get signal(): AbortSignal {
    return this.#closing.signal;
  }

  /** The connection, when there is one. Throws a `CallError` if there will be none. */
  get link(): Promise<Link> {
    return this.#link.promise;
  }

  close(): void {
    this.#close({}, new CallError("UNAVAILABLE", "the client is closed"));
  }

  async #run(): Promise<void> {
    while (!this.#closing.signal.aborted) {
      await this.#connect();
      if (!this.#closing.signal.aborted) await this.#pause(this.#backoff.next());
    }
  }

  /** One connection, from the dialling to its end. */
  async #connect(): Promise<void> {
    let session: Session;
    try {
      session = await this.#dial(this.#closing.signal);
    } catch (error) {
      if (isTransient(error)) return this.#become("connecting", { error });
      const refusal = new CallError("UNAVAILABLE", "the node cannot be reached", { cause: error });
      return this.#close({ error }, refusal);
    }
    if (this.#closing.signal.aborted) return session.close();
    const since = performance.now();
    const link = new Link(session, this.#services);
    this.#link.resolve(link);
    this.#become("open", {});
    const close = () => session.close();
    this.#closing.signal.addEventListener("abort", close, { once: true });
    const code = await link.closed;
    this.#closing.signal.removeEventListener("abort", close);
    this.#backoff.ended(performance.now() - since);
    if (this.#closing.signal.aborted) return;
    this.#link = new Deferred();
    this.#become("connecting", code === undefined ? {} : { code });
  }

  #close(reason: Reason, error: CallError): void {
    if (this.#state === "closed") return;
    globalThis.removeEventListener?.("online", this.#online);
    if (this.#state === "open") this.#link = new Deferred();
    this.#link.reject(error);
    this.#become("closed", reason);
    this.#closing.abort(error);
    this.#hurry();
  }

  #become(state: State, reason: Reason): void {
    if (this.#state === "closed") return;
    this.#state = state;
    this.#changed(state, reason);
  }

  /** Waits, but no longer than until the network is back. */
  async #pause(ms: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#hurry = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#hurry = () => undefined;
  }

  readonly #online = () => this.#hurry();
}
