// A working copy: git in this page.
import { gitHttp, repositoryUrl, type GitHttp } from "@alknet/client";
import type * as Isogit from "isomorphic-git";
import type { Reach } from "../../shell";
import { FolderFs, type Stats } from "./fs";

/** Who writes commits. */
export interface Author {
  name: string;
  email: string;
}

/** A file that is not as the last commit has it. */
export interface Changed {
  path: string;
  how: "new" | "modified" | "deleted";
}

/** How far the branch is from where it is at the node; `more` if that is only what is known. */
export interface Position {
  ahead: number;
  behind: number;
  more: boolean;
}

/** How far something has come. */
export interface Progress {
  phase: string;
  loaded: number;
  total: number | undefined;
}

export type Hearing = (progress: Progress) => void;

export interface CloneOptions {
  repository: string;
  /** Undefined for a repository that has none yet; then `first` is made. */
  branch: string | undefined;
  first: string;
  /** Only the latest commit. */
  shallow: boolean;
  progress: Hearing;
  signal: AbortSignal;
}

const dir = "/";
const remote = "origin";
/** Set when a clone is whole. */
const READY = "alknet.ready";
/** The most commits that are counted. */
const COUNTED = 500;
/** Files that are written at once. */
const AT_ONCE = 64;

/** The modes of a program and of a symbolic link. */
const EXECUTABLE = 0o100_755;
const LINK = 0o120_000;

let loading: Promise<typeof Isogit> | undefined;

/** git, which is loaded when it is needed; again, if that has failed. */
function load(): Promise<typeof Isogit> {
  loading ??= fetchGit().catch((error: unknown) => {
    loading = undefined;
    throw error;
  });
  return loading;
}

async function fetchGit(): Promise<typeof Isogit> {
  const { Buffer } = await import("buffer/");
  // isomorphic-git goes by Node's.
  (globalThis as { Buffer?: unknown }).Buffer ??= Buffer;
  return await import("isomorphic-git");
}

/** Waits for something, but no longer than until an abort. */
function until<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason as Error);
    promise.then(resolve, reject);
    if (signal.aborted) abort();
    else signal.addEventListener("abort", abort, { once: true });
  });
}

/** A working copy of a repository. */
export class WorkingCopy {
  readonly #git: typeof Isogit;
  readonly #files: FolderFs;
  readonly #fs: { promises: FolderFs };
  readonly #reach: Reach;
  readonly #name: string;
  readonly #cache = {};

  private constructor(git: typeof Isogit, files: FolderFs, reach: Reach, name: string) {
    this.#git = git;
    this.#files = files;
    this.#fs = { promises: files };
    this.#reach = reach;
    this.#name = name;
  }

  /** The working copy in a folder; undefined if there is none, or not a whole one. */
  static async open(
    root: FileSystemDirectoryHandle,
    reach: Reach,
    repository: string,
  ): Promise<WorkingCopy | undefined> {
    const copy = new WorkingCopy(await load(), new FolderFs(root), reach, repository);
    try {
      const ready: unknown = await copy.#git.getConfig({ ...copy.#at, path: READY });
      if (ready === undefined) return undefined;
      await copy.#recall();
      return copy;
    } catch {
      return undefined;
    }
  }

  /** Clones a repository into an empty folder. */
  static async clone(
    root: FileSystemDirectoryHandle,
    reach: Reach,
    options: CloneOptions,
  ): Promise<WorkingCopy> {
    const { repository, branch, first, shallow, progress, signal } = options;
    const git = await until(load(), signal);
    const copy = new WorkingCopy(git, new FolderFs(root), reach, repository);
    await copy.#locked(async () => {
      await git.init({ ...copy.#at, defaultBranch: branch ?? first });
      await git.addRemote({ ...copy.#at, remote, url: repositoryUrl(repository) });
      if (branch !== undefined) {
        const more = shallow ? { depth: 1, singleBranch: true } : {};
        await copy.#online(signal, (http) =>
          git.fetch({
            ...copy.#with(progress, signal),
            http,
            remote,
            ref: branch,
            tags: false,
            ...more,
          }),
        );
        const batches = { nonBlocking: true, batchSize: AT_ONCE };
        await git.checkout({ ...copy.#with(progress, signal), ref: branch, remote, ...batches });
      }
      signal.throwIfAborted();
      await git.setConfig({ ...copy.#at, path: READY, value: "true" });
    });
    return copy;
  }

  /** What is in a folder of it; undefined if that is no folder. */
  async list(path: string): Promise<{ name: string; folder: boolean; size: number }[] | undefined> {
    const names = await this.#files.readdir(path).catch((error: unknown) => {
      if (hasCode(error, "ENOTDIR", "ENOENT")) return undefined;
      throw error;
    });
    const inside = names?.filter((name) => name !== ".git");
    if (inside === undefined) return undefined;
    const about = async (name: string) => {
      const stats: Stats = await this.#files.stat(`${path}/${name}`);
      return { name, folder: stats.isDirectory(), size: stats.size };
    };
    return await Promise.all(inside.map(about));
  }

  /** A file's content; undefined if there is none. */
  async read(path: string): Promise<Uint8Array<ArrayBuffer> | undefined> {
    try {
      return (await this.#files.readFile(path)) as Uint8Array<ArrayBuffer>;
    } catch (error) {
      if (hasCode(error, "ENOENT", "ENOTDIR")) return undefined;
      throw error;
    }
  }

  /** Writes a file, and the folders on the way to it. */
  async write(path: string, content: Uint8Array<ArrayBuffer>): Promise<void> {
    await this.#locked(async () => {
      const words = path.split("/");
      for (let at = 1; at < words.length; at++) {
        await this.#files.mkdir(words.slice(0, at).join("/")).catch((error: unknown) => {
          if (!hasCode(error, "EEXIST")) throw error;
        });
      }
      await this.#files.writeFile(path, content);
    });
  }

