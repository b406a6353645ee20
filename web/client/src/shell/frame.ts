// The frames of `alknet/shell` (docs/shell.md): bytes in, frames out, and back.
import { isObject } from "../call/frame.js";
import type { Bytes } from "../bytes.js";

/** The most bytes of output or input in one frame. */
export const MAX_DATA = 64 * 1024;

/** The longest CONTROL of each side, in bytes. */
export const MAX_CONTROL = { client: 4 * 1024, node: 64 * 1024 } as const;

/** The type and the length before each body. */
const HEADER = 5;
/** The offset at the head of OUTPUT and INPUT. */
const OFFSET = 8;

/** Who has sent a frame. */
export type Sender = "client" | "node";

/** The size of a terminal; pixels are 0 where nobody knows. */
export interface TerminalSize {
  columns: number;
  rows: number;
  width?: number;
  height?: number;
}

export type Control = Readonly<Record<string, unknown>>;

/** One frame. Offsets count bytes, from the start of the session or of the viewer. */
export type ShellFrame =
  | { kind: "control"; control: Control }
  | { kind: "output" | "input"; offset: number; bytes: Bytes }
  | { kind: "ack"; offset: number }
  | { kind: "screen"; bytes: Bytes }
  | { kind: "resize"; size: Required<TerminalSize> }
  | { kind: "ping" | "pong"; token: bigint }
  | { kind: "detach" };

/** What was received breaks the rules of `alknet/shell`; the stream cannot go on. */
export class ShellProtocolError extends Error {
  override readonly name = "ShellProtocolError";
}

/** What a type's frames may be: their number, who sends them, how long their bodies are. */
interface Kind {
  readonly kind: ShellFrame["kind"];
  readonly by: readonly Sender[];
  readonly least: number;
  readonly most: (sender: Sender) => number;
}

const exactly = (length: number) => ({ least: length, most: () => length });
const data = { least: OFFSET + 1, most: () => OFFSET + MAX_DATA };
const both = ["client", "node"] as const;

const KINDS: ReadonlyMap<number, Kind> = new Map<number, Kind>([
  [1, { kind: "control", by: both, least: 2, most: (sender) => MAX_CONTROL[sender] }],
  [2, { kind: "output", by: ["node"], ...data }],
  [3, { kind: "input", by: ["client"], ...data }],
  [4, { kind: "ack", by: both, ...exactly(8) }],
  [5, { kind: "screen", by: ["node"], least: 1, most: () => MAX_DATA }],
  [6, { kind: "resize", by: ["client"], ...exactly(8) }],
  [7, { kind: "ping", by: both, ...exactly(8) }],
  [8, { kind: "pong", by: both, ...exactly(8) }],
  [9, { kind: "detach", by: ["client"], ...exactly(0) }],
]);

const NUMBERS = new Map([...KINDS].map(([number, { kind }]) => [kind, number]));

const encoder = new TextEncoder();

/** The bytes of a frame. What it carries has to keep to the limits, or it throws a `RangeError`. */
export function encodeShell(frame: ShellFrame, sender: Sender = "client"): Bytes {
  const number = NUMBERS.get(frame.kind)!;
  const { least, most } = KINDS.get(number)!;
  const body = bodyOf(frame);
  if (body.length < least || body.length > most(sender)) {
    throw new RangeError(`a frame of ${body.length} bytes`);
  }
  const bytes = new Uint8Array(HEADER + body.length);
  bytes[0] = number;
  new DataView(bytes.buffer).setUint32(1, body.length);
  bytes.set(body, HEADER);
  return bytes;
}

function bodyOf(frame: ShellFrame): Bytes {
  switch (frame.kind) {
    case "control":
      return encoder.encode(JSON.stringify(frame.control));
    case "output":
    case "input": {
      const body = new Uint8Array(OFFSET + frame.bytes.length);
      body.set(number64(BigInt(frame.offset)));
      body.set(frame.bytes, OFFSET);
      return body;
    }
    case "ack":
      return number64(BigInt(frame.offset));
    case "screen":
      return frame.bytes;
    case "resize": {
      const { columns, rows, width, height } = frame.size;
      const body = new DataView(new ArrayBuffer(8));
      [columns, rows, width, height].forEach((cells, at) => body.setUint16(2 * at, cells));
      return new Uint8Array(body.buffer);
    }
    case "ping":
    case "pong":
      return number64(frame.token);
    case "detach":
      return new Uint8Array();
  }
}

