import type { Duplex, Session } from "../dial/session.js";
import { Code } from "../dial/session.js";
import { Channel, type Sink } from "./channel.js";
import { Deferred } from "../deferred.js";
import { CallError, Lost } from "./error.js";
import { FrameError, type Payload } from "./frame.js";
import type { Services } from "./services.js";

/** How long the end of the connection may take to show after that of a stream. */
const CODE_MS = 1_000;

/**
 * Subscriptions that get a stream of their own; the others share one. A node lets streams
 * beyond its limit wait, and the stream of all calls must not be among those.
 */
const MAX_OWN = 32;

/** A subscription's hands on its call. */
export interface Subscribed {
  /** Lets the callee send more. */
  widen(items: number): void;
}

/** Calls over one connection. */
export class Link {
  readonly session: Session;
  /** The node's code for the end, once it is over, if it gave one. */
  readonly closed: Promise<number | undefined>;
  readonly #broken = new Deferred<undefined>();
  readonly #services: Services;
  readonly #channels = new Set<Channel>();
  #own = 0;
  #sharing: Promise<Channel> | undefined;
  #shared: Channel | undefined;

  constructor(session: Session, services: Services) {
    this.session = session;
    this.#services = services;
    this.closed = Promise.race([session.closed, this.#broken.promise]);
    void this.#accept();
    void this.closed.then(() => {
      for (const channel of this.#channels) channel.kill();
    });
  }

  /**
   * Calls a query or a mutation. Throws a {@link CallError}, {@link Lost}, or the signal's
   * reason, whose abort stops the call.
   */
  async call(payload: Payload, signal: AbortSignal): Promise<unknown> {
    signal.throwIfAborted();
    const channel = await this.#common();
    signal.throwIfAborted();
    return await new Promise<unknown>((resolve, reject) => {
      const settle = (then: () => void) => {
        signal.removeEventListener("abort", abort);
        then();
      };
      const id = channel.request(payload, {
        responded: (output) => {
          channel.forget(id);
          settle(() => resolve(output));
        },
        completed: () => settle(() => reject(wrongKind())),
        ended: (error) => settle(() => reject(error)),
      });
      const abort = () => {
        channel.abort(id);
        reject(signal.reason as Error);
      };
      signal.addEventListener("abort", abort, { once: true });
    });
  }

  /** Starts a subscription, on a stream of its own where there can be several. */
  async subscribe(payload: Payload, sink: Sink, signal: AbortSignal): Promise<Subscribed> {
    signal.throwIfAborted();
    const own = this.session.multiplexed && this.#own < MAX_OWN;
    if (own) this.#own++;
    const channel = await (own ? this.#open() : this.#common());
    // Nothing follows on a stream of its own.
    const leave = () => {
      if (!own) return;
      this.#own--;
      void channel.finish();
    };
    try {
      signal.throwIfAborted();
      return ask(channel, payload, sink, signal, leave);
    } catch (error) {
      leave();
      throw error;
    }
  }

  /** The stream that calls share. */
  async #common(): Promise<Channel> {
    this.#sharing ??= this.#open();
    this.#shared = await this.#sharing;
    return this.#shared;
  }

  /** Gives the connection up. The transport may still have the node's code to tell. */
  #break(code: number): void {
    this.session.close(code);
    const late = setTimeout(() => this.#broken.resolve(undefined), CODE_MS);
    void this.session.closed.then(() => clearTimeout(late));
  }

  async #open(): Promise<Channel> {
    const stream = await this.session.open().catch((cause: unknown) => {
      this.#break(Code.NORMAL);
      throw new Lost(false, { cause });
    });
    return this.#watch(stream, true);
  }

  #watch(stream: Duplex, opened: boolean): Channel {
    const channel = new Channel(stream, opened, this.#services);
    this.#channels.add(channel);
    void channel.over.then((error) => {
      this.#channels.delete(channel);
      // A stream that ends too soon leaves nothing to rely on. One of the node's is its own.
      if (opened && (error !== undefined || channel.bereft || channel === this.#shared)) {
        this.#break(error instanceof FrameError ? Code.PROTOCOL : Code.NORMAL);
      }
    });
    return channel;
  }

  /** Answers on the streams that the node opens, until there are no more. */
  async #accept(): Promise<void> {
    const reader = this.session.incoming.getReader();
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        this.#watch(value, false);
      }
    } catch {
      // The connection is over: `closed` says so.
    }
  }
}

/** Subscribes on a stream; `leave` is called once the subscription is over. */
function ask(
  channel: Channel,
  payload: Payload,
  sink: Sink,
  signal: AbortSignal,
  leave: () => void,
): Subscribed {
  const end = (then: () => void) => {
    signal.removeEventListener("abort", abort);
    leave();
    then();
  };
  const abort = () => {
    channel.abort(id);
    end(() => undefined);
  };
  const id = channel.request(payload, {
    responded: (output, event) => sink.responded(output, event),
    completed: () => end(() => sink.completed()),
    ended: (error) => end(() => sink.ended(error)),
  });
  signal.addEventListener("abort", abort);
  return { widen: (items) => channel.widen(id, items) };
}

function wrongKind(): CallError {
  return new CallError("INTERNAL", "this is a subscription, and it has ended without an item");
}
