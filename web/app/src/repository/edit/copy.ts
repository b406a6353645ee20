// A working copy: git in this page.
import { gitHttp, repositoryUrl, type GitHttp } from "@alknet/client";
import type * as Isogit from "isomorphic-git";
import type { Bytes } from "../../bytes";
import type { Reach } from "../../shell";
import { ChangedError, firstOf, hasCode, OverwriteError, pathsOf, refusal } from "./errors";
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

/** A file as git keeps it. */
interface Staged {
  oid: string;
  mode: number;
}

type Checkout = Parameters<typeof Isogit.checkout>[0];

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

/** Waits until git is there, but no longer than until an abort. */
export async function loaded(signal: AbortSignal): Promise<void> {
  await until(load(), signal);
}

/** Does something as the only page that changes the copy of a repository, once it is. */
export async function alone<T>(
  repository: string,
  work: () => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  const options = signal === undefined ? {} : { signal };
  return (await navigator.locks.request(lockOf(repository), options, work)) as T;
}

const lockOf = (repository: string) => `alknet-git ${repository}`;

/** Waits for something, but no longer than until an abort. */
function until<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason as Error);
    const over = () => signal.removeEventListener("abort", abort);
    promise.then(resolve, reject).finally(over);
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

  /**
   * The working copy in a folder; undefined if there is none, or one that was never whole.
   * Throws where that cannot be said: the copy may be whole then.
   */
  static async open(
    root: FileSystemDirectoryHandle,
    reach: Reach,
    repository: string,
  ): Promise<WorkingCopy | undefined> {
    const copy = new WorkingCopy(await load(), new FolderFs(root), reach, repository);
    const ready: unknown = await copy.#git.getConfig({ ...copy.#at, path: READY });
    if (ready === undefined) return undefined;
    await copy.#recall();
    return copy;
  }

  /** Clones a repository into an empty folder. Nobody else may be at it: see {@link alone}. */
  static async clone(
    root: FileSystemDirectoryHandle,
    reach: Reach,
    options: CloneOptions,
  ): Promise<WorkingCopy> {
    const { repository, branch, first, shallow, progress, signal } = options;
    const git = await until(load(), signal);
    const copy = new WorkingCopy(git, new FolderFs(root), reach, repository);
    await git.init({ ...copy.#at, defaultBranch: branch ?? first });
    await git.addRemote({ ...copy.#at, remote, url: repositoryUrl(repository) });
    if (branch !== undefined) {
      const more = shallow ? { depth: 1, singleBranch: true } : {};
      const at = copy.#with(progress, signal);
      await copy.#online(signal, (http) =>
        git.fetch({ ...at, http, remote, ref: branch, tags: false, ...more }),
      );
      await copy.#checkout({ ...at, ref: branch, remote, nonBlocking: true, batchSize: AT_ONCE });
    }
    signal.throwIfAborted();
    await git.setConfig({ ...copy.#at, path: READY, value: "true" });
    return copy;
  }

  /** Has the copy be one of another repository: what it is called now. Nobody else may be at it. */
  async lead(repository: string): Promise<void> {
    const value = repositoryUrl(repository);
    await this.#git.setConfig({ ...this.#at, path: `remote.${remote}.url`, value });
  }

  /** What is in a folder of it; undefined if that is no folder. */
  async list(path: string): Promise<{ name: string; folder: boolean; size: number }[] | undefined> {
    if (isOwn(path)) return undefined;
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
    if (isOwn(path)) return undefined;
    try {
      return (await this.#files.readFile(path)) as Uint8Array<ArrayBuffer>;
    } catch (error) {
      if (hasCode(error, "ENOENT", "ENOTDIR")) return undefined;
      throw error;
    }
  }

  /**
   * Writes a file, and the folders on the way to it; `known` is what is expected to be there.
   * Throws a {@link ChangedError} if it is something else.
   */
  async write(path: string, content: Bytes, known: Bytes | undefined): Promise<void> {
    if (isOwn(path)) throw new Error("what is in .git is git's own");
    await this.#locked(async () => {
      const there = await this.read(path);
      if (!same(there, known) && !same(there, content)) throw new ChangedError(there);
      await this.#put(path, content);
    });
  }

  async remove(path: string): Promise<void> {
    if (isOwn(path)) throw new Error("what is in .git is git's own");
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
    await this.#locked(() => this.#checkout({ ...this.#at, ref: branch, remote }));
  }

  /** Files that are not as the last commit has them. */
  async status(): Promise<Changed[]> {
    const look = (refresh: boolean) =>
      this.#git.statusMatrix({ ...this.#at, ref: "HEAD", refresh });
    // The index is brought up to date on the way, unless another page may be changing it.
    const looking = navigator.locks.request(
      lockOf(this.#name),
      { ifAvailable: true },
      async (lock) => await look(lock !== null),
    );
    const rows = await looking.catch(async (error) => {
      if ((await this.#head()) !== undefined) throw error;
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
  async discard({ path }: Changed): Promise<void> {
    await this.#locked(async () => {
      const entry = (await this.#committed(new Set([path]))).get(path);
      if (entry === undefined) {
        await this.#files.unlink(path);
      } else {
        const { blob } = await this.#git.readBlob({ ...this.#at, oid: entry.oid });
        const content = new Uint8Array(blob);
        if (entry.mode === LINK) this.#files.link(path);
        await this.#put(path, content);
      }
      await this.#unstage(path, entry);
    });
  }

  /** Commits these changes and nothing else; the id of the commit. */
  async commit(changes: Changed[], message: string, author: Author): Promise<string> {
    return await this.#locked(async () => {
      const paths = new Set(changes.map(({ path }) => path));
      const entries = await this.#committed(paths);
      // Others may have written or removed files since somebody has looked.
      for (const path of paths) {
        const there = await this.read(path);
        if (there === undefined) await this.#git.remove({ ...this.#at, filepath: path });
        else await this.#stage(path, there, entries.get(path)?.mode);
      }
      // What a commit that has failed, or somebody's git, has staged beside them.
      for (const [path, entry] of await this.#staged()) {
        if (!paths.has(path)) await this.#unstage(path, entry);
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

  /**
   * Fetches what the node has, and merges it. A {@link OverwriteError} says which files have
   * changes that are in the way; then nothing has happened.
   */
  async pull(signal: AbortSignal, progress: Hearing, author: Author): Promise<void> {
    await this.#locked(async () => {
      const branch = await this.branch();
      const at = this.#with(progress, signal);
      await this.#online(signal, (http) =>
        this.#git.fetch({ ...at, http, remote, ref: branch, tags: false }),
      );
      const theirs = `refs/remotes/${remote}/${branch}`;
      const there = await this.#resolve(theirs);
      if (there === undefined) return;
      if ((await this.#head()) === undefined) return await this.#move(branch, there, at);
      const merged = await this.#git.merge({
        ...this.#at,
        ours: branch,
        theirs,
        author,
        abortOnConflict: true,
        noUpdateBranch: true,
      });
      if (merged.alreadyMerged || merged.oid === undefined) return;
      await this.#move(branch, merged.oid, at);
    });
  }

  /** Has the branch, and all files, be as the node had them when it was asked last. */
  async reset(): Promise<void> {
    await this.#locked(async () => {
      const branch = await this.branch();
      const ref = `refs/remotes/${remote}/${branch}`;
      const oid = await this.#git.resolveRef({ ...this.#at, ref });
      await this.#move(branch, oid, { ...this.#at, force: true });
    });
  }

  /**
   * Has a branch, and the files, be as a commit is. The files go first: of what ends amid them
   * they are changes that nobody has committed, and none that take back what others did.
   */
  async #move(branch: string, oid: string, options: Checkout): Promise<void> {
    await this.#checkout({ ...options, ref: oid, noUpdateHead: true });
    const ref = `refs/heads/${branch}`;
    await this.#git.writeRef({ ...this.#at, ref, value: oid, force: true });
  }

  async #checkout(options: Checkout): Promise<void> {
    try {
      await this.#makeWay(options);
      await this.#git.checkout(options);
    } catch (error) {
      const paths = pathsOf(error, "CheckoutConflictError");
      throw paths === undefined ? firstOf(error) : new OverwriteError(paths, { cause: error });
    }
  }

  /** Makes way where a file becomes a folder or a folder a file, which git here does not. */
  async #makeWay({ ref = "HEAD", force = false }: Checkout): Promise<void> {
    const to = (await this.#resolve(ref)) ?? (await this.#resolve(`${remote}/${ref}`));
    if (to === undefined) return;
    const turned: string[] = [];
    const map = async (path: string, [there, here]: (Isogit.WalkerEntry | null)[]) => {
      const [will, is] = await Promise.all([there?.type(), here?.type()]);
      if (path === "." || (will === "tree" && is === "tree")) return undefined;
      if (will && is && (will === "tree" || is === "tree")) turned.push(path);
      return null;
    };
    const trees = [this.#git.TREE({ ref: to }), this.#git.STAGE()];
    await this.#git.walk({ ...this.#at, trees, map });
    if (turned.length === 0) return;
    const rows = await this.#git.statusMatrix({ ...this.#at, filepaths: turned });
    const lost = rows.filter(([, head, work, stage]) =>
      force ? head === 0 && stage === 0 : head !== 1 || work !== 1 || stage !== 1,
    );
    if (lost.length > 0) throw new OverwriteError(lost.map(([path]) => path));
    for (const [filepath] of rows) await this.#git.remove({ ...this.#at, filepath });
    for (const path of turned) await this.#files.rm(path, { recursive: true });
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
    return await alone(this.#name, work);
  }

  /** The last commit; undefined before the first. */
  async #head(): Promise<string | undefined> {
    return await this.#resolve("HEAD");
  }

  async #resolve(ref: string): Promise<string | undefined> {
    try {
      return await this.#git.resolveRef({ ...this.#at, ref });
    } catch (error) {
      if (hasCode(error, "NotFoundError")) return undefined;
      throw error;
    }
  }

  /** Which of these files the last commit has, and how: the browser does not know of modes. */
  async #committed(wanted: Set<string>): Promise<Map<string, Staged>> {
    const found = new Map<string, Staged>();
    if ((await this.#head()) === undefined) return found;
    const folders = new Set([...wanted].flatMap(foldersOf));
    const map = async (path: string, [entry]: (Isogit.WalkerEntry | null)[]) => {
      if (path !== "." && !wanted.has(path) && !folders.has(path)) return null;
      const staged = wanted.has(path) ? await stagedOf(entry) : undefined;
      if (staged !== undefined) found.set(path, staged);
      return undefined;
    };
    await this.#git.walk({ ...this.#at, trees: [this.#git.TREE({ ref: "HEAD" })], map });
    return found;
  }

  /** What is staged, and what the last commit has in its place. */
  async #staged(): Promise<Map<string, Staged | undefined>> {
    const differs = new Map<string, Staged | undefined>();
    const { STAGE, TREE } = this.#git;
    const none = (await this.#head()) === undefined;
    const before = none ? STAGE() : TREE({ ref: "HEAD" });
    const map = async (path: string, [head, stage]: (Isogit.WalkerEntry | null)[]) => {
      const [was, is] = [none ? undefined : await stagedOf(head), await stagedOf(stage)];
      if (was?.oid !== is?.oid || was?.mode !== is?.mode) differs.set(path, was);
    };
    await this.#git.walk({ ...this.#at, trees: [before, STAGE()], map });
    return differs;
  }

  /** Has the index be as the last commit is. */
  async #unstage(path: string, entry: Staged | undefined): Promise<void> {
    if (entry === undefined) return await this.#git.remove({ ...this.#at, filepath: path });
    await this.#git.updateIndex({ ...this.#at, filepath: path, ...entry, add: true });
  }

  async #put(path: string, content: Bytes): Promise<void> {
    for (const folder of foldersOf(path)) {
      await this.#files.mkdir(folder).catch((error: unknown) => {
        if (!hasCode(error, "EEXIST")) throw error;
      });
    }
    await this.#files.writeFile(path, content);
  }

  /** Which files are symbolic links: the index knows when the page is new. */
  async #recall(): Promise<void> {
    const map = async (path: string, [entry]: (Isogit.WalkerEntry | null)[]) => {
      if ((await entry?.mode()) === LINK) this.#files.link(path);
    };
    await this.#git.walk({ ...this.#at, trees: [this.#git.STAGE()], map });
  }

  async #stage(path: string, blob: Bytes, mode: number | undefined): Promise<void> {
    if (mode !== EXECUTABLE) {
      return await this.#git.add({ ...this.#at, filepath: path });
    }
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

/** Whether a path leads to what git keeps for itself. */
function isOwn(path: string): boolean {
  return path.split("/").find((word) => word !== "" && word !== ".") === ".git";
}

/** The folders on the way to a file, the outermost first. */
function foldersOf(path: string): string[] {
  const words = path.split("/").filter((word) => word !== "");
  return words.slice(0, -1).map((_, at) => words.slice(0, at + 1).join("/"));
}

async function stagedOf(entry: Isogit.WalkerEntry | null | undefined): Promise<Staged | undefined> {
  if (!entry || (await entry.type()) === "tree") return undefined;
  return { oid: await entry.oid(), mode: await entry.mode() };
}

function same(one: Bytes | undefined, other: Bytes | undefined): boolean {
  if (one === undefined || other === undefined) return one === other;
  return one.length === other.length && one.every((byte, at) => byte === other[at]);
}