/** Cuts a stream of bytes into the frames of one side. Holds at most one frame. */
export class ShellDecoder {
  readonly #sender: Sender;
  readonly #header: Bytes = new Uint8Array(HEADER);
  /** The body that is waited for: grows as it comes, not as it is announced. */
  #body: Bytes = new Uint8Array();
  #kind: Kind | undefined;
  #have = 0;
  #need = HEADER;

  constructor(sender: Sender = "node") {
    this.#sender = sender;
  }

  /**
   * The frames that end in `chunk`, in order. Throws a {@link ShellProtocolError} at the first
   * that is none, as soon as its head shows it; after that the decoder is not to be used.
   */
  *push(chunk: Bytes): Generator<ShellFrame> {
    for (;;) {
      if (this.#kind === undefined) {
        chunk = this.#fillHeader(chunk);
        if (this.#have < HEADER) return;
        this.#kind = this.#check();
        this.#have = 0;
      }
      const rest = this.#need - this.#have;
      if (chunk.length < rest) return this.#hold(chunk);
      const body = this.#take(chunk.subarray(0, rest));
      chunk = chunk.subarray(rest);
      const frame = parse(this.#kind.kind, body);
      this.#kind = undefined;
      this.#have = 0;
      this.#need = HEADER;
      yield frame;
    }
  }

  /** Whether a frame has begun and not ended. */
  get partial(): boolean {
    return this.#kind !== undefined || this.#have > 0;
  }

  #fillHeader(chunk: Bytes): Bytes {
    const part = chunk.subarray(0, HEADER - this.#have);
    this.#header.set(part, this.#have);
    this.#have += part.length;
    return chunk.subarray(part.length);
  }

  /** Whether such a frame may come from this side, before a byte of its body is waited for. */
  #check(): Kind {
    const number = this.#header[0]!;
    const kind = KINDS.get(number);
    if (kind === undefined || !kind.by.includes(this.#sender)) {
      throw new ShellProtocolError(`a frame of type ${number}`);
    }
    const length = view(this.#header).getUint32(1);
    if (length < kind.least || length > kind.most(this.#sender)) {
      throw new ShellProtocolError(`a frame of type ${number} has ${length} bytes`);
    }
    this.#need = length;
    return kind;
  }

  #take(last: Bytes): Bytes {
    if (this.#have === 0) return last;
    this.#hold(last);
    const body = this.#body.subarray(0, this.#have);
    this.#body = new Uint8Array();
    return body;
  }

  #hold(chunk: Bytes): void {
    const have = this.#have + chunk.length;
    if (have > this.#body.length) {
      const grown = new Uint8Array(Math.min(this.#need, 2 * have));
      grown.set(this.#body.subarray(0, this.#have));
      this.#body = grown;
    }
    this.#body.set(chunk, this.#have);
    this.#have = have;
  }
}

function parse(kind: ShellFrame["kind"], body: Bytes): ShellFrame {
  switch (kind) {
    case "control":
      return { kind, control: parseControl(body) };
    case "output":
    case "input":
      return { kind, offset: offsetOf(body), bytes: body.subarray(OFFSET) };
    case "ack":
      return { kind, offset: offsetOf(body) };
    case "screen":
      return { kind, bytes: body };
    case "resize": {
      const [columns, rows, width, height] = [0, 2, 4, 6].map((at) => view(body).getUint16(at));
      return {
        kind,
        size: { columns: columns!, rows: rows!, width: width!, height: height! },
      };
    }
    case "ping":
    case "pong":
      return { kind, token: view(body).getBigUint64(0) };
    case "detach":
      return { kind };
  }
}

function parseControl(body: Bytes): Control {
  let value: unknown;
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(body);
    value = JSON.parse(text);
  } catch (cause) {
    throw new ShellProtocolError("a CONTROL that is not JSON", { cause });
  }
  if (!isObject(value)) throw new ShellProtocolError("a CONTROL that is not an object");
  return value;
}

/** An offset. No program writes so much that a JavaScript number could not count it. */
function offsetOf(body: Bytes): number {
  const offset = view(body).getBigUint64(0);
  if (offset > Number.MAX_SAFE_INTEGER - MAX_DATA) {
    throw new ShellProtocolError(`the offset ${offset}`);
  }
  return Number(offset);
}

function number64(number: bigint): Bytes {
  const body = new DataView(new ArrayBuffer(8));
  body.setBigUint64(0, number);
  return new Uint8Array(body.buffer);
}

function view(bytes: Bytes): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
