// A node's side of `alknet/git` for tests: git itself behind the request line, as its daemon
// starts it, or what a test says by hand.
import { spawn } from "node:child_process";
import { Readable, Writable } from "node:stream";
import type { Bytes } from "../bytes.js";
import { Deferred } from "../deferred.js";
import type { Duplex, Session } from "../dial/session.js";

/** Serves one stream: what the client sends can be read, and answered. */
export type Serve = (
  line: string,
  input: ReadableStream<Bytes>,
  output: WritableStream<Bytes>,
) => Promise<void>;

/** A connection to a node that serves by `serve`. */
export class FakeGit implements Session {
  readonly carrier: "webtransport" | "websocket";
  readonly incoming = new ReadableStream<Duplex>();
  readonly #closed = new Deferred<number | undefined>();
  readonly closed = this.#closed.promise;
  /** The request lines that have come. */
  readonly lines: string[] = [];
  over = false;
  #opened = 0;

  constructor(
    readonly serve: Serve,
    readonly multiplexed = true,
  ) {
    this.carrier = multiplexed ? "webtransport" : "websocket";
  }

  async open(): Promise<Duplex> {
    if (this.over) throw new Error("the connection is over");
    if (this.#opened++ > 0 && !this.multiplexed) throw new Error("a WebSocket has one stream");
    const up = new TransformStream<Bytes, Bytes>();
    const down = new TransformStream<Bytes, Bytes>();
    void this.#run(up.readable, down.writable);
    return { readable: down.readable, writable: up.writable };
  }

  close(): void {
    this.over = true;
    this.#closed.resolve(0);
  }

  async #run(input: ReadableStream<Bytes>, output: WritableStream<Bytes>): Promise<void> {
    const reader = input.getReader();
    const { value } = await reader.read();
    reader.releaseLock();
    // The client writes its line in one piece.
    const line = new TextDecoder().decode(value).slice(4);
    this.lines.push(line);
    await this.serve(line, input, output).catch(() => undefined);
  }
}

/** What git serves of the repositories in a folder. */
export function served(folder: string): Serve {
  return async (line, input, output) => {
    const [, service, name] = /^(git-[a-z-]+) \/([^\0]+)\0/.exec(line)!;
    const version = /version=(\d)/.exec(line)?.[1] ?? "0";
    const env = { ...process.env, GIT_PROTOCOL: `version=${version}` };
    const git = spawn("git", [service!.slice("git-".length), `${folder}/${name}.git`], {
      env,
      stdio: ["pipe", "pipe", "ignore"],
    });
    const stdin = Writable.toWeb(git.stdin) as WritableStream<Bytes>;
    const stdout = Readable.toWeb(git.stdout) as ReadableStream<Bytes>;
    input.pipeTo(stdin).catch(() => git.kill());
    await stdout.pipeTo(output).catch(() => git.kill());
  };
}

/** What a node says by hand, whatever it is asked. */
export function says(...texts: string[]): Serve {
  return async (_, input, output) => {
    void input.pipeTo(new WritableStream()).catch(() => undefined);
    await saying(output, texts);
  };
}

/** What a node says that reads nothing. */
export function onlySays(...texts: string[]): Serve {
  return (_, __, output) => saying(output, texts);
}

async function saying(output: WritableStream<Bytes>, texts: string[]): Promise<void> {
  const writer = output.getWriter();
  const encoder = new TextEncoder();
  for (const text of texts) await writer.write(encoder.encode(text) as Bytes);
  await writer.close();
}
