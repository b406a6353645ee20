import { Backoff } from "../backoff.js";
import type { Bytes } from "../bytes.js";
import type { Dialler } from "../connector.js";
import { race } from "../deadline.js";
import { Deferred } from "../deferred.js";
import { isTransient } from "../dial/dial.js";
import { Code, type Carrier, type Duplex, type Session } from "../dial/session.js";
import type { Attached, Exit, Notice, ShellError } from "./control.js";
import { Core, type Delivery, type Request, type Viewer } from "./core.js";
import { ShellProtocolError, type TerminalSize } from "./frame.js";
import { Wire } from "./wire.js";

/** The longest pause between two tries: whoever waits for a prompt waits no longer. */
const LONGEST_PAUSE_MS = 2_000;
/** An attachment that has lasted this long is taken up again without a pause. */
const STEADY_MS = 1_000;
/** How long one try to reach the node may take. */
const TRY_MS = 10_000;
/** How long the node may take to take leave. */
const LEAVE_MS = 2_000;

const none = () => undefined;

/** How to look at a shell. */
export interface AttachOptions {
  /** Which session; the one that was attached last if left out. */
  name?: string;
  /** Whether one is started where there is none: under `name`, or else as `main`. */
  create?: boolean;
  /** What a new session runs in place of the login shell. */
  command?: string;
  /** Looks on: types nothing, and its size does not count. */
  readOnly?: boolean;
  /** How many lines that have scrolled off are wanted. */
  history?: number;
  /** The terminal's type, `xterm-256color` if left out, and its size. */
  term?: string;
  size: TerminalSize;
  /** Variables of a new session: `LANG`, `LC_*` and `COLORTERM`. */
  env?: Readonly<Record<string, string>>;
  /**
   * Writes to the terminal, one piece after the other. The node sends on as the promises
   * resolve. A screen comes as output, too, after the bytes that reset a terminal (`ESC c`).
   */
  output: (bytes: Bytes) => void | Promise<void>;
  /** Who looked before, as `remember` was told: goes on as that viewer, with a screen. */
  viewer?: Viewer;
  /**
   * Is told who looks, each time before it attaches, for `viewer` of a later page. The id is
   * a secret.
   */
  remember?: (viewer: Viewer) => void;
  /** Hears of each try to reach the node that has failed; there will be others. */
  failed?: (error: unknown) => void;
}

/**
 * `connecting` until it is attached; `open`; `away` while the transport is gone or silent and
 * another is sought; `ended` for good.
 */
export type ShellState = "connecting" | "open" | "away" | "ended";

/** How it ended. */
export type ShellEnd =
  /** The program has. */
  | { reason: "exited"; exit: Exit }
  /** By `detach` or `close`; the shell runs on. */
  | { reason: "detached" }
  /** The node's word. */
  | { reason: "refused"; error: ShellError }
  /** The credential does not hold any more. */
  | { reason: "revoked" }
  /** Another error, after which trying again is of no use. */
  | { reason: "failed"; error: unknown };

/** The state has changed. */
export class ShellStateEvent extends Event {
  readonly state: ShellState;

  constructor(state: ShellState) {
    super("state");
    this.state = state;
  }
}

/** The viewer is attached, for the first time or again. */
export class AttachedEvent extends Event {
  readonly attached: Attached;

  constructor(attached: Attached) {
    super("attached");
    this.attached = attached;
  }
}

/** The terminal is painted anew: comes before the output that does so. */
export class ScreenEvent extends Event {
  /** How many bytes of output this viewer will never get. */
  readonly missed: number;

  constructor(missed: number) {
    super("screen");
    this.missed = missed;
  }
}

/** Another viewer came or went, or the terminal has another size. */
export class NoticeEvent extends Event {
  readonly notice: Notice;

  constructor(notice: Notice) {
    super("notice");
    this.notice = notice;
  }
}

interface ShellEvents {
  state: ShellStateEvent;
  attached: AttachedEvent;
  screen: ScreenEvent;
  notice: NoticeEvent;
}

