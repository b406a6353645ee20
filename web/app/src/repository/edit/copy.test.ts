import { describe, expect, test, vi } from "vitest";
import { WorkingCopy } from "./copy";
import { ChangedError, conflicts } from "./errors";
import {
  AUTHOR,
  bytes,
  clone,
  disk,
  folder,
  git,
  locks,
  progress,
  pull,
  REACH,
  reopened,
  signal,
  staged,
  summary,
  text,
  write,
} from "./testing";

vi.mock("@alknet/client", async () => (await import("./testing")).client);

staged();

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

describe("a file that both sides have changed in other lines", () => {
  const lines = (first: string, between: string, last: string) =>
    `${first}\n1\n${between}\n2\n${last}\n`;

  async function both(of: (text: string) => Uint8Array, between: string) {
    git.commit({ a: of(lines("one", between, "two")) });
    const copy = await clone();
    const ours = of(lines("ours", between, "two")) as Uint8Array<ArrayBuffer>;
    await copy.write("a", ours, await copy.read("a"));
    await copy.commit(await copy.status(), "ours\n", AUTHOR);
    git.commit({ a: of(lines("one", between, "theirs")) });
    return { copy, ours };
  }

  test.each([
    ["Latin-1", (text: string) => new Uint8Array(Buffer.from(text, "latin1"))],
    ["UTF-16", (text: string) => new Uint8Array(Buffer.from(text, "utf16le"))],
    ["binary", (text: string) => new Uint8Array(Buffer.from(`${text}\0`))],
  ])("and is %s is a conflict, and stays as it is", async (_, of) => {
    const { copy, ours } = await both(of, "Müller");
    const error = await pull(copy).catch((error: unknown) => error);
    expect(conflicts(error)).toEqual(["a"]);
    expect(await copy.read("a")).toEqual(ours);
    expect(await summary(copy)).toEqual([]);
    expect(await copy.position()).toEqual({ ahead: 1, behind: 1, more: false });
  });

  test("has all its characters afterwards", async () => {
    const odd = "a\u2028b\u2029c\rd\r\n\ufeffé😀\v\f\u0085";
    const { copy } = await both((text) => new Uint8Array(Buffer.from(text)), odd);
    await pull(copy);
    expect(await text(copy, "a")).toBe(lines("ours", odd, "theirs"));
    await copy.push(signal, progress);
    expect(git.run(["show", "main:a"])).toBe(lines("ours", odd, "theirs"));
  });
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

describe("discarding all", () => {
  test("leaves nothing but what git ignores", async () => {
    git.commit({ ".gitignore": "*.log\nbuild\n", a: "1\n", "d/a": "1\n", "d/b": "1\n" });
    const copy = await clone();
    for (const path of ["a", "new", "d/new", "n/e/w", "k/new", "k/x.log", "build/x", "d/y.log"]) {
      await write(copy, path, "ours\n");
    }
    await copy.remove("d/a");
    await copy.remove("d/b");
    await copy.discardAll();
    expect(await summary(copy)).toEqual([]);
    expect([...folder.entries.keys()].toSorted()).toEqual([
      ".git",
      ".gitignore",
      "a",
      "build",
      "d",
      "k",
    ]);
    for (const path of ["k/x.log", "build/x", "d/y.log"]) {
      expect(await text(copy, path)).toBe("ours\n");
    }
    for (const path of ["a", "d/a", "d/b"]) expect(await text(copy, path)).toBe("1\n");
    expect(await copy.list("k")).toHaveLength(1);
  });

  test("does not lose what git ignores for a file that has to be in its place", async () => {
    git.commit({ ".gitignore": "*.log\n", a: "1\n", b: "1\n" });
    const copy = await clone();
    await copy.remove("a");
    await write(copy, "a/x.log", "ours\n");
    await expect(copy.discardAll()).rejects.toThrow("not empty");
    expect(await text(copy, "a/x.log")).toBe("ours\n");
  });

  test("goes before the first commit too", async () => {
    const copy = await clone({ empty: true });
    await write(copy, ".gitignore", "*.log\n");
    await write(copy, "x.log", "log\n");
    expect(await summary(copy)).toEqual(["new .gitignore"]);
    await write(copy, "d/new", "new\n");
    disk.writing = (name) => {
      if (name === "main") throw new DOMException("full", "QuotaExceededError");
    };
    await expect(copy.commit(await copy.status(), "one\n", AUTHOR)).rejects.toThrow("no more room");
    disk.writing = () => undefined;
    await copy.remove(".gitignore");
    await write(copy, ".gitignore", "*.log\n# more\n");
    await copy.discardAll();
    expect([...folder.entries.keys()].toSorted()).toEqual([".git", "x.log"]);
    expect(await summary(copy)).toEqual(["new x.log"]);
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
    disk.writing = (name) => {
      if (name === "main") throw new DOMException("full", "QuotaExceededError");
    };
    await expect(copy.commit(all, "all\n", AUTHOR)).rejects.toThrow("no more room");
    disk.writing = () => undefined;
    const chosen = (await copy.status()).filter(({ path }) => path === "a");
    await copy.commit(chosen, "a\n", AUTHOR);
    await copy.push(signal, progress);
    expect(git.run(["diff", "--name-only", "main~1", "main"])).toBe("a\n");
    expect((await summary(copy)).sort()).toEqual(["deleted c", "modified b", "new new"]);
  });

  test("is whole when there was no room before", async () => {
    git.commit({ a: "1\n" });
    const copy = await clone();
    await write(copy, "a", "2\n");
    await write(copy, "d/new", "new\n");
    const commit = async () => copy.commit(await copy.status(), "all\n", AUTHOR);
    // Each object in its turn, of which the browser makes an empty file first.
    for (let objects = 0; objects < 5; objects++) {
      let left = Math.min(objects, 1);
      disk.writing = (name) => {
        if (/^[0-9a-f]{38}$/.test(name) && left-- <= 0) {
          throw new DOMException("full", "QuotaExceededError");
        }
      };
      await expect(commit()).rejects.toThrow("no more room");
    }
    disk.writing = () => undefined;
    await commit();
    await copy.push(signal, progress);
    expect(git.run(["show", "main:a", "main:d/new"])).toBe("2\nnew\n");
    git.run(["fsck", "--strict"]);
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

  test("make folders again that the other one has removed", async () => {
    git.commit({ "docs/a": "1\n", "docs/in/b": "1\n" });
    const copy = await clone();
    await copy.status();
    // As a shell does in a folder that was picked.
    folder.entries.delete("docs");
    git.commit({ "docs/x": "2\n", "docs/in/y": "2\n" });
    await pull(copy);
    expect(await text(copy, "docs/x")).toBe("2\n");
    expect(await summary(copy)).toEqual(["deleted docs/a", "deleted docs/in/b"]);
    folder.entries.delete("docs");
    for (const change of await copy.status()) await copy.discard(change);
    expect(await text(copy, "docs/in/b")).toBe("1\n");
    expect(await summary(copy)).toEqual([]);
    folder.entries.delete("docs");
    await copy.write("docs/in/new", bytes("new\n"), undefined);
    expect(await text(copy, "docs/in/new")).toBe("new\n");
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

describe("how far a copy is from the node", () => {
  test("is told of long histories too", async () => {
    git.commit({ a: "1\n" });
    git.commits(600);
    const copy = await clone();
    expect(await copy.position()).toEqual({ ahead: 0, behind: 0, more: false });
    await write(copy, "a", "2\n");
    await copy.commit(await copy.status(), "2\n", AUTHOR);
    expect(await copy.position()).toEqual({ ahead: 1, behind: 0, more: false });
    const theirs = git.commit({ b: "1\n" });
    await expect(copy.push(signal, progress)).rejects.toThrow("behind");
    await pull(copy);
    expect(await copy.position()).toEqual({ ahead: 2, behind: 0, more: false });
    await copy.push(signal, progress);
    expect(await copy.position()).toEqual({ ahead: 0, behind: 0, more: false });
    expect(git.run(["rev-parse", "main^2"]).trim()).toBe(theirs);
  });

  test("is what is known after a fetch that was cut off", async () => {
    git.commit({ a: "1\n" });
    const copy = await clone();
    git.commit({ a: "2\n" });
    disk.writing = (name) => {
      if (name.endsWith(".pack")) throw new Error("cut off");
    };
    await expect(pull(copy)).rejects.toThrow("cut off");
    disk.writing = () => undefined;
    expect(await copy.position()).toEqual({ ahead: 0, behind: 1, more: true });
    await pull(copy);
    expect(await copy.position()).toEqual({ ahead: 0, behind: 0, more: false });
  });
});
