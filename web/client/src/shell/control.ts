// What a node says in CONTROL frames, read strictly.
import { isObject } from "../call/frame.js";
import { ShellProtocolError, type Control } from "./frame.js";

/** The longest screen that is taken, in bytes. */
export const MAX_SCREEN = 16 * 1024 * 1024;
/** The widest windows that are taken, in bytes: a node that wants more held here gets less. */
const MAX_WINDOW = 4 * 1024 * 1024;

/** The answer to an `attach`. */
export interface Attached {
  /** The session's id, to go on by. */
  readonly session: string;
  readonly name: string;
  /** Whether it was started for this. */
  readonly created: boolean;
  /** Whether the output goes on from where the viewer was; otherwise a screen comes first. */
  readonly resumed: boolean;
  readonly readOnly: boolean;
  /** How many bytes of this viewer's input the node has. */
  readonly input: number;
  /** Where the output begins. */
  readonly output: number;
  readonly inputWindow: number;
  readonly outputWindow: number;
  readonly columns: number;
  readonly rows: number;
  /** How many viewers are attached, with this one. */
  readonly viewers: number;
  /** Whom the program runs as. */
  readonly account: string;
}

/** Something happened around the viewer. */
export interface Notice {
  /** `joined`, `left` (another viewer) or `resized`. */
  readonly event: string;
  readonly viewers: number;
  readonly columns: number;
  readonly rows: number;
}

/** How a program ended: with a status, or by a signal. */
export interface Exit {
  readonly status?: number;
  readonly signal?: string;
}

/** The codes of a {@link ShellError}; a newer node may know more. */
export type ShellErrorCode =
  | "not-found"
  | "gone"
  | "stale"
  | "replaced"
  | "ended"
  | "limit"
  | "protocol"
  | "failed"
  | "busy"
  | "shutting-down"
  | (string & {});

/** The node has refused, or ended it. */
export class ShellError extends Error {
  override readonly name = "ShellError";
  readonly code: ShellErrorCode;

  constructor(code: ShellErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}

/** A viewer of a running shell. */
export interface ShellViewer {
  /** Seconds since 1970. */
  readonly since: number;
  readonly address: string | undefined;
  readonly readOnly: boolean;
  /** Whether its transport is gone. */
  readonly away: boolean;
}

/** A running shell. */
export interface RunningShell {
  readonly session: string;
  readonly name: string;
  /** What it runs; undefined for the login shell. */
  readonly command: string | undefined;
  /** When it was started, in seconds since 1970. */
  readonly created: number;
  /** When somebody last attached, in seconds since 1970. */
  readonly attached: number;
  readonly columns: number;
  readonly rows: number;
  readonly viewers: readonly ShellViewer[];
}

/** What a node can say. */
export type Said =
  | { type: "attached"; attached: Attached }
  | { type: "screen"; bytes: number; output: number; missed: number }
  | { type: "notice"; notice: Notice }
  | { type: "exited"; exit: Exit }
  | { type: "error"; error: ShellError }
  | { type: "sessions"; sessions: RunningShell[] }
  | { type: "ended"; name: string };

/**
 * What a CONTROL says; undefined for one of a type that is not known. Throws a
 * {@link ShellProtocolError} if it makes no sense.
 */
export function read(control: Control): Said | undefined {
  const from = new Members(control);
  switch (control["type"]) {
    case "attached":
      return { type: "attached", attached: attached(from) };
    case "screen": {
      const bytes = from.number("bytes", MAX_SCREEN);
      return {
        type: "screen",
        bytes,
        output: from.number("output"),
        missed: from.number("missed"),
      };
    }
    case "notice":
      return { type: "notice", notice: { event: from.text("event"), ...around(from) } };
    case "exited":
      return { type: "exited", exit: exit(from) };
    case "error":
      return { type: "error", error: new ShellError(from.text("code"), from.text("message")) };
    case "sessions":
      return { type: "sessions", sessions: from.list("sessions").map(running) };
    case "ended":
      return { type: "ended", name: from.text("name") };
    default:
      return undefined;
  }
}

function attached(from: Members): Attached {
  const session = from.text("session");
  if (!/^[0-9a-f]{32}$/.test(session)) throw new ShellProtocolError("a session without an id");
  return {
    session,
    name: from.text("name"),
    created: from.flag("created"),
    resumed: from.flag("resumed"),
    readOnly: from.flag("read_only"),
    input: from.number("input"),
    output: from.number("output"),
    inputWindow: from.number("input_window"),
    outputWindow: from.number("output_window", MAX_WINDOW),
    account: from.text("account"),
    ...around(from),
  };
}

function around(from: Members): Pick<Notice, "viewers" | "columns" | "rows"> {
  return {
    viewers: from.number("viewers"),
    columns: from.number("columns", 0xffff),
    rows: from.number("rows", 0xffff),
  };
}

function exit(from: Members): Exit {
  const signal = from.maybeText("signal");
  return signal === undefined ? { status: from.number("status") } : { signal };
}

function running(value: unknown): RunningShell {
  const from = membersOf(value);
  return {
    session: from.text("session"),
    name: from.text("name"),
    command: from.maybeText("command"),
    created: from.number("created"),
    attached: from.number("attached"),
    columns: from.number("columns", 0xffff),
    rows: from.number("rows", 0xffff),
    viewers: from.list("viewers").map((viewer) => {
      const from = membersOf(viewer);
      return {
        since: from.number("since"),
        address: from.maybeText("address"),
        readOnly: from.flag("read_only"),
        away: from.flag("away"),
      };
    }),
  };
}

function membersOf(value: unknown): Members {
  if (!isObject(value)) throw new ShellProtocolError("a list of what are no objects");
  return new Members(value);
}

/** An object's members, each of the type that it has to have. */
class Members {
  readonly #of: Control;

  constructor(of: Control) {
    this.#of = of;
  }

  number(name: string, most: number = Number.MAX_SAFE_INTEGER): number {
    const value = this.#of[name];
    if (!Number.isSafeInteger(value)) throw this.#wrong(name);
    if ((value as number) < 0 || (value as number) > most) throw this.#wrong(name);
    return value as number;
  }

  text(name: string): string {
    const value = this.#of[name];
    if (typeof value !== "string") throw this.#wrong(name);
    return value;
  }

  maybeText(name: string): string | undefined {
    return this.#of[name] === undefined || this.#of[name] === null ? undefined : this.text(name);
  }

  flag(name: string): boolean {
    const value = this.#of[name];
    if (typeof value !== "boolean") throw this.#wrong(name);
    return value;
  }

  list(name: string): unknown[] {
    const value = this.#of[name];
    if (!Array.isArray(value)) throw this.#wrong(name);
    return value;
  }

  #wrong(name: string): ShellProtocolError {
    return new ShellProtocolError(`a CONTROL whose ${name} makes no sense`);
  }
}
