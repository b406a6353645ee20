// Files for isomorphic-git in a folder that the browser gives: of its own, or of the person's.

/** What isomorphic-git goes by. */
class FileError extends Error {
  readonly code: string;

  constructor(code: string, path: string, why: string, cause?: unknown) {
    super(`${path}: ${why}`, { cause });
    this.code = code;
  }
}

/** What is known of a file. Times and size are what tells whether it has changed. */
export interface Stats {
  type: "file" | "dir";
  mode: number;
  size: number;
  ino: number;
  mtimeMs: number;
  ctimeMs: number;
  uid: number;
  gid: number;
  dev: number;
  isFile(): boolean;
  isDirectory(): boolean;
  isSymbolicLink(): boolean;
}

type Encoding = string | { encoding?: string } | undefined;

/**
 * A folder as isomorphic-git's `fs`. The browser has neither modes nor symbolic links: a link
 * is a file that holds its target, as git has it where there are none, and is one by being
 * known here. No name leads out of the folder, into a `.git` that is not the copy's own, or to a
 * hook that git would run. A browser makes a file before it has anything in it: in `.git`, where
 * nothing else is empty, such a file is none, as a page may have ended then.
 */
export class FolderFs {
  readonly #root: FileSystemDirectoryHandle;
  readonly #folders = new Map<string, Promise<FileSystemDirectoryHandle>>();

  /** Paths of files that stand for links. */
  readonly #links = new Set<string>();

  /** Paths of git's own files that have something in them. */
  readonly #whole = new Set<string>();

  constructor(root: FileSystemDirectoryHandle) {
    this.#root = root;
  }

  /** Says that a file stands for a symbolic link, or is none. */
  link(path: string, is: boolean): void {
    const known = wordsOf(path).join("/");
    if (is) this.#links.add(known);
    else this.#links.delete(known);
  }

  async readFile(path: string, encoding?: Encoding): Promise<Uint8Array<ArrayBuffer> | string> {
    const file = await this.#file(path);
    const as = typeof encoding === "string" ? encoding : encoding?.encoding;
    return as === undefined ? new Uint8Array(await file.arrayBuffer()) : await file.text();
  }

