// A node's side of `alknet/shell` for tests, as docs/shell.md has it, on links that deliver
// byte by byte what a test lets through.
import { concat, type Bytes } from "../bytes.js";
import { Deferred } from "../deferred.js";
import type { Duplex, Session } from "../dial/session.js";
import {
  encodeShell,
  ShellDecoder,
  type Control,
  type ShellFrame,
  type TerminalSize,
} from "./frame.js";

export const SESSION = "5c".repeat(16);
export const WINDOW = { input: 200, output: 400 } as const;

const text = new TextEncoder();

/** A connection with one stream, whose bytes wait until somebody lets them through. */
export class Link implements Session {
  readonly carrier = "webtransport" as const;
  readonly multiplexed = false;
  readonly incoming = new ReadableStream<Duplex>();
  readonly #closed = new Deferred<number | undefined>();
  readonly closed = this.#closed.promise;
  readonly #decoder = new ShellDecoder("client");
  /** What the client has sent and the node has not seen, and the other way round. */
  up: Bytes = new Uint8Array();
  down: Bytes = new Uint8Array();
  /** Whether nobody has ended or cut it. */
  alive = true;
  #ending = false;
  #controller!: ReadableStreamDefaultController<Bytes>;

  /** `frame` is the node's ear. */
  constructor(readonly frame: (link: Link, frame: ShellFrame) => void) {}

