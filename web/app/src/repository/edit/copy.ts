// A working copy: git in this page.
import { gitHttp, repositoryUrl, type GitHttp } from "@alknet/client";
import type * as Isogit from "isomorphic-git";
import type { Bytes } from "../../bytes";
import type { Reach } from "../../shell";
import { apart, type Commit, type Position } from "./apart";
import {
  checkout,
  clear,
  entriesOf,
  EXECUTABLE,
  foldersOf,
  LINK,
  stage,
  stagedOf,
  type Options,
  type Place,
  type Staged,
} from "./checkout";
import { ChangedError, hasCode, OverwriteError, refusal } from "./errors";
import { FolderFs, type Stats } from "./fs";
import { merge } from "./merge";

export type { Position };

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

type Fetch = Omit<Parameters<typeof Isogit.fetch>[0], "http">;

const dir = "/";
const remote = "origin";
/** Where branches are. Their names alone may mean something else: git here takes any file. */
const HEADS = "refs/heads/";
const TRACKED = `refs/remotes/${remote}/`;
/** Set when a clone is whole. */
const READY = "alknet.ready";
/** The most commits that are counted. */
const COUNTED = 500;
/** Files that are written at once. */
const AT_ONCE = 64;

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
      await copy.#fetch(branch, { ...at, ...more }, signal);
      await copy.#enter(branch, { ...at, nonBlocking: true, batchSize: AT_ONCE });
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

  /** The branch that commits go to; HEAD if there is none, as another git may leave it. */
  async branch(): Promise<string> {
    return (await this.#current()) ?? "HEAD";
  }

  /** The branches that there are at the node, as far as it is known here. */
  async branches(): Promise<string[]> {
    const names = await this.#git.listBranches({ ...this.#at, remote });
    return names.filter((name) => name !== "HEAD");
  }

  /** Goes to another branch. Where that fails, everything is as it was. */
  async change(branch: string): Promise<void> {
    await this.#locked(async () => {
      const changed = await this.#changed(true);
      if (changed.length > 0) throw new OverwriteError(changed.map(({ path }) => path));
      try {
        await this.#enter(branch, this.#at);
      } catch (error) {
        // What differs now is of the other branch. What stays is for discardAll.
        await this.#restore().catch(() => undefined);
        throw error;
      }
    });
  }

  /** Files that are not as the last commit has them. */
  async status(): Promise<Changed[]> {
    // The index is brought up to date on the way, unless another page may be changing it.
    return await navigator.locks.request(
      lockOf(this.#name),
      { ifAvailable: true },
      async (lock) => await this.#changed(lock !== null),
    );
  }

  async #changed(refresh: boolean): Promise<Changed[]> {
    const rows = await this.#git.statusMatrix({ ...this.#at, ref: "HEAD", refresh });
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
        this.#files.link(path, entry.mode === LINK);
        await this.#put(path, content);
      }
      await stage(this.#place, path, entry);
    });
  }

  /** Has everything be as the last commit has it. Files that git ignores stay. */
  async discardAll(): Promise<void> {
    await this.#locked(() => this.#restore());
  }

  async #restore(): Promise<void> {
    const changed = await this.#changed(true);
    const pathsThat = (are: Changed["how"]) =>
      changed.filter(({ how }) => how === are).map(({ path }) => path);
    // What is new goes first: it may be where something has to be again.
    await clear(this.#files, pathsThat("new"), pathsThat("deleted"));
    const head = await this.#head();
    if (head === undefined) {
      const staged = await this.#staged();
      await this.#git.remove({ ...this.#at, filepath: [...staged.keys()] });
    } else {
      await checkout(this.#place, head, { ...this.#at, force: true });
    }
    await this.#recall();
  }

  /** Commits these changes and nothing else; the id of the commit. */
  async commit(changes: Changed[], message: string, author: Author): Promise<string> {
    return await this.#locked(async () => {
      const ref = HEADS + (await this.#own());
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
        if (!paths.has(path)) await stage(this.#place, path, entry);
      }
      return await this.#git.commit({ ...this.#at, ref, message, author });
    });
  }

  async position(): Promise<Position> {
    const branch = await this.#current();
    if (branch === undefined) return { ahead: 0, behind: 0, more: false };
    const [ours, theirs] = await Promise.all([
      this.#resolve(HEADS + branch),
      this.#resolve(TRACKED + branch),
    ]);
    const read = (id: string) => this.#commitOf(id);
    if (theirs !== undefined && (await read(theirs)) === undefined) {
      // A fetch was cut off: what the node has is known by name alone.
      return { ahead: 0, behind: 1, more: true };
    }
    return await apart(ours, theirs, COUNTED, read);
  }

  /** Sends the branch to the node, under another name if `as` says so. */
  async push(signal: AbortSignal, progress: Hearing, as?: string): Promise<void> {
    await this.#locked(async () => {
      const branch = await this.#own();
      const at = { ...this.#with(progress, signal), remote };
      const refs = { ref: HEADS + branch, remoteRef: HEADS + (as ?? branch) };
      const said: string[] = [];
      const onMessage = (text: string) => void said.push(text.trim());
      await this.#online(signal, async (http) => {
        try {
          await this.#git.push({ ...at, ...refs, http, onMessage });
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
      const branch = await this.#own();
      const at = this.#with(progress, signal);
      await this.#fetch(branch, at, signal);
      const theirs = TRACKED + branch;
      const there = await this.#resolve(theirs);
      if (there === undefined) return;
      if ((await this.#head()) === undefined) return await this.#move(branch, there, at);
      const merged = await this.#git.merge({
        ...this.#at,
        ours: HEADS + branch,
        theirs,
        author,
        abortOnConflict: true,
        noUpdateBranch: true,
        mergeDriver: merge,
      });
      if (merged.alreadyMerged || merged.oid === undefined) return;
      await this.#move(branch, merged.oid, at);
    });
  }

  /** Has the branch, and all files, be as the node had them when it was asked last. */
  async reset(): Promise<void> {
    await this.#locked(async () => {
      const branch = await this.#own();
      const oid = await this.#tracked(branch);
      await this.#move(branch, oid, { ...this.#at, force: true });
    });
  }

  /** The branch that commits go to. */
  async #current(): Promise<string | undefined> {
    const ref = (await this.#git.currentBranch({ ...this.#at, fullname: true })) ?? "";
    return ref.startsWith(HEADS) ? ref.slice(HEADS.length) : undefined;
  }

  /** The branch that commits go to, which there has to be: nothing leads to others. */
  async #own(): Promise<string> {
    const branch = await this.#current();
    if (branch === undefined) throw new Error("the copy is on no branch: choose one first");
    return branch;
  }

  /** Where the node has a branch, as far as it is known here. */
  async #tracked(branch: string): Promise<string> {
    const oid = await this.#resolve(TRACKED + branch);
    if (oid === undefined) throw new Error(`no branch ${branch} is known at the node`);
    return oid;
  }

  /** Has the files, and then HEAD, be of a branch; it begins as the node has it. */
  async #enter(branch: string, options: Options): Promise<void> {
    const ref = HEADS + branch;
    const there = await this.#resolve(ref);
    const oid = there ?? (await this.#tracked(branch));
    await checkout(this.#place, oid, options);
    if (there === undefined) {
      await this.#git.writeRef({ ...this.#at, ref, value: oid, force: true });
      await this.#follow(branch);
    }
    const head = { ref: "HEAD", value: ref, symbolic: true, force: true };
    await this.#git.writeRef({ ...this.#at, ...head });
  }

  /** Says where a branch is from, for another git in a folder that was picked. */
  async #follow(branch: string): Promise<void> {
    // A quote would leave a configuration that nobody can read: git here does not escape it.
    if (branch.includes('"')) return;
    for (const [name, value] of Object.entries({ remote, merge: HEADS + branch })) {
      await this.#git.setConfig({ ...this.#at, path: `branch.${branch}.${name}`, value });
    }
  }

  /**
   * Has a branch, and the files, be as a commit is. The files go first: of what ends amid them
   * they are changes that nobody has committed, and none that take back what others did.
   */
  async #move(branch: string, oid: string, options: Options): Promise<void> {
    await checkout(this.#place, oid, options);
    await this.#git.writeRef({ ...this.#at, ref: HEADS + branch, value: oid, force: true });
  }

  get #at(): Place["at"] {
    return { fs: this.#fs, dir, cache: this.#cache };
  }

  get #place(): Place {
    return { git: this.#git, files: this.#files, at: this.#at };
  }

  #with(progress: Hearing, signal: AbortSignal) {
    const onProgress = ({ phase, loaded, total }: Isogit.GitProgressEvent) => {
      // What is done without the node ends here.
      signal.throwIfAborted();
      progress({ phase, loaded, total: total > 0 ? total : undefined });
    };
    return { ...this.#at, onProgress };
  }

  async #fetch(branch: string, options: Fetch, signal: AbortSignal): Promise<void> {
    const ref = HEADS + branch;
    await this.#online(signal, async (http) => {
      await this.#git.fetch({ ...options, http, remote, ref, remoteRef: ref, tags: false });
    });
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

  /** What a ref names, by its whole name. */
  async #resolve(ref: string): Promise<string | undefined> {
    try {
      // Where there is none, git here takes one that ends so.
      if ((await this.#git.expandRef({ ...this.#at, ref })) !== ref) return undefined;
      return await this.#git.resolveRef({ ...this.#at, ref });
    } catch (error) {
      if (hasCode(error, "NotFoundError")) return undefined;
      throw error;
    }
  }

  /** A commit; undefined if it is not here. */
  async #commitOf(oid: string): Promise<Commit | undefined> {
    try {
      const { commit } = await this.#git.readCommit({ ...this.#at, oid });
      return { parents: commit.parent, time: commit.committer.timestamp };
    } catch (error) {
      if (hasCode(error, "NotFoundError")) return undefined;
      throw error;
    }
  }

  /** Which of these files the last commit has, and how: the browser does not know of modes. */
  async #committed(wanted: Set<string>): Promise<Map<string, Staged>> {
    const head = await this.#head();
    if (head === undefined) return new Map();
    return await entriesOf(this.#place, this.#git.TREE({ ref: head }), wanted);
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
      this.#files.link(path, (await entry?.mode()) === LINK);
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
}

/** Whether a path leads to what git keeps for itself. */
function isOwn(path: string): boolean {
  return path.split("/").find((word) => word !== "" && word !== ".") === ".git";
}

function same(one: Bytes | undefined, other: Bytes | undefined): boolean {
  if (one === undefined || other === undefined) return one === other;
  return one.length === other.length && one.every((byte, at) => byte === other[at]);
}
