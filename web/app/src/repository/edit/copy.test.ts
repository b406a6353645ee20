import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { Reach } from "../../shell";
import { WorkingCopy } from "./copy";
import { ChangedError, OverwriteError } from "./errors";
import { locks, MemoryFolder, RealGit } from "./testing";

const AUTHOR = { name: "Ada", email: "ada@node.example" };
const REACH = { node: "node", via: "auto" } as unknown as Reach;

const node = vi.hoisted(() => ({ git: undefined as unknown }));

vi.mock("@alknet/client", () => ({
  gitHttp: () => ({ request: (node.git as RealGit).request, close: () => undefined }),
  repositoryUrl: (name: string) => `https://node.example/alknet/git/${name}`,
}));

let git: RealGit;
let folder: MemoryFolder;
/** Asked before a file is written. */
let writing: (name: string) => void;

let signal: AbortSignal;
const progress = () => undefined;
const bytes = (text: string) => new TextEncoder().encode(text);
const pull = (copy: WorkingCopy) => copy.pull(signal, progress, AUTHOR);

async function clone({ empty = false } = {}): Promise<WorkingCopy> {
  const branch = empty ? undefined : "main";
  const options = { repository: "notes", branch, first: "main", shallow: false, progress, signal };
  return await WorkingCopy.clone(folder.handle, REACH, options);
}

async function reopened(): Promise<WorkingCopy> {
  return (await WorkingCopy.open(folder.handle, REACH, "notes"))!;
}

async function text(copy: WorkingCopy, path: string): Promise<string | undefined> {
  const found = await copy.read(path);
  return found === undefined ? undefined : new TextDecoder().decode(found);
}

/** Writes without being asked what is there. */
async function write(copy: WorkingCopy, path: string, content: string): Promise<void> {
  await copy.write(path, bytes(content), await copy.read(path));
}

const summary = async (copy: WorkingCopy) =>
  (await copy.status()).map(({ path, how }) => `${how} ${path}`);

beforeEach(() => {
  locks.held = false;
  vi.stubGlobal("navigator", { locks });
  vi.spyOn(console, "error").mockReturnValue();
  node.git = git = new RealGit();
  signal = new AbortController().signal;
  writing = () => undefined;
  folder = new MemoryFolder((name) => writing(name));
});

afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
  git.close();
});

describe("a copy that cannot be opened", () => {
  test("is not taken for one that was never whole", async () => {
    git.commit({ a: "a\n" });
    await clone();
    const own = await folder.getDirectoryHandle(".git");
    const config = await own.getFileHandle("config");
    config.getFile = () => Promise.reject(new DOMException("later", "NotReadableError"));
    await expect(WorkingCopy.open(folder.handle, REACH, "notes")).rejects.toThrow("later");
    const index = await own.getFileHandle("index");
    own.entries.delete("config");
    expect(await WorkingCopy.open(folder.handle, REACH, "notes")).toBeUndefined();
    expect((await index.getFile()).size).toBeGreaterThan(0);
  });

  test("tells of an index that is broken", async () => {
    git.commit({ a: "a\n" });
    await clone();
    const own = await folder.getDirectoryHandle(".git");
    const writing = await (await own.getFileHandle("index")).createWritable();
    await writing.write("DIRC and no more");
    await writing.close();
    await expect(WorkingCopy.open(folder.handle, REACH, "notes")).rejects.toThrow();
  });
});

describe("a pull that does not come to its end", () => {
  test.each([
    ["a disk is full", () => new DOMException("full", "QuotaExceededError")],
    ["the page is cut off", () => new Error("cut off")],
  ])("takes nothing back that others did, when %s", async (_, why) => {
    git.commit({ a: "1\n", b: "1\n", c: "1\n" });
    const copy = await clone();
    const before = git.run(["rev-parse", "main"]).trim();
    git.commit({ a: "2\n", b: "2\n", c: "2\n", d: "new\n" });
    writing = (name) => {
      if (name === "b") throw why();
    };
    await expect(pull(copy)).rejects.toThrow();
    writing = () => undefined;
    const later = await reopened();
    // What the files have from there may be committed; what they have not is no change.
    for (const { path, how } of await later.status()) {
      expect(how).not.toBe("deleted");
      expect(await text(later, path)).not.toBe("1\n");
    }
    expect(await later.position()).toMatchObject({ ahead: 0, behind: 1 });
    // And pulling again brings the rest.
    await pull(later);
    expect(await summary(later)).toEqual([]);
    expect(await text(later, "b")).toBe("2\n");
    expect(git.run(["rev-parse", "main~1"]).trim()).toBe(before);
  });

  test("tells which files are in the way, and changes nothing", async () => {
    git.commit({ a: "1\n", b: "1\n" });
    const copy = await clone();
    git.commit({ a: "2\n", b: "2\n" });
    await write(copy, "a", "ours\n");
    const error = await pull(copy).catch((error: unknown) => error);
    expect(error).toBeInstanceOf(OverwriteError);
    expect((error as Error).message).toContain(" a first");
    expect(await text(copy, "b")).toBe("1\n");
    expect(await summary(copy)).toEqual(["modified a"]);
    expect(await copy.position()).toMatchObject({ ahead: 0, behind: 1 });
  });

  test("leaves changes of other files as they are", async () => {
    git.commit({ a: "1\n", b: "1\n" });
    const copy = await clone();
    git.commit({ b: "2\n" });
    await write(copy, "a", "ours\n");
    await pull(copy);
    expect(await summary(copy)).toEqual(["modified a"]);
    expect(await text(copy, "b")).toBe("2\n");
    expect(await copy.position()).toMatchObject({ ahead: 0, behind: 0 });
  });
});

