import type { Bytes } from "./bytes";
import type { Ending, Live } from "./live";
import type { SshKey } from "./key";
import { type Line, REVOKED } from "./line/line";
import type { NodeId } from "./node";
import { Problem, sentence, textOf } from "./problem";
import type { Screen, Size } from "./screen";
import init, {
  connect,
  type Shell,
  type ShellExit,
  type Ssh,
  type SshError,
} from "./wasm/alknet_wasm";
import module from "./wasm/alknet_wasm.opt.wasm?url";

/** How long the end of the connection may take to show after that of the session. */
const CODE_MS = { exited: 1_000, lost: 5_000 };

/** Who logs in where. */
export interface Login {
  node: NodeId;
  user: string;
  key: SshKey;
}

/** Fetches and compiles the SSH client; the second call costs nothing. */
export function loadSsh(): Promise<unknown> {
  loading ??= init({ module_or_path: module });
  return loading;
}

let loading: Promise<unknown> | undefined;

/** A shell over SSH, joined to the screen until it ends, and ended with its transport. */
export class Session implements Live {
  readonly ended: Promise<Ending>;
  readonly #line: Line;
  readonly #ssh: Ssh;
  readonly #shell: Shell;
  readonly #screen: Screen;

  private constructor(
    line: Line,
    ssh: Ssh,
    shell: Shell,
    exit: Promise<ShellExit>,
    screen: Screen,
  ) {
    this.#line = line;
    this.#ssh = ssh;
    this.#shell = shell;
    this.#screen = screen;
    const title = "Session ended";
    const label = "Reconnect";
    this.ended = exit.then(async (exit) => ({ title, text: await this.#end(exit), label }));
  }

  static async start(
    line: Line,
    login: Login,
    screen: Screen,
    received: (bytes: number) => void,
  ): Promise<Session> {
    try {
      await loadSsh();
      const ssh = await logIn(line, login);
      let exited: (exit: ShellExit) => void;
      const exit = new Promise<ShellExit>((resolve) => (exited = resolve));
      const shell = await ssh.shell({
        term: "xterm-256color",
        env: { COLORTERM: "truecolor", LANG: "C.UTF-8" },
        ...screen.room,
        onData: (data) => {
          received(data.length);
          return screen.write(data);
        },
        onExit: (exit) => exited(exit),
      });
      return new Session(line, ssh, shell, exit, screen);
    } catch (error) {
      line.close();
      throw error;
    }
  }

  write(data: Bytes): Promise<void> {
    return this.#shell.write(data);
  }

  async resize(room: Size): Promise<void> {
    this.#screen.show(room);
    await this.#shell.resize(room.cols, room.rows);
  }

  /** Cuts it off. */
  close(): void {
    this.#line.close();
  }

  async #end(exit: ShellExit): Promise<string> {
    const lost = exit.code === undefined && exit.signal === undefined;
    if (!lost) await this.#ssh.disconnect();
    const { message } = await this.#ssh.closed;
    const code = await within(lost ? CODE_MS.lost : CODE_MS.exited, this.#line.closed);
    this.#line.close();
    // The node may have ended the program on the way.
    if (code === REVOKED) return "The node has withdrawn this browser's access.";
    if (exit.signal !== undefined) return `The shell was ended by signal ${exit.signal}.`;
    if (exit.code !== undefined) return `The shell exited with code ${exit.code}.`;
    return sentence(
      message === "" ? "the connection was lost" : `the connection was lost: ${message}`,
    );
  }
}

/** What a promise gives, unless it takes too long. */
function within<T>(ms: number, promise: Promise<T>): Promise<T | undefined> {
  const late = new Promise<undefined>((resolve) => setTimeout(() => resolve(undefined), ms));
  return Promise.race([promise, late]);
}

async function logIn(line: Line, { node, user, key }: Login): Promise<Ssh> {
  try {
    return await connect(line.readable, line.writable, {
      user,
      nodeId: node,
      publicKey: key.openssh,
      sign: (data) => key.sign(data),
    });
  } catch (error) {
    const code = (error as Partial<SshError>).code;
    throw new Problem(titleOf(code), sentence(textOf(error)), { cause: error });
  }
}

function titleOf(code: SshError["code"] | undefined): string {
  switch (code) {
    case "host":
      return "This is not your node";
    case "auth":
      return "The node refused this browser's key";
    case "timeout":
      return "The node does not answer";
    default:
      return "The session could not start";
  }
}
