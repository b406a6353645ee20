// What a viewer and its node owe each other, without streams and clocks.
import { concat, type Bytes } from "../bytes.js";
import { read, ShellError, type Attached, type Exit, type Notice } from "./control.js";
import {
  encodeShell,
  ShellProtocolError,
  type Control,
  type ShellFrame,
  type TerminalSize,
} from "./frame.js";
import { Outbox } from "./outbox.js";

/** Answers that may wait for a node that asks and does not read. */
const MAX_PONGS = 64;
/** Notices that may wait for a consumer. */
const MAX_NOTICES = 1024;
/** Output that comes in crumbs is given on in pieces of up to so many bytes. */
const CRUMBS = 4 * 1024;

/** A terminal as it was when it was made. */
const RESET = new TextEncoder().encode("\x1bc");

/** Who looks at what: enough to go on with after a reload. A secret of the viewer. */
export interface Viewer {
  /** 128 random bits, as 32 hexadecimal digits. */
  readonly viewer: string;
  /** How often it has attached. */
  readonly attempt: number;
  /** The session that it looks at, once there is one. */
  readonly session?: string;
}

/** What is asked for with each attachment. */
export interface Request {
  name?: string | undefined;
  create?: boolean | undefined;
  command?: string | undefined;
  term?: string | undefined;
  env?: Readonly<Record<string, string>> | undefined;
  readOnly?: boolean | undefined;
  history?: number | undefined;
}

/** What comes of the frames, in order. */
export type Delivery =
  | { kind: "output"; bytes: Bytes; place: number | undefined }
  | { kind: "attached"; attached: Attached }
  | { kind: "screen"; missed: number }
  | { kind: "notice"; notice: Notice }
  | { kind: "exited"; exit: Exit }
  | { kind: "error"; error: ShellError };

/** A new viewer, that nobody could guess. */
export function newViewer(): Viewer {
  const random = crypto.getRandomValues(new Uint8Array(16));
  const viewer = Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return { viewer, attempt: 0 };
}

/** One viewer, over all its attachments, of which it has one at a time. */
export class Core {
  readonly #request: Request;
  readonly #outbox = new Outbox();
  #viewer: Viewer;
  #size: TerminalSize;
  /** What the consumer has been given of the output; undefined where a screen has to come. */
  #place: number | undefined;
  /** What the consumer has done with. */
  #consumed: number | undefined;
  #attached: Attached | undefined;
  /** Where the next OUTPUT of this attachment has to begin. */
  #expected = 0;
  /** What is left of a screen, and where the output goes on after it. */
  #screen: { left: number; output: number } | undefined;
  /** The last ACK of this attachment. */
  #acked = 0;
  /** From where the node's window counts: the last ACK, or a screen after it. */
  #floor = 0;
  #notices = 0;
  #ackNow = false;
  #deliveries: Delivery[] = [];
  #pongs: bigint[] = [];
  #pings: bigint[] = [];
  #resized = false;
  #detaching = false;
  #over = false;

  constructor(request: Request, size: TerminalSize, viewer: Viewer = newViewer()) {
    this.#request = request;
    this.#size = size;
    this.#viewer = viewer;
  }

  get viewer(): Viewer {
    return this.#viewer;
  }

  /** Whether it asks for the output from where it was. */
  get placed(): boolean {
    return this.#place !== undefined;
  }

  /** Whether the node has said its last word on this attachment. */
  get over(): boolean {
    return this.#over;
  }

  /** The answer to the present attachment, once it has come. */
  get attached(): Attached | undefined {
    return this.#attached;
  }