test("what both did is merged, and comes to the node as it is", async () => {
  git.commit({ a: "1\n", b: "1\n" });
  const copy = await clone();
  await write(copy, "a", "ours\n");
  await copy.commit(await copy.status(), "ours\n", AUTHOR);
  const theirs = git.commit({ b: "theirs\n" });
  await pull(copy);
  expect(await summary(copy)).toEqual([]);
  await copy.push(signal, progress);
  expect(git.run(["rev-parse", "main^2"]).trim()).toBe(theirs);
  expect(git.run(["show", "main:a"])).toBe("ours\n");
  expect(git.run(["show", "main:b"])).toBe("theirs\n");
  git.run(["fsck", "--strict"]);
});

test("what was a file at the node and is a folder now is pulled, and the other way round", async () => {
  git.commit({ a: "1\n", "d/b": "1\n", "d/c/e": "1\n", z: "1\n" });
  const copy = await clone();
  git.commit({ a: undefined, d: undefined });
  git.commit({ "a/b": "2\n", d: "2\n", z: "2\n" });
  await pull(copy);
  expect(await summary(copy)).toEqual([]);
  expect(await text(copy, "a/b")).toBe("2\n");
  expect(await text(copy, "d")).toBe("2\n");
  // Nothing of that may be lost: what is in the folder is nobody's but here.
  await write(copy, "a/mine", "mine\n");
  git.commit({ a: undefined });
  git.commit({ a: "3\n", z: "3\n" });
  await expect(pull(copy)).rejects.toThrow();
  expect(await text(copy, "a/mine")).toBe("mine\n");
});

test("before the first commit here, what others have begun with is pulled", async () => {
  const copy = await clone({ empty: true });
  expect(await summary(copy)).toEqual([]);
  await write(copy, "mine", "mine\n");
  git.commit({ a: "1\n" });
  await pull(copy);
  expect(await text(copy, "a")).toBe("1\n");
  expect(await summary(copy)).toEqual(["new mine"]);
});

test("a branch is dropped files first", async () => {
  git.commit({ a: "1\n", b: "1\n" });
  const copy = await clone();
  await write(copy, "a", "ours\n");
  await copy.commit(await copy.status(), "ours\n", AUTHOR);
  writing = (name) => {
    if (name === "a") throw new DOMException("full", "QuotaExceededError");
  };
  await expect(copy.reset()).rejects.toThrow("no more room");
  // The commit is there still.
  expect(await copy.position()).toMatchObject({ ahead: 1 });
  writing = () => undefined;
  await copy.reset();
  expect(await text(copy, "a")).toBe("1\n");
  expect(await summary(copy)).toEqual([]);
  expect(await copy.position()).toMatchObject({ ahead: 0, behind: 0 });
});

describe("discarding", () => {
  test("has a file be as the last commit has it, and no other one", async () => {
    git.commit({ a: "1\n", "a.txt": "1\n", "d/a": "1\n" });
    git.commit({ run: "#!/bin/sh\n" }, "100755");
    git.commit({ start: "run" }, "120000");
    const copy = await clone();
    for (const path of ["a", "a.txt", "d/a", "run"]) await write(copy, path, "ours\n");
    await write(copy, "start", "elsewhere");
    await copy.remove("d/a");
    const changes = await copy.status();
    expect(changes).toHaveLength(5);
    for (const change of changes) if (change.path !== "a.txt") await copy.discard(change);
    expect(await summary(copy)).toEqual(["modified a.txt"]);
    expect(await text(copy, "a.txt")).toBe("ours\n");
    expect(await text(copy, "d/a")).toBe("1\n");
    await copy.commit(await copy.status(), "one\n", AUTHOR);
    await copy.push(signal, progress);
    expect(git.run(["diff", "--name-only", "main~1", "main"])).toBe("a.txt\n");
    expect(git.run(["ls-tree", "main", "run", "start"])).toMatch(/^100755.*\n120000/);
  });

  test("removes a new file alone", async () => {
    git.commit({ a: "1\n" });
    const copy = await clone();
    await write(copy, "new", "new\n");
    await copy.discard({ path: "new", how: "new" });
    expect(await text(copy, "new")).toBeUndefined();
    expect(await summary(copy)).toEqual([]);
  });
});

test("an error is none that makes every file new", async () => {
  git.commit({ a: "1\n" });
  const copy = await clone();
  const own = await folder.getDirectoryHandle(".git");
  const objects = await own.getDirectoryHandle("objects");
  const kept = objects.entries.get("pack")!;
  objects.entries.delete("pack");
  const later = await reopened();
  await expect(later.status()).rejects.toThrow();
  objects.entries.set("pack", kept);
  expect(await summary(copy)).toEqual([]);
});

