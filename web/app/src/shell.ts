import {
  dialSoon,
  SHELL,
  Shells,
  SignedOutError,
  type Attached,
  type AttachedEvent,
  type Notice,
  type RunningShell,
  type Shell,
  type ShellEnd,
  type Via,
} from "@alknet/client";
import type { Bytes } from "./bytes";
import { problemOf } from "./line/dial";
import { NAMES, type Carrier } from "./line/line";
import type { Ending, Live } from "./live";
import type { NodeId } from "./node";
import { Problem, sentence, textOf } from "./problem";
import type { Screen, Size } from "./screen";
import type { Certificate } from "./statement";
import type { Tab } from "./tab";

/** As many lines that have scrolled off as a node keeps. */
const HISTORY = 1_000;

/** How the node is reached. */
export interface Reach {
  node: NodeId;
  certificates: Certificate[];
  via: Via;
}

/** Who hears of what happens. */
export interface Hearer {
  trying(carrier: Carrier): void;
  /** What is seen has changed: the connection, the viewers, the session's name. */
  changed(session: ShellSession): void;
  received(bytes: number): void;
}

/** The node's shells that keep running, of whoever is signed in. */
export function shellsOf(reach: Reach, trying: (carrier: Carrier) => void = () => undefined) {
  let { certificates } = reach as { certificates: Certificate[] | undefined };
  return new Shells(async (signal) => {
    const { node, via } = reach;
    const known = certificates === undefined ? { node } : { certificates };
    // They may have changed when a tab comes back after days.
    certificates = undefined;
    return await dialSoon(SHELL, { ...known, via, trying, signal });
  });
}

export type { RunningShell };

/** What the tab looked at is not there to be attached to any more. */
export class Over extends Problem {}

/** A shell that keeps running, on the screen. */
export class ShellSession implements Live {
  readonly ended: Promise<Ending>;
  readonly #shell: Shell;
  readonly #screen: Screen;
  readonly #hearer: Hearer;
  #around: Pick<Notice, "viewers" | "columns" | "rows">;
  #attached: Attached;

  private constructor(shell: Shell, attached: Attached, screen: Screen, hearer: Hearer) {
    this.#shell = shell;
    this.#screen = screen;
    this.#hearer = hearer;
    this.#around = this.#attached = attached;
    this.ended = shell.ended.then(wordsOf);
    this.#listen();
  }

  /** Attaches as a tab does. Throws if there is nothing to attach to, or no way to it. */
  static async start(
    reach: Reach,
    tab: Tab,
    screen: Screen,
    hearer: Hearer,
  ): Promise<ShellSession> {
    const { looking } = tab;
    const { cols: columns, rows } = screen.room;
    let failed: (error: unknown) => void = () => undefined;
    const failure = new Promise<never>((_, reject) => (failed = reject));
    failure.catch(() => undefined);
    const output = (bytes: Bytes) => {
      hearer.received(bytes.length);
      return screen.write(bytes);
    };
    const attaching = shellsOf(reach, hearer.trying);
    const shell = attaching.attach({
      ...(looking.name === undefined ? {} : { name: looking.name }),
      ...(looking.viewer === undefined ? {} : { viewer: looking.viewer }),
      create: !looking.readOnly,
      readOnly: looking.readOnly,
      size: { columns, rows },
      env: { LANG: "C.UTF-8", COLORTERM: "truecolor" },
      history: HISTORY,
      output,
      remember: (viewer) => tab.keep({ ...tab.looking, viewer }),
      failed: (error) => failed(error),
    });
    try {
      const begin = (attached: Attached) => new ShellSession(shell, attached, screen, hearer);
      const session = await first(shell, failure, begin);
      tab.keep({ ...tab.looking, name: session.name });
      return session;
    } catch (error) {
      shell.close();
      throw error instanceof SignedOutError ? error : problemOf(error);
    }
  }

  get name(): string {
    return this.#attached.name;
  }

  get id(): string {
    return this.#attached.session;
  }

  get carrier(): Carrier | undefined {
    return this.#shell.carrier;
  }

