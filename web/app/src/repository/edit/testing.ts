// For tests: folders as browsers have them, in memory, repositories of the real git, and working
// copies of the one in the other.
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { GitRequest, GitResponse } from "@alknet/client";
import { afterEach, beforeEach, vi } from "vitest";
import type { Reach } from "../../shell";
import type { WorkingCopy } from "./copy";

type Bytes = Uint8Array<ArrayBuffer>;

/** Where a file or a folder is: a handle leads there, whatever has become of what was there. */
interface Place {
  folder: MemoryFolder;
  name: string;
}

const gone = () => new DOMException("not there", "NotFoundError");

/** A folder that keeps what is written to it. */
export class MemoryFolder {
  readonly kind = "directory";
  readonly entries = new Map<string, MemoryFolder | MemoryFile>();
  /** Asked before something is written or removed; what it throws is why that fails. */
  readonly #writing: (name: string) => void;
  readonly #place: Place | undefined;

  constructor(writing: (name: string) => void = () => undefined, place?: Place) {
    this.#writing = writing;
    this.#place = place;
  }

  /** As what a browser gives. */
  get handle(): FileSystemDirectoryHandle {
    return this as unknown as FileSystemDirectoryHandle;
  }

  async getDirectoryHandle(name: string, { create = false } = {}): Promise<MemoryFolder> {
    const make = () => new MemoryFolder(this.#writing, { folder: this, name });
    return this.#find(name, MemoryFolder, create ? make : undefined);
  }

  async getFileHandle(name: string, { create = false } = {}): Promise<MemoryFile> {
    const make = () => new MemoryFile(() => this.#writing(name), { folder: this, name });
    return this.#find(name, MemoryFile, create ? make : undefined);
  }

  async removeEntry(name: string, { recursive = false } = {}): Promise<void> {
    const { entries } = this.#now();
    const found = entries.get(name);
    if (found === undefined) throw gone();
    if (found instanceof MemoryFolder && found.entries.size > 0 && !recursive) {
      throw new DOMException("not empty", "InvalidModificationError");
    }
    this.#writing(name);
    entries.delete(name);
  }

  async *keys(): AsyncGenerator<string> {
    yield* this.#now().entries.keys();
  }

  /** What is at a place inside. */
  at(name: string): MemoryFolder | MemoryFile | undefined {
    return this.#now().entries.get(name);
  }

  /** The folder that is there now. */
  #now(): MemoryFolder {
    if (this.#place === undefined) return this;
    const found = this.#place.folder.at(this.#place.name);
    if (!(found instanceof MemoryFolder)) throw gone();
    return found;
  }

  #find<T extends MemoryFolder | MemoryFile>(
    name: string,
    kind: new (...parts: never[]) => T,
    make?: () => T,
  ): T {
    if (name === "" || name === "." || name === "..") throw new TypeError("no such name");
    const { entries } = this.#now();
    const found = entries.get(name) ?? make?.();
    if (found === undefined) throw gone();
    if (!(found instanceof kind)) throw new DOMException("another kind", "TypeMismatchError");
    entries.set(name, found);
    return found;
  }
}

/** A file that is written as a whole, or not at all. */
class MemoryFile {
  readonly kind = "file";
  readonly #writing: () => void;
  readonly #place: Place;
  #content: Bytes = new Uint8Array();
  #time = Date.now();

  constructor(writing: () => void, place: Place) {
    this.#writing = writing;
    this.#place = place;
  }

  async getFile() {
    this.#check();
    const content = this.#content;
    return {
      size: content.length,
      lastModified: this.#time,
      arrayBuffer: async () => content.slice().buffer,
      text: async () => new TextDecoder().decode(content),
    };
  }

  async createWritable() {
    this.#check();
    let written: Bytes = new Uint8Array();
    return {
      write: async (content: Bytes | string) => {
        this.#writing();
        written =
          typeof content === "string" ? new TextEncoder().encode(content) : new Uint8Array(content);
      },
      close: async () => {
        this.#check();
        this.#content = written;
        // Later than before, whatever the clock says.
        this.#time = Math.max(Date.now(), this.#time + 1);
      },
      abort: async () => undefined,
    };
  }

