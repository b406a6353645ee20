import { describe, expect, test } from "vitest";
import { FolderFs } from "./fs";
import { MemoryFolder } from "./testing";

/** A folder that nothing may be asked of. */
const untouched = new Proxy({} as FileSystemDirectoryHandle, {
  get: (_, name) => {
    // Whoever waits for it looks whether it is a promise.
    if (name === "then") return undefined;
    throw new Error(`asked for ${String(name)}`);
  },
});

describe("names that git or a file system would obey", () => {
  const fs = new FolderFs(untouched);

  test.each([
    "/../outside",
    "/src/../../outside",
    "/.GIT/config",
    "/sub/.git/config",
    "/sub/.Git",
    "/.git /config",
    "/.git./config",
    "/git~1/config",
    "/.git::$INDEX_ALLOCATION/config",
    "/.g\u200cit/config",
    "/.git/hooks/post-checkout",
    "/.git/HOOKS/pre-commit",
    "/.git/.git/config",
  ])("%j is not written, made or removed", async (path) => {
    const refused = expect.objectContaining({ code: "EPERM" });
    await expect(fs.writeFile(path, "x")).rejects.toEqual(refused);
    await expect(fs.symlink("x", path)).rejects.toEqual(refused);
    await expect(fs.rm(path)).rejects.toEqual(refused);
  });

  test("others are, as far as this goes", async () => {
    for (const path of [
      "/.git/config",
      "/.gitignore",
      "/git",
      "/.github/hooks/x",
      "/.gitmodules",
    ]) {
      await expect(fs.writeFile(path, "x")).rejects.toThrow("asked for");
    }
  });
});

test("the folder itself is there, and is no file", async () => {
  const fs = new FolderFs(untouched);
  for (const path of ["/", "//.", ""]) expect((await fs.stat(path)).isDirectory()).toBe(true);
  await expect(fs.mkdir("/")).rejects.toMatchObject({ code: "EEXIST" });
  await expect(fs.writeFile("/", "x")).rejects.toMatchObject({ code: "EISDIR" });
});

test("a file of git's own that was never written is none", async () => {
  const root = new MemoryFolder((name) => {
    if (name === "cut") throw new Error("cut off");
  });
  const fs = new FolderFs(root.handle);
  await fs.mkdir("/.git");
  for (const folder of ["/", "/.git/"]) {
    await fs.writeFile(`${folder}whole`, "x");
    await expect(fs.writeFile(`${folder}cut`, "x")).rejects.toThrow("cut off");
  }
  for (let times = 0; times < 2; times++) expect(await fs.readdir("/.git")).toEqual(["whole"]);
  await expect(fs.readFile("/.git/cut")).rejects.toMatchObject({ code: "ENOENT" });
  await expect(fs.stat("/.git/cut")).rejects.toMatchObject({ code: "ENOENT" });
  expect(await fs.readFile("/cut", "utf8")).toBe("");
  expect((await fs.readdir("/")).toSorted()).toEqual([".git", "cut", "whole"]);
});

describe("a folder that somebody else has removed", () => {
  const known = async () => {
    const root = new MemoryFolder();
    const fs = new FolderFs(root.handle);
    await fs.mkdir("/docs");
    await fs.mkdir("/docs/in");
    await fs.writeFile("/docs/in/a", "a");
    return { root, fs };
  };

  test("is made again", async () => {
    const { root, fs } = await known();
    await root.removeEntry("docs", { recursive: true });
    await expect(fs.writeFile("/docs/in/b", "b")).rejects.toMatchObject({ code: "ENOENT" });
    await expect(fs.mkdir("/docs/in")).rejects.toMatchObject({ code: "ENOENT" });
    await fs.mkdir("/docs");
    await fs.mkdir("/docs");
    await fs.mkdir("/docs/in");
    await fs.writeFile("/docs/in/b", "b");
    expect(await fs.readdir("/docs/in")).toEqual(["b"]);
  });

  test("and made again is the one that is written to", async () => {
    const { root, fs } = await known();
    // Some browsers know a folder by more than its path.
    const docs = await root.getDirectoryHandle("docs");
    const gone = () => Promise.reject(new DOMException("not there", "NotFoundError"));
    Object.assign(docs, { getDirectoryHandle: gone, getFileHandle: gone });
    await root.removeEntry("docs", { recursive: true });
    await root.getDirectoryHandle("docs", { create: true });
    await fs.writeFile("/docs/b", "b");
    await fs.mkdir("/docs/other");
    expect((await fs.readdir("/docs")).toSorted()).toEqual(["b", "other"]);
  });

  test("and is a file now is none", async () => {
    const { root, fs } = await known();
    await root.removeEntry("docs", { recursive: true });
    await new FolderFs(root.handle).writeFile("/docs", "file");
    await expect(fs.mkdir("/docs")).rejects.toMatchObject({ code: "ENOTDIR" });
    expect(await fs.readFile("/docs", "utf8")).toBe("file");
  });
});
