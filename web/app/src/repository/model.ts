import { CallError, SignedOutError, type Client, type Subscription } from "@alknet/client";
import { Problem, sentence, SignedOut } from "../problem";

/** A repository, as the list has it. */
export interface Repository {
  name: string;
  description: string;
  public: boolean;
  default_branch: string | null;
  empty: boolean;
  size: number;
  updated: number | null;
  rights: { push: boolean; admin: boolean };
}

/** The repositories that somebody may see, or as many as one answer has. */
export interface RepositoryList {
  repositories: Repository[];
  truncated: boolean;
}

export interface Branch {
  name: string;
  id: string;
  protected: boolean;
  lossy?: boolean;
}

export interface Tag {
  name: string;
  id: string;
  target: string;
  annotated: boolean;
  lossy?: boolean;
}

export interface Refs {
  head: { branch: string | null; id: string | null };
  branches: Branch[];
  tags: Tag[];
  more: boolean;
}

export interface Person {
  name: string;
  email: string;
  time: number;
  offset: number;
}

export interface Commit {
  id: string;
  parents: string[];
  author: Person;
  committer: Person;
  message: string;
}

export interface Log {
  rev: string;
  commits: Commit[];
  more: boolean;
  truncated: boolean;
}

export type Kind = "tree" | "blob" | "executable" | "link" | "commit";

export interface Entry {
  name: string;
  kind: Kind;
  id: string;
  size?: number;
  lossy?: boolean;
}

export interface Tree {
  rev: string;
  entries: Entry[];
  more: boolean;
}

export interface Blob {
  /** The commit that it was taken from. */
  rev: string;
  id: string;
  kind: Kind;
  size: number;
  binary: boolean;
  offset: number;
  length: number;
  text?: string;
  base64?: string;
  truncated: boolean;
}

export interface Hunk {
  old_start: number;
  old_lines: number;
  new_start: number;
  new_lines: number;
  lines: string[];
}

export interface Change {
  path: string;
  old_path?: string;
  status: "added" | "deleted" | "modified" | "renamed" | "type";
  binary: boolean;
  additions: number;
  deletions: number;
  hunks: Hunk[];
  truncated: boolean;
}

export interface Diff {
  from: string | null;
  to: string;
  files: Change[];
  truncated: boolean;
}

export interface GitEvent {
  event: "push" | "created" | "renamed" | "deleted" | "settings" | "missed";
  repository?: string;
  by?: string;
}

/** What can be set of a repository. */
export interface Settings {
  description?: string;
  public?: boolean;
  default_branch?: string;
  /** Patterns of refs, to be protected from now on and no more. */
  protect?: string[];
  unprotect?: string[];
  /** In bytes; 0 for what holds for all repositories of the node. */
  quota?: number;
  lfs?: boolean;
}

/** What is set of a repository. */
export interface SettingsOf {
  description: string;
  public: boolean;
  default_branch: string | null;
  protected: string[];
  quota: number | null;
  lfs: boolean;
  mirror: Mirror | null;
}

/** Where the content of a repository comes from, and how that goes. */
export interface Mirror {
  url: string;
  /** In seconds, as are the times. */
  every: number;
  last_attempt: number | null;
  last_success: number | null;
  last_error: string | null;
}

/** A place in a repository. */
export interface Place {
  repository: string;
  rev?: string | undefined;
  path?: string | undefined;
}

/** How long a fetch from elsewhere may take. */
const FETCH_MS = 60 * 60 * 1000;

/** How long the list of repositories is good for, while nothing is heard of a change. */
const KNOWN_MS = 10_000;

/** The most that is asked for of a file in one piece. */
const PIECE = 2 * 1024 * 1024;

/** A page keeps an archive in memory until it is saved. */
const MAX_ARCHIVE = 1024 * 1024 * 1024;

/** The repositories of the node, as far as whoever is signed in may see them. */
export class Repositories {
  readonly #client: Client;
  /** What there was a moment ago. */
  #known: { list: Repository[]; until: number } | undefined;

  constructor(client: Client) {
    this.#client = client;
  }

  async list(signal?: AbortSignal): Promise<RepositoryList> {
    const all = await this.#call<RepositoryList>("git/repos", {}, signal);
    this.#known = { list: all.repositories, until: performance.now() + KNOWN_MS };
    return all;
  }