  async open(): Promise<Duplex> {
    return {
      readable: new ReadableStream<Bytes>({ start: (it) => void (this.#controller = it) }),
      writable: new WritableStream<Bytes>({
        write: (bytes) => {
          if (!this.alive) throw new Error("cut");
          this.up = concat(this.up, bytes);
        },
        abort: () => this.cut(),
      }),
    };
  }

  close(): void {
    this.cut();
  }

  /** Lets bytes through to the node. */
  passUp(count = this.up.length): void {
    const bytes = this.up.subarray(0, count);
    this.up = this.up.slice(count);
    for (const frame of this.#decoder.push(bytes)) if (this.alive) this.frame(this, frame);
  }

  /** Lets bytes through to the client. */
  passDown(count = this.down.length): void {
    if (!this.alive) return;
    const bytes = this.down.slice(0, count);
    this.down = this.down.slice(count);
    if (bytes.length > 0) this.#controller.enqueue(bytes);
    if (this.#ending && this.down.length === 0) this.#end(() => this.#controller.close());
  }

  send(frame: ShellFrame): void {
    this.down = concat(this.down, encodeShell(frame, "node"));
  }

  say(control: Control): void {
    this.send({ kind: "control", control });
  }

  /** Ends the stream behind what was sent. */
  finish(): void {
    this.#ending = true;
    if (this.down.length === 0) this.passDown();
  }

  /** Whatever is on its way is lost. */
  cut(code?: number): void {
    this.#end(() => this.#controller?.error(new Error("cut")), code);
  }

  #end(how: () => void, code?: number): void {
    if (!this.alive) return;
    this.alive = false;
    this.up = this.down = new Uint8Array();
    try {
      how();
    } catch {
      // The client has cancelled it.
    }
    this.#closed.resolve(code);
  }
}

interface Looker {
  attempt: number;
  readOnly: boolean;
  link: Link | undefined;
  /** Where the next OUTPUT begins, and what the client has. */
  sent: number;
  acked: number;
  input: Bytes;
  /** How much of the input the program has taken. */
  taken: number;
}

/** A node with one session. */
export class ShellNode {
  /** Every connection that was made. */
  readonly links: Link[] = [];
  /** All that the program wrote. */
  output: Bytes = new Uint8Array();
  readonly viewers = new Map<string, Looker>();
  /** Every attach that came. */
  readonly attaches: Control[] = [];
  readonly sizes: TerminalSize[] = [];
  /** What dialling fails with, while it does. */
  unreachable: unknown;
  /** Dials that wait for the network. */
  held: Deferred<void> | undefined;
  /** Whether a viewer gets a screen in place of what it missed. */
  forgets = false;
  started = false;
  /** What it has forgotten: the viewers that were there, or the session. */
  gone: "viewers" | "session" | undefined;
  /** Whether the program takes no input. */
  busy = false;

  readonly dial = async (): Promise<Session> => {
    if (this.unreachable !== undefined) throw this.unreachable;
    await this.held?.promise;
    const link = new Link((link, frame) => this.#hear(link, frame));
    this.links.push(link);
    return link;
  };

  get link(): Link {
    return this.links.at(-1)!;
  }

  /** The program writes. */
  write(what: string | Bytes): void {
    const bytes = typeof what === "string" ? text.encode(what) : what;
    this.output = concat(this.output, new Uint8Array(bytes));
    this.flush();
  }

  /** Sends what there is room for. */
  flush(piece = 64): void {
    for (const viewer of this.viewers.values()) {
      while (viewer.link?.alive) {
        const end = Math.min(this.output.length, viewer.acked + WINDOW.output, viewer.sent + piece);
        if (end <= viewer.sent) break;
        const bytes = this.output.slice(viewer.sent, end);
        viewer.link.send({ kind: "output", offset: viewer.sent, bytes });
        viewer.sent = end;
      }
    }
  }

  /** Gives a viewer a screen in place of all that it does not have. */
  paint(viewer: Looker, missed: number): void {
    const screen = text.encode(`<screen ${this.output.length}>`);
    const { length: output } = this.output;
    viewer.link?.say({ type: "screen", bytes: screen.length, output, missed });
    const half = screen.length >> 1;
    viewer.link?.send({ kind: "screen", bytes: screen.slice(0, half) });
    viewer.link?.send({ kind: "screen", bytes: screen.slice(half) });
    viewer.sent = viewer.acked = output;
  }

  #hear(link: Link, frame: ShellFrame): void {
    if (frame.kind === "control") return this.#control(link, frame.control);
    if (frame.kind === "ping") return link.send({ kind: "pong", token: frame.token });
    const found = [...this.viewers].find(([, viewer]) => viewer.link === link);
    if (found === undefined) return;
    const [id, viewer] = found;
    switch (frame.kind) {
      case "ack":
        if (frame.offset > viewer.sent) throw new Error("an ACK of what was not sent");
        viewer.acked = Math.max(viewer.acked, frame.offset);
        return this.flush();
      case "input": {
        const skip = viewer.input.length - frame.offset;
        if (skip < 0) throw new Error("INPUT with a gap");
        if (viewer.readOnly) throw new Error("INPUT of a viewer that is read-only");
        viewer.input = concat(viewer.input, new Uint8Array(frame.bytes.subarray(skip)));
        if (viewer.input.length > viewer.taken + WINDOW.input) {
          throw new Error("INPUT beyond the window");
        }
        return this.#taken(viewer);
      }
      case "resize":
        return void this.sizes.push(frame.size);
      case "detach":
        this.viewers.delete(id);
        return link.finish();
    }
  }

  /** The program takes what there is, unless it is `busy`. */
  #taken(viewer: Looker): void {
    if (this.busy || viewer.input.length === 0) return;
    viewer.taken = viewer.input.length;
    viewer.link?.send({ kind: "ack", offset: viewer.taken });
  }

  #control(link: Link, control: Control): void {
    if (control["type"] === "list") return link.say({ type: "sessions", sessions: [] });
    if (control["type"] === "end") {
      return link.say({ type: "error", code: "not-found", message: "there is none" });
    }
    this.attaches.push(control);
    const { viewer: id, attempt } = control as { viewer: string; attempt: number };
    const readOnly = control["read_only"] === true;
    if (this.gone === "session" || (this.gone && control["output"] !== undefined)) {
      link.say({ type: "error", code: "gone", message: "that is over" });
      return link.finish();
    }
    const known = this.viewers.get(id);
    if (known !== undefined && attempt <= known.attempt) {
      link.say({ type: "error", code: "stale", message: "a later one was first" });
      return link.finish();
    }
    if (known?.link?.alive) {
      known.link.say({ type: "error", code: "replaced", message: "another took over" });
      known.link.finish();
    }
    const viewer = {
      sent: 0,
      acked: 0,
      input: new Uint8Array(),
      taken: 0,
      ...known,
      attempt,
      readOnly,
      link,
    };
    this.viewers.set(id, viewer);
    this.#answer(viewer, control);
  }

  #answer(viewer: Looker, { output }: Control): void {
    const resumed = typeof output === "number" && !this.forgets;
    const created = !this.started;
    this.started = true;
    // What the program wrote before anybody looked comes with a new session.
    viewer.sent = viewer.acked = resumed ? output : created ? 0 : this.output.length;
    viewer.link!.say({
      type: "attached",
      session: SESSION,
      name: "main",
      created,
      resumed,
      read_only: viewer.readOnly,
      input: viewer.input.length,
      output: viewer.sent,
      input_window: WINDOW.input,
      output_window: WINDOW.output,
      columns: 80,
      rows: 24,
      viewers: [...this.viewers.values()].filter(({ link }) => link?.alive).length,
      account: "ann",
    });
    const has = typeof output === "number" ? output : 0;
    if (viewer.taken > 0) viewer.link!.send({ kind: "ack", offset: viewer.taken });
    if (!resumed && !created) this.paint(viewer, this.output.length - has);
    this.flush();
  }
}