  /** Begins an attachment on a new stream, and forgets the one before; its first frame. */
  begin(): Bytes {
    this.#viewer = { ...this.#viewer, attempt: this.#viewer.attempt + 1 };
    this.#attached = this.#screen = undefined;
    // What was not given to the consumer comes again.
    this.#deliveries = [];
    this.#notices = 0;
    this.#pongs = [];
    this.#pings = [];
    this.#ackNow = this.#resized = this.#over = false;
    return encodeShell({ kind: "control", control: this.#attach() });
  }

  /** Becomes another viewer of the same session, because somebody else has this one's id. */
  renew(): void {
    const { session } = this.#viewer;
    this.#viewer = { ...newViewer(), ...(session === undefined ? {} : { session }) };
    this.#place = undefined;
    this.#outbox.forget(new Error("another window has taken this viewer's place"));
  }

  /** Takes a frame of the present attachment. Throws a {@link ShellProtocolError}. */
  take(frame: ShellFrame): void {
    if (this.#over) throw new ShellProtocolError("something after the end");
    switch (frame.kind) {
      case "control":
        return this.#control(frame.control);
      case "output":
        return this.#output(frame.offset, frame.bytes);
      case "screen":
        return this.#paint(frame.bytes);
      case "ack":
        this.#awaited();
        return this.#outbox.acked(frame.offset);
      case "ping":
        if (this.#pongs.push(frame.token) > MAX_PONGS) {
          throw new ShellProtocolError("more questions than answers could be sent");
        }
        return;
      case "pong":
        return;
      default:
        throw new ShellProtocolError(`a frame of the wrong side: ${frame.kind}`);
    }
  }

  /** The next thing for the consumer. `consumed` has to follow what is output. */
  next(): Delivery | undefined {
    const delivery = this.#deliveries.shift();
    if (delivery?.kind === "output") this.#place = delivery.place;
    if (delivery?.kind === "notice") this.#notices--;
    return delivery;
  }

  /** The consumer has done with what it was given last. */
  consumed(): void {
    this.#consumed = this.#place;
  }

  /** Types; resolves when the node has it. */
  async write(bytes: Bytes): Promise<void> {
    if (this.#request.readOnly || this.#attached?.readOnly) return;
    await this.#outbox.push(bytes);
  }

  resize(size: TerminalSize): void {
    this.#size = size;
    this.#resized = true;
  }

  /** Asks for a sign of life. What was consumed is acknowledged on the occasion. */
  ping(token: bigint): void {
    this.#pings = [token];
    this.#ackNow = true;
  }

  detach(): void {
    this.#detaching = true;
  }

  /** No more input goes anywhere. */
  close(error: Error): void {
    this.#outbox.close(error);
  }

  /** What is to be sent now, in order; nothing before the first frame is answered but pongs. */
  *drain(): Generator<Bytes> {
    for (const token of this.#pongs.splice(0)) yield encodeShell({ kind: "pong", token });
    for (const token of this.#pings.splice(0)) yield encodeShell({ kind: "ping", token });
    if (this.#attached === undefined) return;
    if (this.#resized) {
      this.#resized = false;
      yield encodeShell({ kind: "resize", size: { width: 0, height: 0, ...this.#size } });
    }
    const ack = this.#ack(this.#attached);
    if (ack !== undefined) yield encodeShell({ kind: "ack", offset: ack });
    for (let input; (input = this.#outbox.next()) !== undefined;) {
      yield encodeShell({ kind: "input", ...input });
    }
    if (this.#detaching) {
      this.#detaching = false;
      yield encodeShell({ kind: "detach" });
    }
  }

  #attach(): Control {
    const { name, create, command, term, env, readOnly, history } = this.#request;
    const { viewer, attempt, session } = this.#viewer;
    const again = session !== undefined;
    return {
      type: "attach",
      viewer,
      attempt,
      ...(again ? { session } : { name, create, command, env }),
      terminal: { term: term ?? "xterm-256color", ...this.#size },
      read_only: readOnly,
      output: again ? this.#place : undefined,
      history,
    };
  }

  #control(control: Control): void {
    const said = read(control);
    if (said === undefined) return;
    switch (said.type) {
      case "attached":
        return this.#begun(said.attached);
      case "screen":
        return this.#cover(said);
      case "notice":
        this.#awaited();
        if (++this.#notices > MAX_NOTICES) throw new ShellProtocolError("more notices than heard");
        return this.#deliver({ kind: "notice", notice: said.notice });
      case "exited":
        this.#awaited();
        this.#over = true;
        return this.#deliver({ kind: "exited", exit: said.exit });
      case "error":
        this.#over = true;
        return this.#deliver({ kind: "error", error: said.error });
      default:
        throw new ShellProtocolError(`an answer to something else: ${said.type}`);
    }
  }

  #begun(attached: Attached): void {
    if (this.#attached !== undefined) throw new ShellProtocolError("attached twice");
    const { session, resumed, output, input, inputWindow } = attached;
    const known = this.#viewer.session;
    if (known !== undefined && known !== session) {
      throw new ShellProtocolError("attached to another session");
    }
    // A viewer without a place may be given all that there ever was.
    if (resumed && output !== (this.#place ?? 0)) {
      throw new ShellProtocolError("the output does not go on where it was");
    }
    const anew = resumed && this.#place === undefined;
    this.#attached = attached;
    this.#viewer = { ...this.#viewer, session };
    this.#expected = this.#acked = this.#floor = output;
    this.#outbox.rewind(input, inputWindow);
    if (!resumed) this.#place = this.#consumed = undefined;
    this.#deliver({ kind: "attached", attached });
    if (anew) this.#deliver({ kind: "output", bytes: RESET, place: output });
  }

  #cover({ bytes, output, missed }: { bytes: number; output: number; missed: number }): void {
    this.#awaited();
    if (this.#screen !== undefined || output < this.#expected) {
      throw new ShellProtocolError("a screen that cannot be");
    }
    // It shows what came before, too.
    this.#deliveries = this.#deliveries.filter(({ kind }) => kind !== "output");
    this.#deliver({ kind: "screen", missed });
    this.#deliver({ kind: "output", bytes: RESET, place: bytes === 0 ? output : undefined });
    this.#expected = this.#floor = output;
    if (bytes > 0) this.#screen = { left: bytes, output };
  }

  #paint(bytes: Bytes): void {
    const screen = this.#screen;
    if (screen === undefined || bytes.length > screen.left) {
      throw new ShellProtocolError("more of a screen than was announced");
    }
    screen.left -= bytes.length;
    const done = screen.left === 0;
    this.#deliver({ kind: "output", bytes, place: done ? screen.output : undefined });
    if (done) this.#screen = undefined;
  }

  #output(offset: number, bytes: Bytes): void {
    const { outputWindow } = this.#awaited();
    const end = offset + bytes.length;
    if (this.#screen !== undefined || offset !== this.#expected) {
      throw new ShellProtocolError("output with a gap or a repeat");
    }
    if (end > this.#floor + outputWindow) {
      throw new ShellProtocolError("more output than there is room for");
    }
    this.#expected = end;
    const last = this.#deliveries.at(-1);
    if (last?.kind === "output" && last.bytes.length + bytes.length <= CRUMBS) {
      this.#deliveries.pop();
      bytes = concat(last.bytes, bytes);
    }
    this.#deliver({ kind: "output", bytes, place: end });
  }

  /** The ACK that is due, if there is one. */
  #ack({ outputWindow }: Attached): number | undefined {
    const consumed = this.#consumed;
    if (consumed === undefined || consumed <= this.#acked) return undefined;
    if (!this.#ackNow && consumed - this.#acked < outputWindow / 4) return undefined;
    this.#ackNow = false;
    this.#acked = consumed;
    this.#floor = Math.max(this.#floor, consumed);
    return consumed;
  }

  #awaited(): Attached {
    if (this.#attached === undefined) throw new ShellProtocolError("something before the answer");
    return this.#attached;
  }

  #deliver(delivery: Delivery): void {
    this.#deliveries.push(delivery);
  }
}
