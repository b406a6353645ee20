import { CallError, type Client } from "@alknet/client";
import { describe, expect, test } from "vitest";
import { turns } from "./files";
import { spanOf } from "./mirror";
import { Repositories, type Refs, type Repository } from "./model";
import { branchNames, defaultBranch, revOf, type Shown } from "./view";

type Answer = (input: Record<string, unknown>) => unknown;

/** What a node answers to each operation. */
function node(answers: Record<string, Answer>): Repositories {
  const call = async (name: string, input: Record<string, unknown>) => answers[name]!(input);
  return new Repositories({ call } as unknown as Client);
}

describe("a repository", () => {
  test("is found though the list ends before it", async () => {
    const asked: unknown[] = [];
    const repositories = node({
      "git/repos": (input) => {
        asked.push(input);
        const names = input["prefix"] === undefined ? ["a"] : ["z", "z/y"];
        return { repositories: names.map((name) => ({ name })), truncated: true };
      },
    });
    expect((await repositories.list()).truncated).toBe(true);
    expect(await repositories.find("a")).toEqual({ name: "a" });
    expect(await repositories.find("z")).toEqual({ name: "z" });
    expect(asked).toEqual([{}, { prefix: "z" }]);
    await expect(repositories.find("zz")).rejects.toThrow("There is no repository zz");
  });
});

test.each([
  ["team/notes", "team/notes has content of its own", "team/notes has content of its own."],
  ["notes", "notes is no mirror", "notes is no mirror."],
  ["t", "there is no repository t", "There is no repository t."],
  ["notes", "notes2 is another", "Notes2 is another."],
  ["team/notes", "a description is one line", "A description is one line."],
  ["notes", "notes", "notes."],
  ["", "it is full!", "It is full!"],
])("what is said of %s has its name as it is: %s", async (name, message, said) => {
  const repositories = node({
    "git/mirror": () => {
      throw new CallError("INVALID_INPUT", message);
    },
  });
  await expect(repositories.mirror(name, { stop: true })).rejects.toThrow(
    expect.objectContaining({ message: said }),
  );
});

test("a file is of one commit, whatever is pushed while it is downloaded", async () => {
  const asked: unknown[] = [];
  const repositories = node({
    "git/blob": ({ rev, offset }) => {
      asked.push([rev, offset]);
      // Somebody pushes after each piece.
      const at = rev === "refs/heads/main" ? `c${asked.length}` : String(rev);
      return { rev: at, text: at, length: 2, truncated: offset !== 4 };
    },
  });
  const parts = await repositories.bytes({ repository: "a", rev: "refs/heads/main", path: "f" });
  expect(parts.map((part) => new TextDecoder().decode(part))).toEqual(["c1", "c1", "c1"]);
  expect(asked).toEqual([
    ["refs/heads/main", 0],
    ["c1", 2],
    ["c1", 4],
  ]);
});

describe("the default branch", () => {
  const shown = (branch: string | null, id: string | null, names: string[]): Shown => {
    const branches = names.map((name) => ({ name, id: "", protected: false }));
    const refs: Refs = { head: { branch, id }, branches, tags: [], more: true };
    return { repository: {} as Repository, refs };
  };

  test("is that of the node, also behind those that are listed", () => {
    const many = shown("main", "id", ["a/1", "a/2"]);
    expect(defaultBranch(many)).toEqual({ name: "main" });
    expect(revOf(many, undefined)).toBe("refs/heads/main");
    expect(branchNames(many)).toEqual(["main", "a/1", "a/2"]);
    expect(branchNames(shown("a/2", "id", ["a/1", "a/2"]))).toEqual(["a/1", "a/2"]);
  });

  test("is another one where that is not there yet", () => {
    expect(defaultBranch(shown("main", null, ["trunk"]))?.name).toBe("trunk");
    expect(defaultBranch(shown("main", null, []))).toBeUndefined();
    expect(revOf(shown(null, null, []), undefined)).toBe("HEAD");
  });
});

test("texts that are shown in another order than they are read", () => {
  expect(turns("if admin { \u202e } // check")).toBe(true);
  expect(turns("\u2066hidden\u2069")).toBe(true);
  expect(turns("עברית and عربي")).toBe(false);
});

test("times as people write them", () => {
  expect([86_400, 7_200, 600, 90, 93_600].map(spanOf)).toEqual(["1d", "2h", "10m", "90s", "26h"]);
});