  async remove(path: string): Promise<void> {
    await this.#locked(() => this.#files.unlink(path));
  }

  /** The branch that commits go to. */
  async branch(): Promise<string> {
    return (await this.#git.currentBranch(this.#at)) ?? "HEAD";
  }

  /** The branches that there are at the node, as far as it is known here. */
  async branches(): Promise<string[]> {
    const names = await this.#git.listBranches({ ...this.#at, remote });
    return names.filter((name) => name !== "HEAD");
  }

  /** Goes to another branch. */
  async change(branch: string): Promise<void> {
    await this.#locked(() => this.#git.checkout({ ...this.#at, ref: branch, remote }));
  }

  /** Files that are not as the last commit has them. */
  async status(): Promise<Changed[]> {
    const rows = await this.#git.statusMatrix({ ...this.#at, ref: "HEAD" }).catch(async () => {
      // Before the first commit everything is new.
      const paths = await this.#below(dir);
      return paths.map((path) => [path, 0, 2, 0] as const);
    });
    const changed: Changed[] = [];
    for (const [path, head, work] of rows) {
      if (work === 0 && head === 1) changed.push({ path, how: "deleted" });
      else if (work === 2) changed.push({ path, how: head === 0 ? "new" : "modified" });
    }
    return changed;
  }

  /** Has a file be again as the last commit has it. */
  async discard({ path, how }: Changed): Promise<void> {
    if (how === "new") return await this.remove(path);
    await this.#locked(async () => {
      const filepaths = [path];
      await this.#git.checkout({ ...this.#at, force: true, filepaths });
    });
  }

  /** Commits these changes; the id of the commit. */
  async commit(changes: Changed[], message: string, author: Author): Promise<string> {
    return await this.#locked(async () => {
      const modes = await this.#modes(changes);
      for (const { path, how } of changes) {
        if (how === "deleted") await this.#git.remove({ ...this.#at, filepath: path });
        else await this.#stage(path, modes.get(path));
      }
      return await this.#git.commit({ ...this.#at, message, author });
    });
  }

  async position(): Promise<Position> {
    const branch = await this.branch();
    const ids = async (ref: string) => {
      const log = await this.#git.log({ ...this.#at, ref, depth: COUNTED }).catch(() => []);
      return log.map(({ oid }) => oid);
    };
    const [ours, theirs] = await Promise.all([
      ids(`refs/heads/${branch}`),
      ids(`refs/remotes/${remote}/${branch}`),
    ]);
    const missing = (from: string[], known: Set<string>) =>
      from.filter((id) => !known.has(id)).length;
    return {
      ahead: missing(ours, new Set(theirs)),
      behind: missing(theirs, new Set(ours)),
      more: ours.length === COUNTED || theirs.length === COUNTED,
    };
  }

  /** Sends the branch to the node, under another name if `as` says so. */
  async push(signal: AbortSignal, progress: Hearing, as?: string): Promise<void> {
    await this.#locked(async () => {
      const ref = await this.branch();
      const to = as === undefined ? {} : { remoteRef: `refs/heads/${as}` };
      const said: string[] = [];
      const onMessage = (text: string) => void said.push(text.trim());
      await this.#online(signal, async (http) => {
        try {
          await this.#git.push({
            ...this.#with(progress, signal),
            http,
            remote,
            ref,
            ...to,
            onMessage,
          });
        } catch (error) {
          throw refusal(error, said);
        }
      });
    });
  }

  /** Fetches what the node has, and merges it. Files must be as the last commit has them. */
  async pull(signal: AbortSignal, progress: Hearing, author: Author): Promise<void> {
    await this.#locked(async () => {
      const branch = await this.branch();
      const at = this.#with(progress, signal);
      await this.#online(signal, (http) =>
        this.#git.fetch({ ...at, http, remote, ref: branch, tags: false }),
      );
      const theirs = `refs/remotes/${remote}/${branch}`;
      const there = await this.#git.resolveRef({ ...this.#at, ref: theirs }).catch(() => undefined);
      if (there === undefined) return;
      await this.#git.merge({ ...this.#at, ours: branch, theirs, author, abortOnConflict: true });
      await this.#git.checkout({ ...at, ref: branch, remote });
    });
  }

  /** Has the branch, and all files, be as the node had them when it was asked last. */
  async reset(): Promise<void> {
    await this.#locked(async () => {
      const branch = await this.branch();
      const theirs = `refs/remotes/${remote}/${branch}`;
      const value = await this.#git.resolveRef({ ...this.#at, ref: theirs });
      await this.#git.writeRef({ ...this.#at, ref: `refs/heads/${branch}`, value, force: true });
      await this.#git.checkout({ ...this.#at, ref: branch, force: true });
    });
  }

  get #at(): { fs: { promises: FolderFs }; dir: string; cache: object } {
    return { fs: this.#fs, dir, cache: this.#cache };
  }

  #with(progress: Hearing, signal: AbortSignal) {
    const onProgress = ({ phase, loaded, total }: Isogit.GitProgressEvent) => {
      // What is done without the node ends here.
      signal.throwIfAborted();
      progress({ phase, loaded, total: total > 0 ? total : undefined });
    };
    return { ...this.#at, onProgress };
  }

  /** Does something with the node; an abort ends it. */
  async #online<T>(signal: AbortSignal, work: (http: GitHttp) => Promise<T>): Promise<T> {
    signal.throwIfAborted();
    const { node, via } = this.#reach;
    const http = gitHttp({ node, via });
    const cut = () => http.close();
    signal.addEventListener("abort", cut);
    try {
      return await work(http);
    } catch (error) {
      signal.throwIfAborted();
      throw error;
    } finally {
      signal.removeEventListener("abort", cut);
      http.close();
    }
  }

  /** One page at a time changes a copy. */
  async #locked<T>(work: () => Promise<T>): Promise<T> {
    return (await navigator.locks.request(`alknet-git ${this.#name}`, work)) as T;
  }

  /** What the last commit says files are: the browser does not know of modes. */
  async #modes(changes: Changed[]): Promise<Map<string, number>> {
    const modes = new Map<string, number>();
    const wanted = new Set(changes.map(({ path }) => path));
    const leads = (path: string) =>
      [...wanted].some((it) => it === path || it.startsWith(`${path}/`));
    const map = async (path: string, [entry]: (Isogit.WalkerEntry | null)[]) => {
      if (path !== "." && !leads(path)) return null;
      const mode = await entry?.mode();
      if (wanted.has(path) && mode !== undefined) modes.set(path, mode);
      return undefined;
    };
    await this.#git
      .walk({ ...this.#at, trees: [this.#git.TREE({ ref: "HEAD" })], map })
      .catch((error: unknown) => {
        if (!hasCode(error, "NotFoundError")) throw error;
      });
    return modes;
  }

  /** Which files are symbolic links: the index knows when the page is new. */
  async #recall(): Promise<void> {
    const map = async (path: string, [entry]: (Isogit.WalkerEntry | null)[]) => {
      if ((await entry?.mode()) === LINK) this.#files.link(path);
    };
    await this.#git.walk({ ...this.#at, trees: [this.#git.STAGE()], map });
  }

  async #stage(path: string, mode: number | undefined): Promise<void> {
    if (mode !== EXECUTABLE) {
      return await this.#git.add({ ...this.#at, filepath: path });
    }
    const blob = (await this.read(path)) ?? new Uint8Array();
    const oid = await this.#git.writeBlob({ ...this.#at, blob });
    await this.#git.updateIndex({ ...this.#at, filepath: path, oid, mode, add: true });
  }

  /** All files below a folder. */
  async #below(folder: string): Promise<string[]> {
    const entries = (await this.list(folder)) ?? [];
    const all = await Promise.all(
      entries.map(async ({ name, folder: inner }) => {
        const path = folder === dir ? name : `${folder}/${name}`;
        return inner ? await this.#below(path) : [path];
      }),
    );
    return all.flat();
  }
}