describe("a commit", () => {
  test("has what was chosen, not what an earlier one has left behind", async () => {
    git.commit({ a: "1\n", b: "1\n", c: "1\n" });
    const copy = await clone();
    for (const path of ["a", "b", "new"]) await write(copy, path, "ours\n");
    await copy.remove("c");
    const all = await copy.status();
    // It fails when everything is staged.
    writing = (name) => {
      if (name === "main") throw new DOMException("full", "QuotaExceededError");
    };
    await expect(copy.commit(all, "all\n", AUTHOR)).rejects.toThrow("no more room");
    writing = () => undefined;
    const chosen = (await copy.status()).filter(({ path }) => path === "a");
    await copy.commit(chosen, "a\n", AUTHOR);
    await copy.push(signal, progress);
    expect(git.run(["diff", "--name-only", "main~1", "main"])).toBe("a\n");
    expect((await summary(copy)).sort()).toEqual(["deleted c", "modified b", "new new"]);
  });

  test("leaves the modes of other files as they are", async () => {
    git.commit({ a: "1\n" });
    git.commit({ run: "#!/bin/sh\n" }, "100755");
    const copy = await clone();
    for (const [path, content] of [
      ["run", "#!/bin/sh\ntrue\n"],
      ["a", "2\n"],
      ["run", "#!/bin/sh\nfalse\n"],
    ] as const) {
      await write(copy, path, content);
      expect(await summary(copy)).toEqual([`modified ${path}`]);
      await copy.commit(await copy.status(), path, AUTHOR);
      expect(await summary(copy)).toEqual([]);
    }
    await copy.push(signal, progress);
    expect(git.run(["ls-tree", "main", "run"])).toMatch(/^100755/);
    expect(git.run(["log", "-3", "--summary", "--format="])).toBe("");
  });

  test("has files as they are when it is made", async () => {
    git.commit({ a: "1\n", b: "1\n" });
    const copy = await clone();
    await copy.remove("a");
    const seen = await copy.status();
    // Another page brings it back, with something else in it.
    const other = await reopened();
    await other.write("a", bytes("2\n"), undefined);
    await copy.commit(seen, "a\n", AUTHOR);
    await copy.push(signal, progress);
    expect(git.run(["show", "main:a"])).toBe("2\n");
  });
});

describe("two pages at once", () => {
  test("do not overwrite each other's files unasked", async () => {
    git.commit({ a: "1\n" });
    const [one, other] = [await clone(), await reopened()];
    const opened = await one.read("a");
    await write(other, "a", "theirs\n");
    const error = await one.write("a", bytes("ours\n"), opened).catch((error: unknown) => error);
    expect(error).toBeInstanceOf(ChangedError);
    expect(await text(one, "a")).toBe("theirs\n");
    await one.write("a", bytes("ours\n"), (error as ChangedError).there);
    expect(await text(other, "a")).toBe("ours\n");
    // Nor do they bring back what was removed.
    await other.remove("a");
    await expect(one.write("a", bytes("x"), bytes("ours\n"))).rejects.toThrow(ChangedError);
  });

  test("do not write git's index while the other one may", async () => {
    git.commit({ a: "1\n" });
    const copy = await clone();
    await write(copy, "a", "2\n");
    // From here on the index knows less of the file than there is to know.
    await copy.discard({ path: "a", how: "modified" });
    const own = await folder.getDirectoryHandle(".git");
    const index = async () => (await (await own.getFileHandle("index")).getFile()).lastModified;
    const before = await index();
    locks.held = true;
    expect(await summary(copy)).toEqual([]);
    expect(await index()).toBe(before);
    locks.held = false;
    expect(await summary(copy)).toEqual([]);
    expect(await index()).not.toBe(before);
  });

  test("commit one after the other", async () => {
    git.commit({ a: "1\n", b: "1\n" });
    const [one, other] = [await clone(), await reopened()];
    await one.status();
    await write(one, "a", "2\n");
    await write(other, "b", "2\n");
    const of = (path: string) => [{ path, how: "modified" as const }];
    await one.commit(of("a"), "a\n", AUTHOR);
    await other.commit(of("b"), "b\n", AUTHOR);
    await other.push(signal, progress);
    expect(git.run(["show", "main:a"])).toBe("2\n");
    expect(git.run(["show", "main:b"])).toBe("2\n");
    expect(git.run(["rev-list", "--count", "main"]).trim()).toBe("3");
  });
});

test("what git keeps for itself is not edited", async () => {
  git.commit({ a: "1\n" });
  const copy = await clone();
  for (const path of [".git/config", "./.git/config", "/.git/config"]) {
    expect(await copy.read(path)).toBeUndefined();
    await expect(copy.write(path, bytes("x"), undefined)).rejects.toThrow("git's own");
    await expect(copy.remove(path)).rejects.toThrow("git's own");
  }
  expect(await copy.list(".git")).toBeUndefined();
});
