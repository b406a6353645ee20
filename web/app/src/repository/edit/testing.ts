// For tests: folders as browsers have them, in memory, and repositories of the real git.
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { GitRequest, GitResponse } from "@alknet/client";

type Bytes = Uint8Array<ArrayBuffer>;

/** A folder that keeps what is written to it. */
export class MemoryFolder {
  readonly kind = "directory";
  readonly entries = new Map<string, MemoryFolder | MemoryFile>();
  /** Asked before a file is written; what it throws is why that fails. */
  readonly #writing: (name: string) => void;

  constructor(writing: (name: string) => void = () => undefined) {
    this.#writing = writing;
  }

  /** As what a browser gives. */
  get handle(): FileSystemDirectoryHandle {
    return this as unknown as FileSystemDirectoryHandle;
  }

  async getDirectoryHandle(name: string, { create = false } = {}): Promise<MemoryFolder> {
    if (!this.entries.has(name) && create) {
      this.entries.set(name, new MemoryFolder(this.#writing));
    }
    return this.#find(name, MemoryFolder);
  }

  async getFileHandle(name: string, { create = false } = {}): Promise<MemoryFile> {
    if (!this.entries.has(name) && create) {
      this.entries.set(name, new MemoryFile(() => this.#writing(name)));
    }
    return this.#find(name, MemoryFile);
  }

  async removeEntry(name: string, { recursive = false } = {}): Promise<void> {
    const found = this.entries.get(name);
    if (found === undefined) throw new DOMException("not there", "NotFoundError");
    if (found instanceof MemoryFolder && found.entries.size > 0 && !recursive) {
      throw new DOMException("not empty", "InvalidModificationError");
    }
    this.entries.delete(name);
  }

  async *keys(): AsyncGenerator<string> {
    yield* this.entries.keys();
  }

  #find<T>(name: string, kind: new (...parts: never[]) => T): T {
    if (name === "" || name === "." || name === "..") throw new TypeError("no such name");
    const found = this.entries.get(name);
    if (found === undefined) throw new DOMException("not there", "NotFoundError");
    if (!(found instanceof kind)) throw new DOMException("another kind", "TypeMismatchError");
    return found;
  }
}

/** A file that is written as a whole, or not at all. */
class MemoryFile {
  readonly kind = "file";
  readonly #writing: () => void;
  #content: Bytes = new Uint8Array();
  #time = Date.now();

  constructor(writing: () => void) {
    this.#writing = writing;
  }

  async getFile() {
    const content = this.#content;
    return {
      size: content.length,
      lastModified: this.#time,
      arrayBuffer: async () => content.slice().buffer,
      text: async () => new TextDecoder().decode(content),
    };
  }

  async createWritable() {
    let written: Bytes = new Uint8Array();
    return {
      write: async (content: Bytes | string) => {
        this.#writing();
        written =
          typeof content === "string" ? new TextEncoder().encode(content) : new Uint8Array(content);
      },
      close: async () => {
        this.#content = written;
        // Later than before, whatever the clock says.
        this.#time = Math.max(Date.now(), this.#time + 1);
      },
      abort: async () => undefined,
    };
  }
}

/** A repository of the real git, and the way to it that isomorphic-git takes. */
export class RealGit {
  readonly folder = mkdtempSync(join(tmpdir(), "alknet-app-"));
  /** Before a pack is given. */
  fetching: () => void = () => undefined;

  constructor() {
    this.run(["init", "--quiet", "--bare", "--initial-branch=main", "."]);
  }

  run(args: string[], input = ""): string {
    const env = {
      PATH: process.env["PATH"],
      HOME: this.folder,
      GIT_CONFIG_NOSYSTEM: "1",
      GIT_AUTHOR_NAME: "Bob",
      GIT_AUTHOR_EMAIL: "bob@node.example",
      GIT_COMMITTER_NAME: "Bob",
      GIT_COMMITTER_EMAIL: "bob@node.example",
    };
    const options = { cwd: this.folder, env, input, encoding: "utf8" } as const;
    const { status, stdout, stderr } = spawnSync("git", args, options);
    if (status !== 0) throw new Error(`git ${args.join(" ")}: ${stderr}`);
    return stdout;
  }

  /** Commits files to main; undefined for one that goes. */
  commit(files: Record<string, string | undefined>, mode = "100644"): string {
    const known = this.run(["for-each-ref", "--format=%(objectname)", "refs/heads/main"]).trim();
    const lines = ["commit refs/heads/main", "committer Bob <bob@node.example> now"];
    lines.push("data 4", "some", ...(known === "" ? [] : [`from ${known}`]));
    for (const [path, text] of Object.entries(files)) {
      if (text === undefined) lines.push(`D ${path}`);
      else lines.push(`M ${mode} inline ${path}`, `data ${Buffer.byteLength(text)}`, text);
    }
    const now = ["fast-import", "--quiet", "--force", "--date-format=now"];
    this.run(now, `${lines.join("\n")}\n`);
    return this.run(["rev-parse", "main"]).trim();
  }

  /** What the node's transport does, by git's own stateless way. */
  readonly request = async ({ url, method = "GET", body }: GitRequest): Promise<GitResponse> => {
    const { pathname, searchParams } = new URL(url);
    const asks = method === "GET";
    const service = asks ? searchParams.get("service")! : pathname.split("/").at(-1)!;
    const parts: Uint8Array[] = [];
    for await (const part of body ?? []) parts.push(part);
    if (!asks && service === "git-upload-pack") this.fetching();
    const args = [
      service.replace("git-", ""),
      "--stateless-rpc",
      ...(asks ? ["--advertise-refs"] : []),
    ];
    const options = { cwd: this.folder, input: Buffer.concat(parts), maxBuffer: 1 << 28 };
    const { stdout } = spawnSync("git", [...args, "."], options);
    const line = `# service=${service}\n`;
    const before = `${(line.length + 4).toString(16).padStart(4, "0")}${line}0000`;
    const answer = asks ? Buffer.concat([Buffer.from(before), stdout]) : stdout;
    const headers = {
      "content-type": `application/x-${service}-${asks ? "advertisement" : "result"}`,
    };
    const pieces = async function* () {
      yield new Uint8Array(answer);
    };
    return { url, method, statusCode: 200, statusMessage: "OK", headers, body: pieces() };
  };

  close(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** The browser's locks, of a page that is alone, or while another one holds them. */
export const locks = {
  held: false,
  request: async <T>(
    _: string,
    { ifAvailable = false }: { ifAvailable?: boolean },
    work: (lock: object | null) => Promise<T>,
  ) => work(ifAvailable && locks.held ? null : {}),
};