/** The node's branch has commits that this copy does not have. */
export class BehindError extends Error {}

/** Both sides have changed the same lines. */
export function conflicts(error: unknown): string[] | undefined {
  if (!hasCode(error, "MergeConflictError")) return undefined;
  const { data } = error as { data?: { filepaths?: unknown } };
  return Array.isArray(data?.filepaths) ? data.filepaths.map(String) : [];
}

function refusal(error: unknown, said: string[]): unknown {
  if (hasCode(error, "PushRejectedError")) return new BehindError("behind", { cause: error });
  if (!hasCode(error, "GitPushError")) return error;
  const { data } = error as { data?: { result?: { refs?: Record<string, { error?: string }> } } };
  const reasons = Object.values(data?.result?.refs ?? {}).flatMap(({ error }) => error ?? []);
  if (reasons.some((reason) => /non-fast-forward|fetch first|stale|lock/.test(reason))) {
    return new BehindError("behind", { cause: error });
  }
  const words = [...reasons, ...said].filter((text) => text !== "").join("\n");
  return new Error(`the node did not take it: ${words || "it does not say why"}`, { cause: error });
}

function hasCode(error: unknown, ...codes: string[]): boolean {
  if (!(error instanceof Error) || !("code" in error)) return false;
  return codes.includes(String(error.code));
}