  #check(): void {
    if (this.#place.folder.at(this.#place.name) !== this) throw gone();
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

  run(args: string[], input: string | Uint8Array = ""): string {
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

  /** Commits files; undefined for one that goes. */
  commit(
    files: Record<string, string | Uint8Array | undefined>,
    mode = "100644",
    branch = "main",
  ): string {
    const ref = `refs/heads/${branch}`;
    const known = this.run(["for-each-ref", "--format=%(objectname)", ref]).trim();
    const parts: (string | Uint8Array)[] = [head(ref)];
    if (known !== "") parts.push(`from ${known}\n`);
    for (const [path, content] of Object.entries(files)) {
      if (content === undefined) parts.push(`D ${path}\n`);
      else parts.push(`M ${mode} inline ${path}\n`, data(content));
    }
    this.#import(parts);
    return this.run(["rev-parse", ref]).trim();
  }

  /** Commits to main many times. */
  commits(count: number): void {
    const each = (_: unknown, at: number) => [
      head("refs/heads/main"),
      ...(at === 0 ? ["from refs/heads/main^0\n"] : []),
    ];
    this.#import(Array.from({ length: count }, each).flat());
  }

  #import(parts: (string | Uint8Array)[]): void {
    const input = Buffer.concat(parts.map((part) => Buffer.from(part as string)));
    this.run(["fast-import", "--quiet", "--force", "--date-format=now"], input);
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

function head(ref: string): string {
  return `commit ${ref}\ncommitter Bob <bob@node.example> now\ndata 4\nsome\n`;
}

/** As fast-import reads it. */
function data(content: string | Uint8Array): Buffer {
  const bytes = Buffer.from(content as string);
  return Buffer.concat([Buffer.from(`data ${bytes.length}\n`), bytes, Buffer.from("\n")]);
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

export const AUTHOR = { name: "Ada", email: "ada@node.example" };
export const REACH = { node: "node", via: "auto" } as unknown as Reach;

/** What the node has, and where a working copy of it is, for each test anew. */
export let git: RealGit;
export let folder: MemoryFolder;
export let signal: AbortSignal;
/** Asked before something is written to the folder, or removed; what it throws is why that fails. */
export const disk = { writing: (_name: string): void => undefined };

/** In place of our client, for a file of tests to be mocked with. */
export const client = {
  gitHttp: () => ({ request: git.request, close: () => undefined }),
  repositoryUrl: (name: string) => `https://node.example/alknet/git/${name}`,
};

/** Has each test of a file begin with a node and a folder in which there is nothing. */
export function staged(): void {
  beforeEach(() => {
    locks.held = false;
    vi.stubGlobal("navigator", { locks });
    vi.spyOn(console, "error").mockReturnValue();
    git = new RealGit();
    signal = new AbortController().signal;
    disk.writing = () => undefined;
    anotherFolder();
  });
  afterEach(() => {
    vi.restoreAllMocks();
    vi.unstubAllGlobals();
    git.close();
  });
}

export function anotherFolder(): void {
  folder = new MemoryFolder((name) => disk.writing(name));
}

export const progress = () => undefined;
export const bytes = (text: string) => new TextEncoder().encode(text);
export const pull = (copy: WorkingCopy) => copy.pull(signal, progress, AUTHOR);

export async function clone({ empty = false, branch = "main", shallow = false } = {}) {
  // Not before what it stands on is mocked.
  const { WorkingCopy } = await import("./copy");
  const which = { branch: empty ? undefined : branch, first: "main", shallow };
  const options = { repository: "notes", ...which, progress, signal };
  return await WorkingCopy.clone(folder.handle, REACH, options);
}

export async function reopened(): Promise<WorkingCopy> {
  const { WorkingCopy } = await import("./copy");
  return (await WorkingCopy.open(folder.handle, REACH, "notes"))!;
}

export async function text(copy: WorkingCopy, path: string): Promise<string | undefined> {
  const found = await copy.read(path);
  return found === undefined ? undefined : new TextDecoder().decode(found);
}

/** Writes without being asked what is there. */
export async function write(copy: WorkingCopy, path: string, content: string): Promise<void> {
  await copy.write(path, bytes(content), await copy.read(path));
}

export const summary = async (copy: WorkingCopy) =>
  (await copy.status()).map(({ path, how }) => `${how} ${path}`);