/** A viewer of a shell that outlives its transport. It attaches by itself, as often as it has to. */
export class Shell extends EventTarget {
  /** How it ended; never rejects. */
  readonly ended: Promise<ShellEnd>;
  readonly #dial: Dialler;
  readonly #core: Core;
  readonly #output: AttachOptions["output"];
  readonly #remember: (viewer: Viewer) => void;
  readonly #failed: (error: unknown) => void;
  readonly #backoff = new Backoff(undefined, LONGEST_PAUSE_MS);
  readonly #ended = new Deferred<ShellEnd>();
  #state: ShellState = "connecting";
  #session: Session | undefined;
  #wire: Wire | undefined;
  #since = 0;
  #remembered: Viewer | undefined;
  #seeking: AbortController | undefined;
  #hurry: () => void = () => undefined;
  #pumping = false;
  #detaching = false;

  constructor(dial: Dialler, options: AttachOptions) {
    super();
    const { size, viewer, output, remember = none, failed = none, ...request } = options;
    this.ended = this.#ended.promise;
    this.#dial = dial;
    this.#output = output;
    this.#remember = remember;
    this.#failed = failed;
    this.#core = new Core(request satisfies Request, size, viewer);
    globalThis.addEventListener?.("online", this.#wake);
    globalThis.document?.addEventListener("visibilitychange", this.#wake);
    // Not before whoever makes it can listen.
    void Promise.resolve().then(() => this.#seek(false));
  }

  get state(): ShellState {
    return this.#state;
  }

  /** What the node has said of the present attachment. */
  get attached(): Attached | undefined {
    return this.#core.attached;
  }

  /** What carries it, or did last. */
  get carrier(): Carrier | undefined {
    return this.#session?.carrier;
  }

  /**
   * Types; resolves when the node has it. What is typed while the transport is gone is sent
   * when it is back. Throws a `RangeError` if more than 8 MiB wait, and an error if what
   * waited was given up. A viewer that is read-only types nothing.
   */
  async write(bytes: Bytes): Promise<void> {
    if (this.#state === "ended") throw new Error("the shell is not attached any more");
    const taken = this.#core.write(bytes);
    this.#wire?.send();
    await taken;
  }

  /** The viewer's terminal has another size. The session's is the smallest of all. */
  resize(size: TerminalSize): void {
    this.#core.resize(size);
    this.#wire?.send();
  }

  /** Ends the viewer for good; the shell runs on. */
  async detach(): Promise<void> {
    if (this.#wire === undefined || this.#state !== "open") return this.close();
    this.#detaching = true;
    this.#core.detach();
    this.#wire.send();
    const late = setTimeout(() => this.close(), LEAVE_MS);
    await this.ended.finally(() => clearTimeout(late));
  }

  /** Cuts it off. The viewer may come back by `viewer`. */
  close(): void {
    this.#finish({ reason: "detached" });
  }

  override addEventListener<Type extends keyof ShellEvents>(
    type: Type,
    listener: (event: ShellEvents[Type]) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  override addEventListener(...args: Parameters<EventTarget["addEventListener"]>): void;
  override addEventListener(...args: unknown[]): void {
    super.addEventListener(...(args as Parameters<EventTarget["addEventListener"]>));
  }

  /** Looks for a transport, beside one that may be gone; the first that is there is used. */
  async #seek(pause: boolean): Promise<void> {
    if (this.#seeking !== undefined || this.#state === "ended") return;
    const seeking = new AbortController();
    this.#seeking = seeking;
    try {
      const found = await this.#reach(seeking.signal, pause);
      if (seeking.signal.aborted) return found.session.close();
      this.#seeking = undefined;
      this.#use(found);
    } catch (error) {
      if (!seeking.signal.aborted) this.#finish({ reason: "failed", error });
    }
  }

  async #reach(signal: AbortSignal, pause: boolean): Promise<{ session: Session; stream: Duplex }> {
    for (;;) {
      if (pause) await this.#pause(this.#backoff.next(), signal);
      signal.throwIfAborted();
      const deadline = AbortSignal.any([signal, AbortSignal.timeout(TRY_MS)]);
      try {
        const session = await this.#dial(deadline);
        const stream = await race(session.open(), deadline).catch((error: unknown) => {
          session.close();
          throw error;
        });
        return { session, stream };
      } catch (error) {
        if (!isTransient(error)) throw error;
        if (!signal.aborted) this.#failed(error);
      }
      pause = true;
    }
  }

  #use({ session, stream }: { session: Session; stream: Duplex }): void {
    this.#drop();
    this.#since = performance.now();
    const heard = () => this.#heard();
    const wire = new Wire(stream, this.#core, { heard, silent: () => this.#away() });
    this.#session = session;
    this.#wire = wire;
    this.#keep();
    void wire.over.then((error) => this.#lost(wire, error));
    void session.closed.then((code) => {
      const final = code === Code.REVOKED || code === Code.REFUSED;
      if (final && session === this.#session) this.#finish({ reason: "revoked" });
    });
  }

  /** Something has come: the transport is not gone. */
  #heard(): void {
    this.#seeking?.abort();
    this.#seeking = undefined;
    if (this.#core.attached !== undefined) {
      this.#keep();
      this.#become("open");
    }
    void this.#pump();
  }

  #keep(): void {
    const { viewer } = this.#core;
    if (viewer === this.#remembered) return;
    this.#remembered = viewer;
    this.#remember(viewer);
  }

  #away(pause = false): void {
    if (this.#state === "open") this.#become("away");
    void this.#seek(pause);
  }

  #lost(wire: Wire, error: unknown): void {
    if (wire !== this.#wire) return;
    if (this.#detaching) return this.close();
    this.#drop();
    if (error instanceof ShellProtocolError) return this.#finish({ reason: "failed", error });
    // After the node's last word it is for the pump to say how to go on.
    if (!this.#core.over) this.#again();
  }

  /** Attaches again, at once if the attachment before was a good one. */
  #again(): void {
    const lasted = performance.now() - this.#since;
    this.#backoff.ended(lasted);
    this.#away(lasted < STEADY_MS);
  }

  /** The present transport is not used any more. */
  #drop(): void {
    this.#wire?.close();
    this.#wire = undefined;
    this.#session?.close();
  }

  /** Gives the consumer what has come, one thing after the other. */
  async #pump(): Promise<void> {
    if (this.#pumping) return;
    this.#pumping = true;
    try {
      for (let next; this.#state !== "ended" && (next = this.#core.next()) !== undefined;) {
        await this.#deliver(next);
      }
    } catch (error) {
      this.#finish({ reason: "failed", error });
    } finally {
      this.#pumping = false;
    }
  }

  async #deliver(delivery: Delivery): Promise<void> {
    switch (delivery.kind) {
      case "output":
        await this.#output(delivery.bytes);
        this.#core.consumed();
        this.#wire?.send();
        return;
      case "attached":
        this.dispatchEvent(new AttachedEvent(delivery.attached));
        return;
      case "screen":
        this.dispatchEvent(new ScreenEvent(delivery.missed));
        return;
      case "notice":
        this.dispatchEvent(new NoticeEvent(delivery.notice));
        return;
      case "exited":
        return this.#finish({ reason: "exited", exit: delivery.exit });
      case "error":
        return this.#refused(delivery.error);
    }
  }

  #refused(error: ShellError): void {
    switch (error.code) {
      case "gone":
        // The node may have forgotten this viewer alone.
        if (this.#core.attached !== undefined || !this.#core.placed) {
          return this.#finish({ reason: "refused", error });
        }
        this.#core.renew();
        break;
      case "stale":
      case "replaced":
        // A copy of this page has the same viewer. There is room for both, not for a quarrel.
        this.#core.renew();
        break;
      case "busy":
        break;
      default:
        return this.#finish({ reason: "refused", error });
    }
    this.#drop();
    this.#again();
  }

  #finish(end: ShellEnd): void {
    if (this.#state === "ended") return;
    globalThis.removeEventListener?.("online", this.#wake);
    globalThis.document?.removeEventListener("visibilitychange", this.#wake);
    this.#become("ended");
    this.#seeking?.abort();
    this.#drop();
    this.#core.close(new Error("the shell is not attached any more"));
    this.#ended.resolve(end);
  }

  #become(state: ShellState): void {
    if (this.#state === state || this.#state === "ended") return;
    this.#state = state;
    this.dispatchEvent(new ShellStateEvent(state));
  }

  /** Waits, but no longer than until the network is back. */
  async #pause(ms: number, signal: AbortSignal): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#hurry = () => {
        clearTimeout(timer);
        resolve();
      };
      signal.addEventListener("abort", this.#hurry, { once: true });
    });
    signal.removeEventListener("abort", this.#hurry);
    this.#hurry = () => undefined;
  }

  /** The network is back, or somebody looks again: time to find out. */
  readonly #wake = () => {
    if (globalThis.document?.visibilityState === "hidden") return;
    this.#hurry();
    this.#wire?.ask();
  };
}
