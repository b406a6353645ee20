import { concat } from "../bytes.js";
import type { Dialler } from "../connector.js";
import { Deadline } from "../deadline.js";
import { read, type RunningShell, type Said } from "./control.js";
import { encodeShell, ShellDecoder, ShellProtocolError, type Control } from "./frame.js";
import { Shell, type AttachOptions } from "./shell.js";

const TIMEOUT_MS = 15_000;

/** Which session is meant: by its name or by its id. */
export type Which = { name: string } | { session: string };

/** The shells of one node that outlive their transports. */
export class Shells {
  readonly #dial: Dialler;

  constructor(dial: Dialler) {
    this.#dial = dial;
  }

  /** Looks at a shell, in the background: what becomes of it, the `Shell` tells. */
  attach(options: AttachOptions): Shell {
    return new Shell(this.#dial, options);
  }

  /** The caller's running shells. Throws a {@link ShellError}, or what dialling throws. */
  async list({ signal }: { signal?: AbortSignal } = {}): Promise<RunningShell[]> {
    const said = await this.#ask({ type: "list" }, signal);
    if (said.type !== "sessions") throw new ShellProtocolError("an answer to something else");
    return said.sessions;
  }

  /** Ends a shell, for all who look at it. Throws as `list` does. */
  async end(which: Which, { signal }: { signal?: AbortSignal } = {}): Promise<void> {
    const said = await this.#ask({ type: "end", ...which }, signal);
    if (said.type !== "ended") throw new ShellProtocolError("an answer to something else");
  }

  /** Asks on a connection of its own, which ends with the answer. */
  async #ask(control: Control, signal: AbortSignal | undefined): Promise<Said> {
    const deadline = new Deadline(TIMEOUT_MS, signal);
    try {
      const session = await this.#dial(deadline.signal);
      try {
        const stream = await deadline.race(session.open());
        const writer = stream.writable.getWriter();
        await deadline.race(writer.write(encodeShell({ kind: "control", control })));
        return await deadline.race(answer(stream.readable));
      } finally {
        session.close();
      }
    } finally {
      deadline.clear();
    }
  }
}

/** The first CONTROL of a type that is known. */
async function answer(readable: ReadableStream<Uint8Array>): Promise<Said> {
  const decoder = new ShellDecoder();
  const reader = readable.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new Error("the connection ended before the answer");
    for (const frame of decoder.push(concat(value as Uint8Array<ArrayBuffer>))) {
      const said = frame.kind === "control" ? read(frame.control) : undefined;
      if (said?.type === "error") throw said.error;
      if (said !== undefined) return said;
    }
  }
}
