import { createHash } from "node:crypto";
import { describe, expect, test, vi } from "vitest";
import type { WorkingCopy } from "./copy";
import { OverwriteError } from "./errors";
import {
  anotherFolder,
  AUTHOR,
  clone,
  disk,
  folder,
  git,
  progress,
  pull,
  reopened,
  signal,
  staged,
  summary,
  text,
  write,
} from "./testing";

vi.mock("@alknet/client", async () => (await import("./testing")).client);

staged();

describe("a pull that does not come to its end", () => {
  test.each([
    ["a disk is full", () => new DOMException("full", "QuotaExceededError")],
    ["the page is cut off", () => new Error("cut off")],
  ])("takes nothing back that others did, when %s", async (_, why) => {
    git.commit({ a: "1\n", b: "1\n", c: "1\n" });
    const copy = await clone();
    const before = git.run(["rev-parse", "main"]).trim();
    git.commit({ a: "2\n", b: "2\n", c: "2\n", d: "new\n" });
    disk.writing = (name) => {
      if (name === "b") throw why();
    };
    await expect(pull(copy)).rejects.toThrow();
    disk.writing = () => undefined;
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

describe("a branch that is called as something of git's own", () => {
  const names = ["info", "hooks", "objects", "refs", "heads", "tags", "remotes", "index", "config"];

  test.each([...names, "origin", "origin/main", "origin/HEAD", "refs/heads/main", "a.b", 'a"b'])(
    "%s is a branch",
    async (name) => {
      git.commit({ a: "main\n" });
      git.commit({ a: "branch\n" }, "100644", name);
      const copy = await clone();
      await copy.change(name);
      expect(await copy.branch()).toBe(name);
      expect(await text(copy, "a")).toBe("branch\n");
      await write(copy, "a", "ours\n");
      const id = await copy.commit(await copy.status(), "ours\n", AUTHOR);
      expect(await copy.position()).toEqual({ ahead: 1, behind: 0, more: false });
      await copy.change("main");
      expect(await text(copy, "a")).toBe("main\n");
      const later = await reopened();
      await later.change(name);
      const own = await (await folder.getDirectoryHandle(".git")).getFileHandle("config");
      git.run(["config", "--file", "-", "--list"], await (await own.getFile()).text());
      expect(await text(later, "a")).toBe("ours\n");
      const theirs = git.commit({ b: "theirs\n" }, "100644", name);
      await pull(later);
      await later.push(signal, progress);
      const parents = git.run(["rev-parse", `refs/heads/${name}^@`]);
      expect(parents).toBe(`${id}\n${theirs}\n`);
      expect(git.run(["show", "refs/heads/main:a"])).toBe("main\n");
    },
  );

  test.each([...names, "origin/main", "v1"])("%s is cloned", async (name) => {
    const main = git.commit({ a: "main\n" });
    git.run(["update-ref", "refs/tags/v1", main]);
    git.commit({ a: "branch\n" }, "100644", name);
    for (const shallow of [false, true]) {
      anotherFolder();
      const copy = await clone({ branch: name, shallow });
      expect(await copy.branch()).toBe(name);
      expect(await text(copy, "a")).toBe("branch\n");
      expect(await summary(copy)).toEqual([]);
      expect(await copy.position()).toEqual({ ahead: 0, behind: 0, more: false });
    }
  });

  test("gets no commits where there is none", async () => {
    const id = git.commit({ a: "1\n" });
    const copy = await clone();
    await write(copy, "a", "2\n");
    const own = await folder.getDirectoryHandle(".git");
    const writing = await (await own.getFileHandle("HEAD")).createWritable();
    await writing.write(`${id}\n`);
    await writing.close();
    const changes = await copy.status();
    await expect(copy.commit(changes, "2\n", AUTHOR)).rejects.toThrow("on no branch");
    await expect(copy.push(signal, progress)).rejects.toThrow("on no branch");
    await expect(pull(copy)).rejects.toThrow("on no branch");
    await expect(copy.reset()).rejects.toThrow("on no branch");
    expect(await copy.branch()).toBe("HEAD");
    await copy.discardAll();
    await copy.change("main");
    expect(await copy.branch()).toBe("main");
  });
});

/** What a branch has that main has not, of every kind. */
const OTHER: Record<string, string | undefined> = {
  a: "other\n",
  gone: undefined,
  "deep/er/gone": undefined,
  "new/er/file": "new\n",
  "file/inside/x": "x\n",
  folder: "file now\n",
};

/** Main, and `other`, where all kinds of files are not as in main. */
function branches(): void {
  git.commit({ a: "main\n", same: "same\n", gone: "1\n", "deep/er/gone": "1\n" });
  git.commit({ file: "file\n", "folder/in/x": "x\n", "folder/y": "y\n", plain: "#!/bin/sh\n" });
  git.commit({ script: "#!/bin/sh\n" }, "100755");
  git.commit({ link: "same" }, "120000");
  git.run(["update-ref", "refs/heads/other", "refs/heads/main"]);
  git.commit(
    { folder: undefined, file: undefined, script: undefined, link: undefined },
    "",
    "other",
  );
  git.commit({ ...OTHER, script: "echo\n", link: "text\n" }, "100644", "other");
  git.commit({ run: "#!/bin/sh\n", plain: "#!/bin/sh\n" }, "100755", "other");
  git.commit({ start: "run", "new/link": "a" }, "120000", "other");
}

/** Every file is in a copy as the node has it, and no other one. */
async function sameAs(copy: WorkingCopy, branch: string): Promise<void> {
  expect(await summary(copy)).toEqual([]);
  const found: string[] = [];
  const look = async (folder: string) => {
    for (const { name, folder: inner } of (await copy.list(folder))!) {
      const path = folder === "" ? name : `${folder}/${name}`;
      if (inner) await look(path);
      else found.push(`${idOf((await copy.read(path))!)}\t${path}`);
    }
  };
  await look("");
  const tree = git
    .run(["ls-tree", "-r", branch])
    .trim()
    .replaceAll(/^\d+ blob /gm, "");
  expect(found.toSorted()).toEqual(tree.split("\n").toSorted());
}

const idOf = (content: Uint8Array) =>
  createHash("sha1").update(`blob ${content.length}\0`).update(content).digest("hex");

/** Does something until it is cut off where it writes or removes for the nth time; whether it was not. */
async function ends(at: number, work: () => Promise<void>): Promise<boolean> {
  let left = at;
  disk.writing = () => {
    if (left-- <= 0) throw new Error("cut off");
  };
  try {
    await work();
    return true;
  } catch (error) {
    expect(String(error)).toContain("cut off");
    return false;
  } finally {
    disk.writing = () => undefined;
  }
}

describe("a change of branches that does not come to its end", () => {
  test("leaves everything as it was, when there is no room", async () => {
    branches();
    const copy = await clone();
    for (const full of ["a", "file", "x", "script", "start", "run", "other", "HEAD"]) {
      let once = true;
      disk.writing = (name) => {
        if (name !== full || !once) return;
        once = false;
        throw new DOMException("full", "QuotaExceededError");
      };
      const changing = copy.change("other");
      // Other files are tried twice.
      if (
        await changing.then(
          () => true,
          () => false,
        )
      )
        await copy.change("main");
      disk.writing = () => undefined;
      expect(await copy.branch()).toBe("main");
      await sameAs(copy, "main");
    }
    await copy.change("other");
    await sameAs(copy, "other");
  });

  test("is undone by discarding all, wherever it was cut off", { timeout: 180_000 }, async () => {
    branches();
    let copy = await clone();
    let at = 0;
    for (; !(await ends(at, () => copy.change("other"))); at++) {
      // The same page, or a later one.
      if (at % 2 === 0) copy = await reopened();
      expect(await copy.branch()).toBe("main");
      await copy.discardAll();
      await sameAs(copy, "main");
    }
    expect(at).toBeGreaterThan(20);
    expect(await copy.branch()).toBe("other");
    await sameAs(copy, "other");
    // What the branch has not is what the browser cannot tell.
    await write(copy, "a", "ours\n");
    await copy.commit(await copy.status(), "ours\n", AUTHOR);
    await copy.push(signal, progress);
    expect(git.run(["diff", "--name-only", "other~1", "other"])).toBe("a\n");
    expect(git.run(["diff", "--summary", "other~1", "other"])).toBe("");
  });

  test("is none that has begun over changes", async () => {
    branches();
    const copy = await clone();
    await write(copy, "same", "ours\n");
    await write(copy, "mine", "mine\n");
    const error = await copy.change("other").catch((error: unknown) => error);
    expect(error).toBeInstanceOf(OverwriteError);
    expect(await text(copy, "same")).toBe("ours\n");
    expect(await text(copy, "mine")).toBe("mine\n");
    expect(await copy.branch()).toBe("main");
  });
});

test("a pull that is cut off is done again, wherever it was", { timeout: 180_000 }, async () => {
  branches();
  const treeOf = (branch: string) => git.run(["rev-parse", `${branch}^{tree}`]).trim();
  const trees = [treeOf("other"), treeOf("main")];
  let copy = await clone();
  let whole = 0;
  for (let at = 0; whole < trees.length; at++) {
    whole = 0;
    // Main becomes as `other` is, and as it was again.
    for (const tree of trees) {
      const made = git.run(["commit-tree", tree, "-p", "main", "-m", `${at}`]).trim();
      git.run(["update-ref", "refs/heads/main", made]);
      if (await ends(at, () => pull(copy))) {
        whole++;
        expect(at).toBeGreaterThan(20);
      } else {
        // By the same page or a later one, and whether what it has left is discarded or not.
        if (at % 2 === 0) copy = await reopened();
        if (at % 4 < 2) await copy.discardAll();
        await pull(copy);
      }
      await sameAs(copy, "main");
      expect(await copy.position()).toEqual({ ahead: 0, behind: 0, more: false });
    }
  }
});

test("a branch is dropped files first", async () => {
  git.commit({ a: "1\n", b: "1\n" });
  const copy = await clone();
  await write(copy, "a", "ours\n");
  await copy.commit(await copy.status(), "ours\n", AUTHOR);
  disk.writing = (name) => {
    if (name === "a") throw new DOMException("full", "QuotaExceededError");
  };
  await expect(copy.reset()).rejects.toThrow("no more room");
  // The commit is there still.
  expect(await copy.position()).toMatchObject({ ahead: 1 });
  disk.writing = () => undefined;
  await copy.reset();
  expect(await text(copy, "a")).toBe("1\n");
  expect(await summary(copy)).toEqual([]);
  expect(await copy.position()).toMatchObject({ ahead: 0, behind: 0 });
});