  get away(): boolean {
    return this.#shell.state !== "open";
  }

  get readOnly(): boolean {
    return this.#attached.readOnly;
  }

  /** Who it is, where, and who else looks, in words. */
  get status(): string {
    const { account, name } = this.#attached;
    const others = this.#around.viewers - 1;
    const parts = [`${account} in ${name}`];
    if (this.carrier !== undefined) parts.push(`over ${NAMES[this.carrier]}`);
    if (this.readOnly) parts.push("looking on");
    if (others > 0) parts.push(`${others} other ${others === 1 ? "viewer" : "viewers"}`);
    return parts.join(", ");
  }

  async write(data: Bytes): Promise<void> {
    await this.#shell.write(data);
  }

  async resize(room: Size): Promise<void> {
    this.#shell.resize({ columns: room.cols, rows: room.rows });
    // Where somebody else looks, too, the node says what becomes of it.
    if (this.readOnly || this.#around.viewers > 1) this.#show();
    else this.#screen.show(room);
  }

  /** Leaves the shell running, for good as far as this viewer goes. */
  async leave(): Promise<void> {
    await this.#shell.detach();
  }

  close(): void {
    this.#shell.close();
  }

  #listen(): void {
    this.#take(this.#attached);
    this.#shell.addEventListener("state", () => this.#hearer.changed(this));
    this.#shell.addEventListener("attached", ({ attached }) => {
      this.#attached = attached;
      this.#take(attached);
    });
    this.#shell.addEventListener("notice", ({ notice }) => this.#take(notice));
  }

  #take(around: Pick<Notice, "viewers" | "columns" | "rows">): void {
    this.#around = around;
    this.#show();
    this.#hearer.changed(this);
  }

  #show(): void {
    const { columns, rows } = this.#around;
    this.#screen.show({ cols: columns, rows }, this.readOnly);
  }
}

/** What begins with the first answer of the node, or why there is none. */
async function first<T>(
  shell: Shell,
  failure: Promise<never>,
  begin: (attached: Attached) => T,
): Promise<T> {
  const begun = new Promise<T>((resolve) => {
    // At once, because the output that follows is for a terminal of the right size.
    const listener = ({ attached }: AttachedEvent) => resolve(begin(attached));
    shell.addEventListener("attached", listener, { once: true });
  });
  const ended = shell.ended.then((end) => {
    if (end.reason === "failed") throw end.error;
    const { title, text } = wordsOf(end);
    throw new Over(title, text);
  });
  return await Promise.race([begun, ended, failure]);
}

function wordsOf(end: ShellEnd): Ending {
  const label = "Open a shell";
  switch (end.reason) {
    case "exited": {
      const { status, signal } = end.exit;
      const how =
        signal === undefined ? `exited with code ${status}` : `was ended by signal ${signal}`;
      return { title: "Session ended", text: `The shell ${how}.`, label };
    }
    case "detached":
      return { title: "Detached", text: "The shell keeps running.", label: "Attach again" };
    case "revoked":
      return revoked();
    case "refused":
      return refused(end.error.code, end.error.message);
    case "failed":
      if (end.error instanceof SignedOutError) return revoked();
      return { title: "That did not work", text: sentence(textOf(end.error)), label: "Try again" };
  }
}

function revoked(): Ending {
  const text = "The node has withdrawn this browser's access.";
  return { title: "Session ended", text, label: "Reconnect" };
}

/** The node's last word. */
function refused(code: string, message: string): Ending {
  const label = "Open a shell";
  switch (code) {
    case "shutting-down":
      return { title: "The node has shut down", text: "Its shells ended with it.", label };
    case "gone": {
      const text = "It has ended, or the node was started anew, and its shells ended with it.";
      return { title: "This shell is over", text, label };
    }
    case "not-found":
      return { title: "There is no such shell", text: "It may have ended meanwhile.", label };
    case "ended":
      return { title: "Session ended", text: "Somebody has ended this shell.", label };
    default:
      return { title: "The node refused", text: sentence(message), label: "Try again" };
  }
}