  async writeFile(path: string, content: Uint8Array<ArrayBuffer> | string): Promise<void> {
    await this.#within(path, async (folder, name) => {
      const handle = await folder.getFileHandle(name, { create: true });
      const writing = await handle.createWritable();
      try {
        await writing.write(content);
        await writing.close();
      } catch (error) {
        await writing.abort().catch(() => undefined);
        throw error;
      }
    });
  }

  async unlink(path: string): Promise<void> {
    await this.#file(path);
    await this.#remove(path, false);
  }

  async readdir(path: string): Promise<string[]> {
    const words = wordsOf(path);
    const folder = await this.#folder(words);
    const names = await attempt(path, async () => {
      const names: string[] = [];
      for await (const name of folder.keys()) names.push(name);
      return names;
    });
    if (!isOwn(words)) return names;
    const there = await Promise.all(names.map((name) => this.#isThere(`${path}/${name}`)));
    return names.filter((_, at) => there[at]);
  }

  async mkdir(path: string): Promise<void> {
    const words = wordsOf(path);
    if (words.length === 0) throw new FileError("EEXIST", path, "this is the folder itself");
    const make = (folder: FileSystemDirectoryHandle, name: string) =>
      folder.getDirectoryHandle(name, { create: true });
    const made = await this.#within(path, make, "ENOTDIR");
    this.#folders.set(words.join("/"), Promise.resolve(made));
  }

  async rmdir(path: string): Promise<void> {
    await this.#folder(wordsOf(path));
    await this.#remove(path, false);
  }

  async rm(path: string, { recursive = false }: { recursive?: boolean } = {}): Promise<void> {
    await this.#remove(path, recursive);
  }

  async stat(path: string): Promise<Stats> {
    const words = wordsOf(path);
    if (words.length === 0) return stats();
    try {
      return stats(await this.#file(path));
    } catch (error) {
      if (!(error instanceof FileError) || error.code !== "EISDIR") throw error;
      return stats();
    }
  }

  async lstat(path: string): Promise<Stats> {
    const found = await this.stat(path);
    if (!this.#links.has(wordsOf(path).join("/"))) return found;
    const isFile = () => false;
    return { ...found, mode: 0o120_000, isFile, isSymbolicLink: () => true };
  }

  async readlink(path: string): Promise<string> {
    return (await this.readFile(path, "utf8")) as string;
  }

  async symlink(target: string, path: string): Promise<void> {
    await this.writeFile(path, target);
    this.link(path, true);
  }

  async #file(path: string): Promise<File> {
    const { folder, name } = await this.#parent(path, false);
    const file = await attempt(path, async () => (await folder.getFileHandle(name)).getFile());
    if (file.size === 0 && isOwn(wordsOf(path))) {
      throw new FileError("ENOENT", path, "the file was never written");
    }
    return file;
  }

  /** Whether there is a folder of git's own, or a file that was written. */
  async #isThere(path: string): Promise<boolean> {
    const own = wordsOf(path).join("/");
    if (this.#whole.has(own)) return true;
    try {
      await this.stat(path);
      this.#whole.add(own);
      return true;
    } catch (error) {
      if (error instanceof FileError && error.code === "ENOENT") return false;
      throw error;
    }
  }

  async #remove(path: string, recursive: boolean): Promise<void> {
    const { folder, name } = await this.#parent(path, true);
    await attempt(path, () => folder.removeEntry(name, { recursive }));
    const gone = wordsOf(path).join("/");
    const isGone = (known: string) => known === gone || known.startsWith(`${gone}/`);
    for (const all of [this.#links, this.#whole, this.#folders]) {
      for (const known of all.keys()) if (isGone(known)) all.delete(known);
    }
  }

  /**
   * Makes something in the folder that is on the way to it; once more if that is gone: another
   * page, or a program, may have removed a folder that is known here, and made it again.
   */
  async #within<T>(
    path: string,
    work: (folder: FileSystemDirectoryHandle, name: string) => Promise<T>,
    mismatch?: string,
  ): Promise<T> {
    const { folder, name } = await this.#parent(path, true);
    try {
      return await attempt(path, () => work(folder, name), mismatch);
    } catch (error) {
      if (!(error instanceof FileError) || error.code !== "ENOENT") throw error;
      const words = wordsOf(path);
      words.forEach((_, at) => this.#folders.delete(words.slice(0, at).join("/")));
      const now = await this.#parent(path, true);
      return await attempt(path, () => work(now.folder, name), mismatch);
    }
  }

  /** The folder that something is in, or would be. */
  async #parent(
    path: string,
    write: boolean,
  ): Promise<{ folder: FileSystemDirectoryHandle; name: string }> {
    const words = wordsOf(path);
    const name = words.at(-1);
    if (name === undefined) throw new FileError("EISDIR", path, "this is the folder itself");
    if (write) check(path, words);
    return { folder: await this.#folder(words.slice(0, -1)), name };
  }

  async #folder(words: string[]): Promise<FileSystemDirectoryHandle> {
    const name = words.at(-1);
    if (name === undefined) return this.#root;
    const path = words.join("/");
    let found = this.#folders.get(path);
    if (found === undefined) {
      const parent = this.#folder(words.slice(0, -1));
      const open = async () => (await parent).getDirectoryHandle(name);
      found = attempt(path, open, "ENOTDIR");
      this.#folders.set(path, found);
      // What is not there may be made yet.
      found.catch(() => this.#folders.delete(path));
    }
    return await found;
  }
}

/** The names on a path. */
function wordsOf(path: string): string[] {
  return path.split("/").filter((word) => word !== "" && word !== ".");
}

/** Whether this is git's own folder, or in it. */
function isOwn(words: string[]): boolean {
  return words[0] === ".git";
}

/** Refuses to write what git, or a file system with ideas of its own, would run or obey. */
function check(path: string, words: string[]): void {
  const own = isOwn(words);
  const odd = words.some((word, at) => (isGit(word) && !(own && at === 0)) || word === "..");
  const hook = own && words[1]?.toLowerCase() === "hooks" && words.length > 2;
  if (odd || hook) throw new FileError("EPERM", path, "no repository may have such a file");
}

/** Whether some file system takes this name for `.git`. */
function isGit(word: string): boolean {
  const plain = word
    .normalize("NFKC")
    .replace(/\p{Cf}/gu, "")
    .split(":", 1)[0]!;
  return /^(\.git|git~\d+)[. ]*$/i.test(plain);
}

function stats(file?: File): Stats {
  const time = file?.lastModified ?? 0;
  return {
    type: file === undefined ? "dir" : "file",
    mode: file === undefined ? 0o040_000 : 0o100_644,
    size: file?.size ?? 0,
    ino: 0,
    mtimeMs: time,
    ctimeMs: time,
    uid: 0,
    gid: 0,
    dev: 0,
    isFile: () => file !== undefined,
    isDirectory: () => file === undefined,
    isSymbolicLink: () => false,
  };
}

/** `mismatch` is what it means that a file is a folder, or the other way round. */
async function attempt<T>(path: string, work: () => Promise<T>, mismatch = "EISDIR"): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw errorOf(path, error, mismatch);
  }
}

function errorOf(path: string, error: unknown, mismatch: string): unknown {
  if (error instanceof TypeError) {
    return new FileError("EINVAL", path, "the browser allows no such name", error);
  }
  if (!(error instanceof DOMException)) return error;
  switch (error.name) {
    case "NotFoundError":
      return new FileError("ENOENT", path, "there is no such file", error);
    case "TypeMismatchError":
      return new FileError(mismatch, path, "it is something else", error);
    case "InvalidModificationError":
      return new FileError("ENOTEMPTY", path, "the folder is not empty", error);
    case "QuotaExceededError":
      return new FileError("ENOSPC", path, "the browser has no more room for this page", error);
    case "NotAllowedError":
      return new FileError("EACCES", path, "the browser does not allow it", error);
    default:
      return error;
  }
}