  /** One of them, as it was a moment ago at the earliest. */
  async find(name: string, signal?: AbortSignal): Promise<Repository> {
    const { list, until } = this.#known ?? { list: [], until: 0 };
    const known = until > performance.now() && list.find((it) => it.name === name);
    // The list may end before it.
    const found = known || (await this.#named(name, signal));
    if (found === undefined) throw missing(name);
    return found;
  }

  async #named(name: string, signal?: AbortSignal): Promise<Repository | undefined> {
    const { repositories } = await this.#call<RepositoryList>(
      "git/repos",
      { prefix: name },
      signal,
    );
    return repositories.find((it) => it.name === name);
  }

  /** Something has changed. */
  forget(): void {
    this.#known = undefined;
  }

  refs(repository: string, signal?: AbortSignal): Promise<Refs> {
    return this.#call("git/refs", { repository }, signal);
  }

  log(place: Place, skip: number, limit: number, signal?: AbortSignal): Promise<Log> {
    return this.#call("git/log", { ...at(place), skip, limit }, signal);
  }

  tree(place: Place, signal?: AbortSignal): Promise<Tree> {
    return this.#call("git/tree", { ...at(place), limit: 10_000 }, signal);
  }

  blob(place: Place, limit: number, signal?: AbortSignal, offset = 0): Promise<Blob> {
    return this.#call("git/blob", { ...at(place), offset, limit }, signal);
  }

  /** All of a file's bytes, of one commit, whatever is pushed meanwhile. */
  async bytes(place: Place, signal?: AbortSignal): Promise<Uint8Array<ArrayBuffer>[]> {
    const parts: Uint8Array<ArrayBuffer>[] = [];
    let { rev } = place;
    for (let offset = 0; ;) {
      const piece = await this.blob({ ...place, rev }, PIECE, signal, offset);
      rev = piece.rev;
      parts.push(bytesOf(piece));
      offset += piece.length;
      if (!piece.truncated || piece.length === 0) return parts;
    }
  }

  diff(repository: string, to: string, signal?: AbortSignal): Promise<Diff> {
    return this.#call("git/diff", { repository, to }, signal);
  }

  /** The files of a revision in one file, with a name for it. */
  async archive(
    place: Place,
    format: "tar.gz" | "zip",
  ): Promise<{ parts: Uint8Array<ArrayBuffer>[]; name: string }> {
    const parts: Uint8Array<ArrayBuffer>[] = [];
    let name = `archive.${format}`;
    let size = 0;
    const pieces: Subscription<{ base64: string; name?: string }> = this.#client.subscribe(
      "git/archive",
      { ...at(place), format },
    );
    for await (const piece of pieces) {
      const bytes = fromBase64(piece.base64);
      size += bytes.length;
      if (size > MAX_ARCHIVE) {
        throw new Problem("Too large", "It is too large for a page. Clone the repository instead.");
      }
      parts.push(bytes);
      name = piece.name ?? name;
    }
    return { parts, name };
  }

  events(signal: AbortSignal): Subscription<GitEvent> {
    return this.#client.subscribe("git/events", {}, { signal });
  }

  show(name: string, signal?: AbortSignal): Promise<SettingsOf> {
    return this.#call("git/show", { name }, signal);
  }

  /** Makes a repository the copy of one elsewhere, or no more, or has it look for news now. */
  async mirror(
    name: string,
    to: { url?: string; every?: string; stop?: true },
  ): Promise<SettingsOf> {
    try {
      return await this.#call("git/mirror", { name, ...to }, undefined, FETCH_MS);
    } finally {
      this.forget();
    }
  }

  async create(name: string, settings: Settings): Promise<void> {
    await this.#call("git/create", { name, ...settings });
    this.forget();
  }

  /** What is set from then on. */
  async configure(name: string, settings: Settings): Promise<SettingsOf> {
    const set = await this.#call<SettingsOf>("git/configure", { name, ...settings });
    this.forget();
    return set;
  }

  async rename(name: string, to: string): Promise<void> {
    await this.#call("git/rename", { name, to });
    this.forget();
  }

  async remove(name: string): Promise<void> {
    await this.#call("git/delete", { name });
    this.forget();
  }

  async #call<T>(
    name: string,
    input: object,
    signal?: AbortSignal,
    timeoutMs?: number,
  ): Promise<T> {
    try {
      const options = { ...(signal && { signal }), ...(timeoutMs && { timeoutMs }) };
      return (await this.#client.call(name, stripped(input), options)) as T;
    } catch (error) {
      throw error instanceof CallError ? problemOf(error, input) : error;
    }
  }
}

/** The bytes of a piece of a file. */
export function bytesOf({ text, base64 }: Blob): Uint8Array<ArrayBuffer> {
  if (base64 === undefined) return new TextEncoder().encode(text ?? "");
  return fromBase64(base64);
}

function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
}

/** A place as the operations take it. */
function at({ repository, rev, path }: Place): object {
  return stripped({ repository, rev, path: path || undefined });
}

/** Without what is not given. */
function stripped(input: object): object {
  return Object.fromEntries(Object.entries(input).filter(([, value]) => value !== undefined));
}

/** Something that is not there, for all that can be seen. */
export class Missing extends Problem {}

function missing(name: string): Missing {
  return new Missing(
    "There is no such repository",
    `There is no repository ${name}, or it is not yours to see.`,
  );
}

/** There is nothing yet that could be shown. */
export class Nothing extends Problem {}

function problemOf(error: CallError, input: object): Problem {
  if (error.cause instanceof SignedOutError) return new SignedOut();
  // Names of repositories and paths have their letters as they are.
  const names = Object.values(input).filter((value) => typeof value === "string");
  const text = sentence(error.message, names);
  switch (error.code as string) {
    case "NO_SUCH_REPOSITORY":
      return new Missing("There is no such repository", text, { cause: error });
    case "NO_SUCH_REVISION":
      return new Nothing("There is no such revision", text, { cause: error });
    case "NO_SUCH_PATH":
      return new Missing("There is no such file", text, { cause: error });
    case "NOT_FOUND":
      return new Missing("Not on this node", "This node has no repositories for this sign-in.", {
        cause: error,
      });
    default:
      return new Problem("That did not work", text, { cause: error });
  }
}
