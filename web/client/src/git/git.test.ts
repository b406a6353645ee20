// isomorphic-git over our transport, with git itself at the other end.
import { execFileSync } from "node:child_process";
import * as fs from "node:fs";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as isogit from "isomorphic-git";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { GitHttp } from "./http.js";
import { repositoryUrl } from "./target.js";
import { FakeGit, served } from "./testing.js";

const ORIGIN = "https://node.example:8443";
const AUTHOR = { name: "Alice", email: "alice@node.example" };
const author = { author: AUTHOR };
const url = repositoryUrl("team/notes", ORIGIN);

let home: string;
let bare: string;
let source: string;
let dir: string;

/** git, without whatever is set up on this machine. */
function git(where: string, ...args: string[]): string {
  const env = {
    ...process.env,
    GIT_CONFIG_GLOBAL: "/dev/null",
    GIT_CONFIG_NOSYSTEM: "1",
    GIT_AUTHOR_NAME: "Bob",
    GIT_AUTHOR_EMAIL: "bob@node.example",
    GIT_COMMITTER_NAME: "Bob",
    GIT_COMMITTER_EMAIL: "bob@node.example",
  };
  return execFileSync("git", ["-C", where, ...args], { env, encoding: "utf8", stdio: "pipe" });
}

function commit(name: string, text: string | Uint8Array): string {
  writeFileSync(join(source, name), text);
  git(source, "add", name);
  git(source, "commit", "-qm", `adds ${name}`);
  git(source, "push", "-q", "origin", "main");
  return git(source, "rev-parse", "HEAD").trim();
}

/** Whether both sides are whole and have the same. */
function same(ref = "refs/heads/main"): string {
  git(bare, "fsck", "--strict");
  git(dir, "fsck", "--strict");
  const id = git(bare, "rev-parse", ref).trim();
  expect(git(dir, "rev-parse", "HEAD").trim()).toBe(id);
  return id;
}

beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "alknet-client-git-"));
  [bare, source, dir] = ["team/notes.git", "source", "clone"].map((name) => join(home, name)) as [
    string,
    string,
    string,
  ];
  git(home, "init", "-q", "--bare", "-b", "main", bare);
  git(home, "clone", "-q", bare, source);
  git(source, "checkout", "-q", "-B", "main");
});

afterEach(() => rmSync(home, { recursive: true, force: true }));

describe.each([
  ["many streams", true],
  ["one stream a connection", false],
])("over %s", (_, multiplexed) => {
  let sessions: FakeGit[];
  let http: GitHttp;

  beforeEach(() => {
    sessions = [];
    http = new GitHttp(async () => {
      const session = new FakeGit(served(home), multiplexed);
      sessions.push(session);
      return session;
    }, ORIGIN);
  });

  afterEach(() => http.close());

  const clone = (more: object = {}) => isogit.clone({ fs, http, dir, url, ...more });

  test("clones, commits and pushes; fetches what came meanwhile", async () => {
    // More than one packet of the side band, and nothing that compresses.
    commit("noise", crypto.getRandomValues(new Uint8Array(60_000)));
    commit("more noise", crypto.getRandomValues(new Uint8Array(60_000)));
    commit("readme", "one\n");
    await clone();
    same();

    writeFileSync(join(dir, "readme"), "two\n");
    await isogit.add({ fs, dir, filepath: "readme" });
    const id = await isogit.commit({ fs, dir, message: "changes it", ...author });
    const pushed = await isogit.push({ fs, http, dir, url });
    expect(pushed.ok).toBe(true);
    expect(same()).toBe(id);

    git(source, "pull", "-q", "--ff-only", "origin", "main");
    const next = commit("other", "three\n");
    await isogit.pull({ fs, http, dir, url, fastForwardOnly: true, ...author });
    expect(same()).toBe(next);
    expect(readFileSync(join(dir, "other"), "utf8")).toBe("three\n");
    // One connection is enough where it has many streams.
    expect(sessions.length === 1).toBe(multiplexed);
    if (!multiplexed) expect(sessions.every(({ over }) => over)).toBe(true);
  });

  test("clones without history, and deepens", async () => {
    for (const text of ["one", "two", "three"]) commit("readme", text);
    await clone({ depth: 1, singleBranch: true });
    expect(await isogit.log({ fs, dir })).toHaveLength(1);
    await isogit.fetch({ fs, http, dir, url, depth: 2, singleBranch: true });
    expect(await isogit.log({ fs, dir })).toHaveLength(2);
    git(dir, "fsck");
  });

  test("an empty repository takes its first push", async () => {
    await isogit.init({ fs, dir, defaultBranch: "main" });
    await isogit.addRemote({ fs, dir, remote: "origin", url });
    writeFileSync(join(dir, "readme"), "first\n");
    await isogit.add({ fs, dir, filepath: "readme" });
    const id = await isogit.commit({ fs, dir, message: "begins", ...author });
    await isogit.push({ fs, http, dir, remote: "origin", ref: "main" });
    expect(same()).toBe(id);
  });

  test("a push that is behind changes nothing and says so", async () => {
    commit("readme", "one\n");
    await clone();
    const ahead = commit("readme", "theirs\n");
    writeFileSync(join(dir, "readme"), "ours\n");
    await isogit.add({ fs, dir, filepath: "readme" });
    await isogit.commit({ fs, dir, message: "ours", ...author });
    const pushing = isogit.push({ fs, http, dir, url });
    await expect(pushing).rejects.toMatchObject({
      code: "PushRejectedError",
      data: { reason: "not-fast-forward" },
    });
    expect(git(bare, "rev-parse", "main").trim()).toBe(ahead);
  });

  test("a push that the node's hook refuses says why", async () => {
    commit("readme", "one\n");
    await clone();
    writeFileSync(join(bare, "hooks/pre-receive"), "#!/bin/sh\necho not today\nexit 1\n", {
      mode: 0o755,
    });
    writeFileSync(join(dir, "readme"), "ours\n");
    await isogit.add({ fs, dir, filepath: "readme" });
    await isogit.commit({ fs, dir, message: "ours", ...author });
    const heard: string[] = [];
    const pushing = isogit.push({ fs, http, dir, url, onMessage: (text) => void heard.push(text) });
    await expect(pushing).rejects.toMatchObject({ code: "GitPushError" });
    expect(heard.join("")).toContain("not today");
  });

  test("lists what there is, also by the second version of the protocol", async () => {
    const id = commit("readme", "one\n");
    for (const protocolVersion of [1, 2] as const) {
      const refs = await isogit.listServerRefs({ http, url, protocolVersion });
      expect(refs).toContainEqual(expect.objectContaining({ ref: "refs/heads/main", oid: id }));
    }
  });
});
