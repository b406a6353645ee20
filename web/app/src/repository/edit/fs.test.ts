import { describe, expect, test } from "vitest";
import { FolderFs } from "./fs";

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
