// Where working copies are: in the browser's own storage, or in folders that were picked.

import { transact } from "../../database";

/** A folder that holds a working copy, or is to hold one. */
export interface Home {
  kind: "browser" | "folder";
  root: FileSystemDirectoryHandle;
}

interface Picker {
  showDirectoryPicker?: (options: {
    id: string;
    mode: "readwrite";
  }) => Promise<FileSystemDirectoryHandle>;
}

interface Asked {
  queryPermission?: (options: { mode: "readwrite" }) => Promise<PermissionState>;
  requestPermission?: (options: { mode: "readwrite" }) => Promise<PermissionState>;
}

const ROOT = "alknet-git";
const AT = { database: ROOT, store: "folders" };

/** The working copies of one person in this browser. */
export class Copies {
  readonly #identity: string;

  constructor(identity: string) {
    this.#identity = identity;
  }

  /** Whether folders can be picked here. */
  static get picks(): boolean {
    return "showDirectoryPicker" in window;
  }

  /** Whether the browser keeps what is in its own storage when it runs out of room. */
  static async areKept(): Promise<boolean> {
    return (await navigator.storage.persisted?.().catch(() => false)) ?? false;
  }

  /** The repositories of which there are working copies here. */
  async names(): Promise<string[]> {
    const keys = await transact<IDBValidKey[]>(AT, "readonly", (store) => store.getAllKeys());
    const before = this.#key("");
    const names = keys.map(String).filter((key) => key.startsWith(before));
    const found = new Set(names.map((key) => key.slice(before.length)));
    const all = await present(() => this.#all(false));
    for await (const name of all?.keys() ?? []) found.add(decodeURIComponent(name));
    return [...found].toSorted();
  }

  /** Where the working copy of a repository is, if there is one. */
  async find(repository: string): Promise<Home | undefined> {
    const picked = await transact<FileSystemDirectoryHandle | undefined>(AT, "readonly", (store) =>
      store.get(this.#key(repository)),
    );
    if (picked !== undefined) return { kind: "folder", root: picked };
    return await present(async () => {
      const all = await this.#all(false);
      return { kind: "browser", root: await all.getDirectoryHandle(encoded(repository)) };
    });
  }

  /**
   * An empty folder in the browser's own storage. What is there goes: nobody may call this
   * where there is a whole copy.
   */
  async make(repository: string): Promise<Home> {
    // Without this a browser may throw it away when it runs out of room.
    await navigator.storage.persist?.().catch(() => false);
    const all = await this.#all(true);
    const name = encoded(repository);
    await present(() => all.removeEntry(name, { recursive: true }));
    return { kind: "browser", root: await all.getDirectoryHandle(name, { create: true }) };
  }

  /** A folder in one that is picked now, named as the repository is. */
  async pick(repository: string): Promise<Home | undefined> {
    const picker = window as unknown as Required<Picker>;
    let outer: FileSystemDirectoryHandle;
    try {
      outer = await picker.showDirectoryPicker({ id: "alknet-git", mode: "readwrite" });
    } catch (error) {
      if (error instanceof DOMException && error.name === "AbortError") return undefined;
      throw error;
    }
    const name = repository.slice(repository.lastIndexOf("/") + 1);
    const root = await outer.getDirectoryHandle(name, { create: true });
    for await (const _ of root.keys()) {
      throw new Error(`${outer.name} has a folder ${name} already, and it is not empty`);
    }
    return { kind: "folder", root };
  }

  /** Finds it again on a later page. */
  async keep(repository: string, { kind, root }: Home): Promise<void> {
    const key = this.#key(repository);
    // A folder that was picked once and is of no use any more would be found first.
    await transact(AT, "readwrite", (store) =>
      kind === "browser" ? store.delete(key) : store.put(root, key),
    );
  }

  /** Takes a copy along to what its repository is called now, where there is none yet. */
  async move(repository: string, to: string, home: Home): Promise<void> {
    if (home.kind === "folder") {
      await this.keep(to, home);
    } else {
      const { root } = await this.make(to);
      await copyOf(home.root, root);
    }
    await this.forget(repository, home);
  }

  /** Removes what is in the browser's own storage; a picked folder stays as it is. */
  async forget(repository: string, { kind }: Home): Promise<void> {
    if (kind === "folder") {
      await transact(AT, "readwrite", (store) => store.delete(this.#key(repository)));
      return;
    }
    const all = await this.#all(false);
    await all.removeEntry(encoded(repository), { recursive: true });
  }

  async #all(create: boolean): Promise<FileSystemDirectoryHandle> {
    const storage = await navigator.storage.getDirectory();
    const root = await storage.getDirectoryHandle(ROOT, { create });
    return await root.getDirectoryHandle(encoded(this.#identity), { create });
  }

  #key(repository: string): string {
    return `${this.#identity}\n${repository}`;
  }
}

/** Whether the person lets the page into the folder; `ask` needs their click. */
export async function allowed({ root }: Home, ask: boolean): Promise<boolean> {
  const asked = root as FileSystemDirectoryHandle & Asked;
  const mode = { mode: "readwrite" } as const;
  const state = ask ? await asked.requestPermission?.(mode) : await asked.queryPermission?.(mode);
  return state === undefined || state === "granted";
}

/** Copies a folder; last what says that the copy is whole: git's own configuration. */
async function copyOf(from: FileSystemDirectoryHandle, to: FileSystemDirectoryHandle) {
  const rank = (name: string) => (name === ".git" || name === "config" ? 1 : 0);
  const entries: FileSystemHandle[] = [];
  for await (const entry of from.values()) entries.push(entry);
  for (const entry of entries.toSorted((one, other) => rank(one.name) - rank(other.name))) {
    const { name } = entry;
    if (entry.kind === "directory") {
      const inner = await to.getDirectoryHandle(name, { create: true });
      await copyOf(entry as FileSystemDirectoryHandle, inner);
    } else {
      const file = await (entry as FileSystemFileHandle).getFile();
      const writing = await (await to.getFileHandle(name, { create: true })).createWritable();
      await file.stream().pipeTo(writing);
    }
  }
}

/** What there is; undefined where nothing is. */
async function present<T>(work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof DOMException && error.name === "NotFoundError") return undefined;
    throw error;
  }
}

/** A name that is one in any file system. */
function encoded(name: string): string {
  return encodeURIComponent(name).replaceAll(".", "%2E").replaceAll("*", "%2A");
}
