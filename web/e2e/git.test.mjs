// Repositories in the web client, and isomorphic-git over our client, against a real node.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import * as fs from "node:fs";
import { chmodSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import * as isogit from "isomorphic-git";
import { connect, gitHttp, repositoryUrl } from "../client/dist/node/index.js";
import { newPage, screenshot, startBrowser } from "./browser.mjs";
import { cleanUp } from "./cleanup.mjs";
import { alknet, post, startNode } from "./node.mjs";
import { startRelay } from "./relay.mjs";

const options = { timeout: 180_000 };
const CARRIERS = ["webtransport", "websocket"];
const AUTHOR = { name: "Carol", email: "carol@node.example" };

/** git, without whatever is set up on this machine. */
function git(where, ...args) {
  const env = {
    ...process.env,
    GIT_CONFIG_GLOBAL: "/dev/null",
    GIT_CONFIG_NOSYSTEM: "1",
    GIT_AUTHOR_NAME: "Bob",
    GIT_AUTHOR_EMAIL: "bob@node.example",
    GIT_COMMITTER_NAME: "Bob",
    GIT_COMMITTER_EMAIL: "bob@node.example",
  };
  const stdio = ["ignore", "pipe", "pipe"];
  return execFileSync("git", ["-C", where, ...args], { env, encoding: "utf8", stdio });
}

const bare = (node, name) => join(node.home, "repos", `${name}.git`);

function tokenOf(node, scope = "*") {
  return alknet(node, "token", "create", "--scope", scope).trim();
}

/** A node with somebody's repository on it, as `git` would have pushed it. */
async function hosted(t, { name = "team/notes", files = {}, prepare = () => {}, config } = {}) {
  const node = await startNode(t, { config });
  const token = tokenOf(node);
  const made = await post(node, token, "/alknet/api/git/create", { name, description: "Notes" });
  assert.equal(made.status, 200, made.text);
  const source = join(node.home, "source");
  mkdirSync(source);
  git(source, "init", "-q", "-b", "main");
  const commit = (changes, message) => {
    for (const [path, text] of Object.entries(changes)) {
      mkdirSync(dirname(join(source, path)), { recursive: true });
      writeFileSync(join(source, path), text);
    }
    prepare(source);
    git(source, "add", "-A");
    git(source, "commit", "-qm", message);
    git(source, "push", "-q", bare(node, name), "main");
    return git(source, "rev-parse", "HEAD").trim();
  };
  const first = Object.keys(files).length > 0 ? commit(files, "Begin") : undefined;
  return { node, token, name, source, commit, first };
}

/** A page that is signed in and looks at repositories. */
async function looking(t, node, hash = "#/git", { via = "auto", profile = {}, expected } = {}) {
  const browser = await startBrowser(t, node);
  const page = await newPage(t, browser, profile, expected);
  const signingIn = { maxRedirects: 0, ignoreHTTPSErrors: true };
  const answer = await page.context().request.get(node.signIn, signingIn);
  assert.equal(answer.status(), 303);
  // The sign-in link's fragment is what says whose node this is.
  await page.addInitScript((id) => localStorage.setItem("alknet.node", id), node.id);
  await page.goto(`${node.origin}/alknet/app/?via=${via}${hash}`);
  await page.waitForSelector("#repositories h1");
  return page;
}

const notes = (rest = "") => `#/git/team%2Fnotes${rest}`;

/** Where the working copy is, in the browser's storage, as files. */
async function stored(page, path) {
  return await page.evaluate(async (path) => {
    const root = await navigator.storage.getDirectory();
    let folder = await root.getDirectoryHandle("alknet-git");
    for await (const owner of folder.values()) folder = owner;
    folder = await folder.getDirectoryHandle("team%2Fnotes");
    const words = path.split("/");
    for (const word of words.slice(0, -1)) folder = await folder.getDirectoryHandle(word);
    return await (await (await folder.getFileHandle(words.at(-1))).getFile()).text();
  }, path);
}

async function clone(page) {
  await page.getByRole("button", { name: "Clone into this browser" }).click();
  await page.waitForSelector(".desk");
}

/** Writes a file of the working copy in the editor. */
async function edit(page, path, text) {
  await page.goto(new URL(notes(`/edit/${path}`), page.url()).href);
  const editor = page.getByLabel(`Content of ${path}`);
  await editor.fill(text);
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByText("Saved.").waitFor();
}

async function commitAs(page, message, button) {
  await page.getByLabel("Message").fill(message);
  await page.getByRole("button", { name: button, exact: true }).click();
}

async function says(page, text) {
  await page.locator(".said").getByText(text).waitFor();
}

test("isomorphic-git clones and pushes from Node.js", options, async (t) => {
  const { node, token, name, commit, first } = await hosted(t, {
    files: { "README.md": "# Notes\n", "data/noise": "x".repeat(200_000) },
  });
  const http = gitHttp({ origin: node.origin, node: node.id, token });
  cleanUp(t, () => http.close());
  const url = repositoryUrl(name, node.origin);
  const dir = join(node.home, "clone");
  await isogit.clone({ fs, http, dir, url });
  assert.equal(git(dir, "rev-parse", "HEAD").trim(), first);
  git(dir, "fsck", "--strict");

  writeFileSync(join(dir, "README.md"), "# Ours\n");
  await isogit.add({ fs, dir, filepath: "README.md" });
  const ours = await isogit.commit({ fs, dir, message: "ours\n", author: AUTHOR });
  await isogit.push({ fs, http, dir, url });
  git(bare(node, name), "fsck", "--strict");
  assert.equal(git(bare(node, name), "rev-parse", "main").trim(), ours);

  const source = join(node.home, "source");
  git(source, "pull", "-q", "--ff-only", bare(node, name), "main");
  const theirs = commit({ "more.md": "more\n" }, "More");
  await isogit.pull({ fs, http, dir, url, author: AUTHOR, fastForwardOnly: true });
  assert.equal(git(dir, "rev-parse", "HEAD").trim(), theirs);

  const shallow = join(node.home, "shallow");
  await isogit.clone({ fs, http, dir: shallow, url, depth: 1, singleBranch: true });
  assert.equal(git(shallow, "rev-list", "--count", "HEAD").trim(), "1");

  // A push to a name that is not taken makes the repository.
  const fresh = repositoryUrl("fresh", node.origin);
  await isogit.push({ fs, http, dir, url: fresh, ref: "main", remoteRef: "refs/heads/main" });
  assert.equal(git(bare(node, "fresh"), "rev-parse", "main").trim(), theirs);
});

test(
  "who may not see a repository gets the answers of one that is not there",
  options,
  async (t) => {
    const { node, name } = await hosted(t, { files: { a: "a\n" } });
    const token = tokenOf(node, "call:git/*,git:read:other");
    const reach = { origin: node.origin, node: node.id, token };
    const client = connect(reach);
    cleanUp(t, () => client.close());
    assert.deepEqual((await client.call("git/repos", {})).repositories, []);
    const http = gitHttp(reach);
    cleanUp(t, () => http.close());
    const told = async (repository) => {
      const refs = await client.call("git/refs", { repository }).catch((error) => error);
      const url = repositoryUrl(repository, node.origin);
      const git = await isogit.getRemoteInfo({ http, url }).catch((error) => error);
      const push = await isogit.getRemoteInfo({ http, url, forPush: true }).catch((error) => error);
      const words = [refs.code, refs.message, git.message, push.message];
      return words.map((text) => String(text).replaceAll(repository, "NAME"));
    };
    const hidden = await told(name);
    assert.deepEqual(hidden, await told("team/other"));
    assert.equal(hidden[0], "NO_SUCH_REPOSITORY");
  },
);

test("a repository is browsed, by links that last", options, async (t) => {
  const { node, commit } = await hosted(t, {
    files: {
      "README.md": "# The notes\n\nSee [the guide](docs/guide.md).\n",
      "docs/guide.md": "# The guide\n",
      "src/main.rs": 'fn main() {\n    println!("one");\n}\n',
    },
    prepare: (source) => {
      if (fs.existsSync(join(source, "run.sh"))) return;
      writeFileSync(join(source, "run.sh"), "#!/bin/sh\n");
      chmodSync(join(source, "run.sh"), 0o755);
      symlinkSync("run.sh", join(source, "start"));
    },
  });
  const id = commit({ "src/main.rs": 'fn main() {\n    println!("two");\n}\n' }, "Say two");
  const page = await looking(t, node);
  await page.getByRole("link", { name: "team/notes" }).click();
  await page.getByRole("heading", { name: "The notes" }).waitFor();
  await screenshot(page, "git-files");
  await page.getByRole("link", { name: "the guide" }).click();
  await page.getByRole("heading", { name: "The guide" }).waitFor();
  await page.goBack();
  await page.getByRole("heading", { name: "The notes" }).waitFor();

  await page.getByRole("link", { name: "src", exact: true }).click();
  await page.getByRole("link", { name: "main.rs" }).click();
  await page.locator(".source .hljs-keyword").first().waitFor();
  assert.match(await page.locator(".source code").innerText(), /println!\("two"\)/);
  await page.reload();
  await page.locator(".source .hljs-keyword").first().waitFor();
  await screenshot(page, "git-file");

  await page.getByRole("link", { name: "History", exact: true }).first().click();
  await page.getByRole("link", { name: "Say two" }).click();
  await page.locator(".diff .added").waitFor();
  assert.equal(new URL(page.url()).hash, notes(`/commit/${id}`));
  assert.match(await page.locator(".diff .removed").innerText(), /-    println!\("one"\)/);
  assert.match(await page.locator(".diff .added").innerText(), /\+    println!\("two"\)/);
  await screenshot(page, "git-commit");
  await page.reload();
  await page.locator(".diff .added").waitFor();
  await page.getByRole("button", { name: "Clone" }).click();
  await page.getByText(`git clone https://127.0.0.1`).waitFor();
  await screenshot(page, "git-clone");
  const saved = async (button) => {
    const begun = page.waitForEvent("download");
    await page.getByRole("button", { name: button }).click();
    const download = await begun;
    const path = join(node.home, download.suggestedFilename());
    await download.saveAs(path);
    return path;
  };
  const archive = await saved("Download as tar.gz");
  const listed = execFileSync("tar", ["-tzf", archive], { encoding: "utf8" });
  for (const file of ["README.md", "docs/guide.md", "src/main.rs", "run.sh"]) {
    assert.ok(
      listed.split("\n").some((name) => name.endsWith(file)),
      `${file} in ${listed}`,
    );
  }
  await page.goto(new URL(notes("/files/-/src/main.rs"), page.url()).href);
  await page.locator(".source").waitFor();
  const file = await saved("Download");
  assert.equal(readFileSync(file, "utf8"), 'fn main() {\n    println!("two");\n}\n');
});

test("what a push changes is shown without asking", options, async (t) => {
  const { node, token, name } = await hosted(t, { files: { "README.md": "# One\n" } });
  const page = await looking(t, node, notes());
  await page.getByRole("heading", { name: "One" }).waitFor();
  const http = gitHttp({ origin: node.origin, node: node.id, token });
  cleanUp(t, () => http.close());
  const dir = join(node.home, "clone");
  const url = repositoryUrl(name, node.origin);
  await isogit.clone({ fs, http, dir, url });
  writeFileSync(join(dir, "README.md"), "# Two\n");
  await isogit.add({ fs, dir, filepath: "README.md" });
  await isogit.commit({ fs, dir, message: "two\n", author: AUTHOR });
  // Who moves by keys stays where they are.
  const file = page.getByRole("link", { name: "README.md", exact: true });
  await file.focus();
  await isogit.push({ fs, http, dir, url });
  await page.getByRole("heading", { name: "Two" }).waitFor();
  assert.equal(await file.evaluate((it) => it === document.activeElement), true);
});

const HOSTILE = `# Hello

<script>window.owned = "script"</script>
<img src="x" onerror="window.owned = 'onerror'">
<svg><script>window.owned = "svg"</script></svg>
<iframe src="javascript:window.owned = 'iframe'"></iframe>
<a href="javascript:window.owned = 'link'" id="panel" class="grave" style="position:fixed;inset:0">click</a>
[also](javascript:window.owned='markdown')
<form action="https://elsewhere.example/"><input name="password" type="password"><button>Sign in</button></form>
<style>body { display: none }</style>
<base href="https://elsewhere.example/">
<meta http-equiv="refresh" content="0; url=https://elsewhere.example/">

![tracker](https://elsewhere.example/pixel.png)
<img src="//elsewhere.example/pixel.png" srcset="https://elsewhere.example/2.png 2x">
<video src="https://elsewhere.example/v.mp4" poster="https://elsewhere.example/p.png"></video>
![ours](logo.svg)
[out](https://elsewhere.example/page)

<label for="sign-out">press me</label>
<output for="menu" popover>hide me</output>

<details><summary>More</summary>Kept</details>

<div><template shadowrootmode="closed" shadowrootclonable><script>window.owned = "shadow"</script>
<img src="https://elsewhere.example/shadow.png" onerror="window.owned = 'shadow'"></template></div>

The end of it

<math><mtext><table><mglyph><style><!--</style><img title="--><img src=1 onerror=window.owned='mxss'>">
`;

const LOGO = `<svg xmlns="http://www.w3.org/2000/svg" width="20" height="20">
<script>window.owned = "picture"</script><rect width="20" height="20" fill="red"/></svg>`;

test("a hostile text runs nothing and fetches nothing", options, async (t) => {
  const { node } = await hosted(t, { files: { "README.md": HOSTILE, "logo.svg": LOGO } });
  // Chromium reports these of a document that is only parsed, where they have no effect.
  const expected = /^(Executing inline event handler|Setting the document's base URI)/;
  const page = await looking(t, node, notes(), { expected });
  const asked = [];
  page.on("request", (request) => asked.push(request.url()));
  page.on("dialog", (dialog) => assert.fail(dialog.message()));
  await page.reload();
  const text = page.locator(".markdown");
  await text.getByText("The end of it").waitFor();
  await text.getByText("tracker (on elsewhere.example)").waitFor();
  // A script is nothing that a plain drawing has.
  await text.getByRole("button", { name: "Show it" }).click();
  const picture = text.locator("img");
  await picture.waitFor();
  assert.equal(await picture.count(), 1);
  assert.match(await picture.getAttribute("src"), /^data:image\/svg\+xml;base64,/);
  await page.waitForFunction(() => document.querySelector(".markdown img").naturalWidth === 20);
  await text.getByText("also").click();
  await text.getByText("click", { exact: true }).click();
  await text.getByText("press me").click();
  const odd =
    "script, style, form, input, button, iframe, svg, math, video, base, meta, [style], label, output";
  assert.equal(await text.locator(odd).count(), 0);
  assert.equal(await text.locator("#panel, .grave, [onerror], [srcset]").count(), 0);
  const out = text.getByRole("link", { name: "out" });
  assert.match(await out.getAttribute("rel"), /noopener/);
  assert.equal(await page.evaluate(() => window.owned), undefined);
  const foreign = asked.filter((url) => !url.startsWith("data:") && !url.startsWith(node.origin));
  assert.deepEqual(foreign, []);
  // The file by itself is shown as a picture, too.
  await page.goto(new URL(notes("/files/-/logo.svg"), page.url()).href);
  await page.locator(".picture").getByRole("button", { name: "Show it" }).click();
  await page.locator(".picture img").waitFor();
  assert.equal(await page.evaluate(() => window.owned), undefined);
});

/** A drawing of a kilobyte, of which the browser makes ten million parts. */
function bomb(levels = 7) {
  const level = (at) => `<g id="a${at + 1}">${`<use href="#a${at}"/>`.repeat(10)}</g>`;
  const all = Array.from({ length: levels }, (_, at) => level(at)).join("");
  const defs = `<defs><g id="a0"><rect width="9" height="9"/></g>${all}</defs>`;
  const size = 'width="90" height="20"';
  return `<svg xmlns="http://www.w3.org/2000/svg" ${size}>${defs}<use href="#a${levels}"/></svg>`;
}

const BADGE = `<svg xmlns="http://www.w3.org/2000/svg" width="90" height="20">
<linearGradient id="s" x2="0" y2="100%"><stop offset="0" stop-color="#bbb" stop-opacity=".1"/>
<stop offset="1" stop-opacity=".1"/></linearGradient>
<clipPath id="r"><rect width="90" height="20" rx="3" fill="#fff"/></clipPath>
<g clip-path="url(#r)"><rect width="37" height="20" fill="#555"/>
<rect x="37" width="53" height="20" fill="#4c1"/><rect width="90" height="20" fill="url(#s)"/></g>
<g fill="#fff" font-family="Verdana,sans-serif" font-size="11"><text x="5" y="14">build</text>
<text x="42" y="14">passing</text></g></svg>`;

test("a drawing that never ends is not begun unasked", options, async (t) => {
  const text = "# Notes\n\n![build](badge.svg)\n\n![The plan](plan.svg)\n\n";
  const linked = "[![In a link](marked.svg)](guide.md)\n";
  const marked = BADGE.replace("<g", '<marker id="m"/><g');
  const files = { "badge.svg": BADGE, "plan.svg": bomb(), "marked.svg": marked };
  const { node } = await hosted(t, {
    files: { ...files, "README.md": `${text}${linked}`, "guide.md": "# The guide\n" },
  });
  const page = await looking(t, node, notes());
  const drawn = () =>
    page.waitForFunction(() => document.querySelector(".markdown img").naturalWidth === 90);
  await drawn();
  const place = page.getByRole("group", { name: "The plan" });
  await place.getByText("could be slow").waitFor();
  assert.equal(await page.locator(".markdown img").count(), 1);
  await screenshot(page, "git-drawing");
  // Whoever wants to see what is in a link is not led away by it.
  await page.getByRole("group", { name: "In a link" }).getByRole("button").click();
  await page.getByRole("img", { name: "In a link" }).waitFor();
  assert.equal(new URL(page.url()).hash, notes());
  await page.getByRole("link", { name: "plan.svg", exact: true }).click();
  const alone = page.getByRole("group", { name: "plan.svg" });
  await alone.getByRole("button", { name: "Show it" }).waitFor();
  assert.equal(await page.locator(".picture img").count(), 0);
  await screenshot(page, "git-drawing-file");
  await page.goto(new URL(notes("/files/-/badge.svg"), page.url()).href);
  await page.waitForFunction(() => document.querySelector(".picture img")?.naturalWidth === 90);
});

test("a text that takes too long is shown as it is, and holds nobody up", options, async (t) => {
  const { node } = await hosted(t, {
    files: {
      "README.md": "*a **b".repeat(10_000),
      "deep/README.md": ">".repeat(10_000),
      "pictures/README.md": "![x](logo.svg) ".repeat(5_000),
      "pictures/logo.svg": LOGO,
      "slow.md": "[a](".repeat(20_000),
      "fine.rs": "fn main() {}\n",
    },
  });
  const page = await looking(t, node, notes());
  // What is done on the page while the text is worked on.
  await page.getByRole("link", { name: "fine.rs" }).waitFor({ timeout: 10_000 });
  await page.getByText("It is shown as it is: it takes too long.").waitFor();
  await page.goto(new URL(notes("/files/-/deep"), page.url()).href);
  await page.getByText("It is shown as it is: it is nested too deeply.").waitFor();
  await page.goto(new URL(notes("/files/-/pictures"), page.url()).href);
  // Each is a picture until it turns out to be one that is not shown unasked.
  const pictures = page.locator(".markdown img, .markdown .withheld");
  await pictures.first().waitFor();
  await page.locator(".markdown span").first().waitFor();
  assert.equal(await pictures.count(), 200);
  await page.goto(new URL(notes("/files/-/slow.md"), page.url()).href);
  await page.getByRole("button", { name: "Show the text" }).click();
  assert.match(await page.locator(".source code").innerText(), /^\[a\]\(/);
  await page.goto(new URL(notes("/files/-/fine.rs"), page.url()).href);
  await page.locator(".source .hljs-keyword").first().waitFor();
});

/** Elements that a parser makes again in each paragraph that follows. */
const OPEN = `<p>${Array.from({ length: 500 }, (_, at) => `<b a=${at}>`).join("")}`;
const BOMB = `${OPEN}\n${"<p>x".repeat(100_000)}\n`;

test("a short text of which a large page would become holds nobody up", options, async (t) => {
  const names = Array.from({ length: 80_000 }, (_, at) => at.toString(36));
  const bodies = names.slice(-30_000).map((name) => `<body ${name}>`);
  const { node } = await hosted(t, {
    files: {
      "README.md": BOMB,
      "template/README.md": `<div><template shadowrootmode=open>${BOMB}</template></div>\n`,
      "noscript/README.md": `<noscript>\n${BOMB}`,
      "table/README.md": `<table><tr><td>${BOMB}`,
      "attributes/README.md": `<p ${names.join(" ")}>x</p>\n`,
      "body/README.md": `<div>${bodies.join("")}</div>\n`,
      "large/README.md": "- [a link](a), `code` and **more**\n".repeat(1_500),
      "fine.rs": "fn main() {}\n",
    },
  });
  const page = await looking(t, node, notes());
  await page.getByRole("link", { name: "fine.rs" }).waitFor();
  const deep = page.getByText("It is shown as it is: it is nested too deeply.");
  await deep.waitFor();
  for (const folder of ["template", "noscript", "table", "attributes", "body"]) {
    await page.goto(new URL(notes(`/files/-/${folder}`), page.url()).href);
    await page.getByText("It is shown as it is: ").waitFor();
    await page.goto(new URL(notes("/files/-/fine.rs"), page.url()).href);
    await page.locator(".source .hljs-keyword").first().waitFor();
  }
  // What is only long is a page.
  await page.goto(new URL(notes("/files/-/large"), page.url()).href);
  await page.locator(".markdown li").nth(1_499).waitFor();
});

/** More marks on one letter than a browser is done with in ten seconds, in 80 KB. */
const MARKS = `e${"\u0301".repeat(40_000)}`;

test("a text in which marks pile up holds nobody up", options, async (t) => {
  const { node, commit } = await hosted(t, {
    files: {
      "README.md": `# Notes\n\n${MARKS}\n`,
      "named/README.md": `e${"<b>&#769;</b>&#x301;<i></i>".repeat(6_000)}\n`,
      "plain/README": MARKS,
      "marks.txt": `${MARKS}\n`,
      "marks.rs": `// ${MARKS}\nfn main() {}\n`,
      "skin.md": `👩${"\u{1f3fb}".repeat(20_000)}\n`,
      "fine.rs": "fn main() {}\n",
    },
  });
  const id = commit({ "marks.txt": `${MARKS}\nmore\n` }, `Say ${MARKS}`);
  const page = await looking(t, node);
  await page.evaluate(() => {
    let last = performance.now();
    window.longest = 0;
    setInterval(() => {
      window.longest = Math.max(window.longest, performance.now() - last);
      last = performance.now();
    }, 50);
  });
  const go = (rest) => page.goto(new URL(notes(rest), page.url()).href);
  /** Waits for something on a page that has answered all the while. */
  const answers = async (place) => {
    await place.first().waitFor();
    await page.waitForTimeout(200);
    const longest = await page.evaluate(() => window.longest);
    assert.ok(longest < 5_000, `no answer for ${longest} ms`);
  };
  const piled = page.getByText("It is shown as it is: marks pile up in it.");
  for (const folder of ["", "/files/-/named", "/files/-/skin.md"]) {
    await go(folder);
    await answers(piled);
  }
  await go("/files/-/plain");
  await answers(page.locator(".readme .plain"));
  for (const file of ["marks.txt", "marks.rs"]) {
    await go(`/files/-/${file}`);
    await answers(page.getByText("Marks pile up in it: here ◌ carries some"));
    const text = await page.locator(".source code").innerText();
    assert.equal(text.replaceAll("\u200b◌", "").includes(MARKS), true);
  }
  await page.locator(".source .hljs-keyword").first().waitFor();
  await go("/history");
  await answers(page.getByRole("link", { name: /^Say e/ }));
  await go(`/commit/${id}`);
  await answers(page.locator(".diff .added"));
  await go("/edit");
  await clone(page);
  // What is edited is the file's own text, or nothing.
  await go("/edit/marks.txt");
  await answers(page.getByText("This is no text that can be edited here."));
  await go("/files/-/fine.rs");
  await answers(page.locator(".source .hljs-keyword"));
  await screenshot(page, "git-marks");
});

test("no other page, and nothing that fails, removes a working copy", options, async (t) => {
  const { node } = await hosted(t, { files: { a: "one\n", b: "one\n" } });
  const missing = /isomorphic-git|ERR_FAILED|dynamically imported/;
  const page = await looking(t, node, notes("/edit"), { expected: missing });
  await page.getByRole("button", { name: "Clone into this browser" }).waitFor();
  const other = await page.context().newPage();
  await other.goto(page.url());
  await other.getByRole("button", { name: "Clone into this browser" }).waitFor();
  await clone(page);
  await edit(page, "a", "ours\n");
  await commitAs(page, "Ours", "Commit");
  await says(page, /Committed 1 file/);
  // Where it was not known of, it is found and not cloned over.
  await clone(other);
  await other.getByText("1 to push").waitFor();
  assert.equal(await stored(page, "a"), "ours\n");

  // What is written in one page is not written over from another.
  await other.goto(new URL(notes("/edit/b"), page.url()).href);
  await other.getByLabel("Content of b").fill("theirs\n");
  await edit(page, "b", "ours\n");
  await other.getByRole("button", { name: "Save" }).click();
  await other.getByText("the file has changed since it was opened here").waitFor();
  assert.equal(await stored(page, "b"), "ours\n");
  await other.close();

  // git itself may not be there, as when the node was updated.
  await page.route(/isomorphic-git/, (route) => route.abort());
  await page.reload();
  await page.getByRole("heading", { name: "The working copy cannot be opened" }).waitFor();
  await screenshot(page, "git-broken");
  await page.unroute(/isomorphic-git/);
  await page.goto(new URL(notes("/edit"), page.url()).href);
  await page.reload();
  await page.getByText("1 to push").waitFor();
  assert.equal(await stored(page, "a"), "ours\n");
});

test("a working copy is found when its repository has another name", options, async (t) => {
  const { node, token, name } = await hosted(t, { files: { a: "one\n", "d/b": "one\n" } });
  const page = await looking(t, node, notes("/edit"));
  await clone(page);
  await edit(page, "d/b", "ours\n");
  await commitAs(page, "Ours", "Commit");
  await says(page, /Committed 1 file/);
  await edit(page, "a", "not committed\n");
  const to = "team/wiki";
  assert.equal((await post(node, token, "/alknet/api/git/rename", { name, to })).status, 200);
  await page.goto(new URL("#/git", page.url()).href);
  await page.getByRole("link", { name: to }).waitFor();
  await page.getByRole("list", { name: "Working copies" }).getByRole("link", { name }).click();
  await page.getByRole("heading", { name: "There is no such repository" }).waitFor();
  await screenshot(page, "git-left");
  await page.getByRole("button", { name: "It is this one now" }).click();
  await page.getByText("1 to push").waitFor();
  assert.equal(new URL(page.url()).hash, "#/git/team%2Fwiki/edit");
  await page.getByLabel("Commit a").waitFor();
  await page.getByRole("button", { name: "Push", exact: true }).click();
  await says(page, "Pushed.");
  git(bare(node, to), "fsck", "--strict");
  assert.equal(git(bare(node, to), "show", "main:d/b"), "ours\n");
  await page.goto(new URL("#/git", page.url()).href);
  await page.getByRole("link", { name: to }).waitFor();
  assert.equal(await page.getByRole("list", { name: "Working copies" }).count(), 0);
  // Where there is none, the page says no more than that.
  await page.goto(new URL(notes("/edit"), page.url()).href);
  await page.getByRole("heading", { name: "There is no such repository" }).waitFor();
  assert.equal(await page.getByRole("button", { name: "It is this one now" }).count(), 0);
});

test(
  "what is edited or was left out stays so, whatever becomes of the rest",
  options,
  async (t) => {
    const { node, name } = await hosted(t, { files: { a: "one\n", b: "one\n", c: "one\n" } });
    const page = await looking(t, node, notes("/edit"));
    await clone(page);
    await edit(page, "b", "ours\n");
    await edit(page, "c", "ours\n");
    await page.getByLabel("Commit c").uncheck();
    await page.getByLabel("Message").fill("Half of it");
    await page.goto(new URL(notes("/edit/a"), page.url()).href);
    await page.getByLabel("Content of a").fill("typed\n");
    await page.getByRole("button", { name: "Discard the changes of b" }).click();
    await page.getByRole("button", { name: "Discard", exact: true }).click();
    await page.getByText("Not saved").waitFor();
    await page.getByText("Lose what is in b?").waitFor({ state: "detached" });
    assert.equal(await stored(page, "b"), "one\n");
    assert.equal(await page.getByLabel("Content of a").inputValue(), "typed\n");
    await page.getByLabel("Commit c").uncheck();
    await page.getByRole("button", { name: "Save" }).click();
    await page.getByLabel("Commit a").waitFor();
    assert.equal(await page.getByLabel("Commit c").isChecked(), false);
    assert.equal(await page.getByLabel("Message").inputValue(), "Half of it");
    await page.getByRole("button", { name: "Commit and push" }).click();
    await says(page, "Pushed.");
    assert.equal(git(bare(node, name), "diff", "--name-only", "main~1", "main"), "a\n");
  },
);

for (const via of CARRIERS) {
  test(`cloned, edited, committed and pushed in the page, over ${via}`, options, async (t) => {
    const files = { "README.md": "# One\n", "docs/guide.md": "guide\r\n", "data/noise": "" };
    files["data/noise"] = Array.from({ length: 20_000 }, (_, at) => `${at * 7919}`).join("\n");
    const { node, name, first } = await hosted(t, {
      files,
      prepare: (source) => {
        if (fs.existsSync(join(source, "run.sh"))) return;
        writeFileSync(join(source, "run.sh"), "#!/bin/sh\n");
        chmodSync(join(source, "run.sh"), 0o755);
        symlinkSync("run.sh", join(source, "start"));
      },
    });
    const page = await looking(t, node, notes("/edit"), { via });
    const sockets = [];
    page.on("websocket", (socket) => sockets.push(new URL(socket.url()).pathname));
    await clone(page);
    await page.getByText("Nothing has changed here.").waitFor();
    assert.equal(await page.locator(".said").innerText(), "");
    await screenshot(page, `git-desk-${via}`);
    const head = await stored(page, ".git/refs/heads/main");
    assert.equal(head.trim(), first);
    assert.equal(sockets.includes("/alknet/git"), via === "websocket");

    await edit(page, "README.md", "# Two\n");
    await edit(page, "docs/guide.md", "guide\nmore\n");
    await edit(page, "run.sh", "#!/bin/sh\necho hello\n");
    await edit(page, "new/file.txt", "new\n");
    await screenshot(page, `git-edit-${via}`);
    // The working copy is there on the next visit, too, with what was not committed.
    await page.reload();
    await page.locator(".changed li").nth(3).waitFor();
    assert.equal(await page.locator(".changed li").count(), 4);
    await commitAs(page, "Change this and that", "Commit and push");
    await says(page, "Pushed.");
    await page.getByText("as it was at the node").waitFor();

    const repository = bare(node, name);
    git(repository, "fsck", "--strict");
    const id = git(repository, "rev-parse", "main").trim();
    assert.equal((await stored(page, ".git/refs/heads/main")).trim(), id);
    assert.equal(git(repository, "rev-parse", "main~1").trim(), first);
    assert.equal(git(repository, "show", "main:README.md"), "# Two\n");
    assert.equal(git(repository, "show", "main:docs/guide.md"), "guide\r\nmore\r\n");
    assert.equal(git(repository, "show", "main:new/file.txt"), "new\n");
    // The browser knows no modes, so they stay as they were.
    assert.match(git(repository, "ls-tree", "main", "run.sh"), /^100755/);
    assert.match(git(repository, "ls-tree", "main", "start"), /^120000/);
    assert.match(git(repository, "ls-tree", "main", "README.md"), /^100644/);
    const changed = git(repository, "diff", "--name-only", "main~1", "main");
    assert.deepEqual(changed.trim().split("\n").sort(), [
      "README.md",
      "docs/guide.md",
      "new/file.txt",
      "run.sh",
    ]);
    assert.equal(git(repository, "log", "-1", "--format=%an", "main").trim(), "owner");

    await page.getByRole("button", { name: "Remove", exact: true }).click();
    await page.getByRole("button", { name: "Remove it" }).click();
    await page.getByRole("button", { name: "Clone into this browser" }).waitFor();
    await page.reload();
    await page.getByRole("button", { name: "Clone into this browser" }).waitFor();
  });
}

test("a push that is behind says what to do, and pulling merges", options, async (t) => {
  const { node, name, commit } = await hosted(t, {
    files: { a: "one\n", b: "one\ntwo\nthree\n" },
  });
  const page = await looking(t, node, notes("/edit"));
  await clone(page);
  const theirs = commit({ b: "one\ntwo\nTHREE\n" }, "Theirs");
  await edit(page, "a", "ours\n");
  await commitAs(page, "Ours", "Commit and push");
  await says(page, /has moved on at the node/);
  await screenshot(page, "git-behind");
  assert.equal(git(bare(node, name), "rev-parse", "main").trim(), theirs);
  await page.locator(".offer").getByRole("button", { name: "Pull" }).click();
  await says(page, "Up to date with the node.");
  await page.getByRole("button", { name: "Push", exact: true }).click();
  await says(page, "Pushed.");
  git(bare(node, name), "fsck", "--strict");
  assert.equal(git(bare(node, name), "show", "main:a"), "ours\n");
  assert.equal(git(bare(node, name), "show", "main:b"), "one\ntwo\nTHREE\n");
  assert.equal(git(bare(node, name), "rev-list", "--merges", "--count", "main").trim(), "1");

  // Where both have changed the same lines, nothing is lost, and there is a way out.
  const source = join(node.home, "source");
  git(source, "pull", "-q", "--ff-only", bare(node, name), "main");
  const next = commit({ a: "theirs\n" }, "Theirs again");
  await edit(page, "a", "ours again\n");
  await commitAs(page, "Ours again", "Commit");
  await says(page, /Committed 1 file/);
  await page.getByRole("button", { name: "Pull", exact: true }).click();
  await says(page, /the same lines have changed: a/);
  await screenshot(page, "git-conflict");
  assert.equal(await stored(page, "a"), "ours again\n");
  await page.getByLabel("Name of the branch").fill("mine");
  await page.getByRole("button", { name: "Push as a branch" }).click();
  await says(page, "Pushed as mine.");
  assert.equal(git(bare(node, name), "rev-parse", "main").trim(), next);
  assert.equal(git(bare(node, name), "show", "mine:a"), "ours again\n");
  // Behind that, what the node has can be taken.
  await page.getByRole("button", { name: "Pull", exact: true }).click();
  await says(page, /the same lines have changed: a/);
  await page.getByRole("button", { name: "Drop mine" }).click();
  await page.locator(".ask").getByRole("button", { name: "Drop mine" }).click();
  await page.getByText("as it was at the node").waitFor();
  assert.equal(await stored(page, "a"), "theirs\n");
  assert.equal((await stored(page, ".git/refs/heads/main")).trim(), next);
});

test("an empty repository is made and gets its first commit in the page", options, async (t) => {
  const node = await startNode(t);
  const page = await looking(t, node);
  await page.getByRole("link", { name: "New", exact: true }).click();
  await page.getByLabel("Name", { exact: true }).fill("team/notes");
  await page.getByLabel("Description").fill("What we noted");
  await page.getByRole("button", { name: "Create" }).click();
  await page.getByText("Nothing here yet").waitFor();
  await page.getByText("git push -u origin main").first().waitFor();
  await screenshot(page, "git-empty");
  await page.getByRole("link", { name: "in this browser" }).click();
  await clone(page);
  await edit(page, "README.md", "# First\n");
  await commitAs(page, "Begin", "Commit and push");
  await says(page, "Pushed.");
  git(bare(node, "team/notes"), "fsck", "--strict");
  await page.getByRole("link", { name: "Files", exact: true }).click();
  await page.getByRole("heading", { name: "First" }).waitFor();

  await page.getByRole("link", { name: "Settings" }).click();
  await page.getByLabel("Protected branches").fill("main");
  await page.getByLabel("Description").fill("Noted");
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByText("Saved.").waitFor();
  await page.reload();
  await page.getByLabel("Protected branches").waitFor();
  assert.equal(await page.getByLabel("Protected branches").inputValue(), "main");
  assert.equal(await page.getByLabel("Description").inputValue(), "Noted");
  const shown = async () => {
    const answer = await post(node, tokenOf(node), "/alknet/api/git/show", { name: "team/notes" });
    return JSON.parse(answer.text);
  };
  assert.deepEqual([(await shown()).quota, (await shown()).lfs], [null, true]);
  await page.getByLabel("How large it may grow").fill("512");
  await page.getByLabel("Large files").uncheck();
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByText("Saved.").waitFor();
  assert.deepEqual([(await shown()).quota, (await shown()).lfs], [512 * 1024 * 1024, false]);
  await page.getByLabel("How large it may grow").fill("");
  await page.getByText("Saved.").waitFor({ state: "detached" });
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByText("Saved.").waitFor();
  assert.equal((await shown()).quota, null);
  // What has something in it becomes no mirror.
  await page.getByLabel("Copy of").fill("https://mirrors.example/tool.git");
  await page.getByRole("button", { name: "Mirror it" }).click();
  await page.locator(".complaint", { hasText: /^team\/notes has content/ }).waitFor();
  assert.equal((await shown()).mirror, null);
  await screenshot(page, "git-settings");
  await page.getByLabel("Name", { exact: true }).fill("notes");
  await page.getByRole("button", { name: "Rename" }).click();
  await page.getByRole("heading", { name: "First" }).waitFor();
  assert.equal(new URL(page.url()).hash, "#/git/notes");
  await page.getByRole("link", { name: "Settings" }).click();
  await page.getByLabel("Type notes to delete it").fill("notes");
  await page.getByRole("button", { name: "Delete for good" }).click();
  await page.getByRole("heading", { name: "Repositories" }).waitFor();
  assert.equal(fs.existsSync(bare(node, "notes")), false);
});

test("a mirror is set up, looked after and given up in the page", options, async (t) => {
  const node = await startNode(t);
  const token = tokenOf(node);
  const name = "team/notes";
  await post(node, token, "/alknet/api/git/create", { name });
  const page = await looking(t, node, notes("/settings"));
  await page.getByLabel("Copy of").fill("ext::sh -c true");
  await page.getByRole("button", { name: "Mirror it" }).click();
  await page.locator(".complaint").waitFor();
  await page.getByLabel("Copy of").fill("https://mirrors.example/tool.git");
  await page.getByLabel("How often it looks for news").fill("6h");
  await page.getByRole("button", { name: "Mirror it" }).click();
  await page.getByRole("button", { name: "Look for news now" }).waitFor();
  assert.equal(await page.getByLabel("How often it looks for news").inputValue(), "6h");
  await page.getByRole("button", { name: "Look for news now" }).click();
  await page.locator(".complaint").waitFor();
  await screenshot(page, "git-mirror");
  await page.getByRole("button", { name: "Mirror it no more" }).click();
  await page.getByRole("button", { name: "Mirror it", exact: true }).waitFor();
  const shown = await post(node, token, "/alknet/api/git/show", { name });
  assert.equal(JSON.parse(shown.text).mirror, null);
});

test("a working copy in a folder that was picked", options, async (t) => {
  const { node, name, first } = await hosted(t, { files: { a: "one\n" } });
  const page = await looking(t, node, notes("/edit"));
  // Nobody can click in the browser's own dialog; a folder of its storage stands for one.
  const pick = () => {
    window.showDirectoryPicker = async () => {
      const root = await navigator.storage.getDirectory();
      return await root.getDirectoryHandle("picked", { create: true });
    };
  };
  await page.addInitScript(pick);
  await page.reload();
  await page.getByRole("button", { name: "Clone into a folder…" }).click();
  await page.waitForSelector(".desk");
  await page.getByText("in the folder notes").waitFor();
  await page.reload();
  await page.getByText("in the folder notes").waitFor();
  await edit(page, "a", "two\n");
  await commitAs(page, "Two", "Commit and push");
  await says(page, "Pushed.");
  assert.equal(git(bare(node, name), "rev-parse", "main~1").trim(), first);
  // Forgotten, its files stay, and nothing is written over them.
  await page.getByRole("button", { name: "Remove", exact: true }).click();
  await page.getByRole("button", { name: "Forget it" }).click();
  await page.getByRole("button", { name: "Clone into a folder…" }).click();
  await page.getByText("has a folder notes already").waitFor();
});

test(
  "on a phone nothing is out of reach, and the terminal is one step away",
  options,
  async (t) => {
    const { node } = await hosted(t, {
      files: {
        "README.md": `# Notes\n\n${"wide ".repeat(99)}\n`,
        "src/main.rs": `${"x".repeat(400)}\n`,
      },
    });
    const viewport = { width: 375, height: 667 };
    const profile = { viewport, hasTouch: true, isMobile: true, colorScheme: "light" };
    const page = await looking(t, node, notes(), { profile });
    const narrow = async (what) => {
      const width = await page.evaluate(() => document.querySelector("#repositories").scrollWidth);
      assert.ok(width <= viewport.width, `${what}: ${width}`);
      await screenshot(page, `git-phone-${what}`);
    };
    await page.getByRole("heading", { name: "Notes", exact: true }).waitFor();
    await narrow("files");
    await page.goto(new URL(notes("/files/-/src/main.rs"), page.url()).href);
    await page.locator(".source").waitFor();
    await narrow("file");
    await page.getByRole("link", { name: "History", exact: true }).first().click();
    await page.getByRole("link", { name: "Begin" }).click();
    await page.locator(".diff").first().waitFor();
    await narrow("commit");
    await page.getByRole("link", { name: "Working copy" }).click();
    await clone(page);
    await narrow("work");
    await page.getByRole("link", { name: "Terminal" }).click();
    await page.waitForSelector("#status[data-kind=live]");
    assert.equal(await page.locator("#repositories").isVisible(), false);
    await page.goBack();
    await page.waitForSelector(".desk");
  },
);

test(
  "what is not there says so, and what was edited is not lost in passing",
  options,
  async (t) => {
    const { node } = await hosted(t, { files: { a: "one\n" } });
    const page = await looking(t, node, "#/git/team%2Fother");
    await page.getByRole("heading", { name: "There is no such repository" }).waitFor();
    await page.goto(new URL(notes("/files/-/nothing"), page.url()).href);
    await page.getByRole("heading", { name: "There is no such file" }).waitFor();
    await page.goto(new URL(notes("/edit"), page.url()).href);
    await clone(page);
    await page.getByRole("link", { name: "a", exact: true }).click();
    await page.getByLabel("Content of a").fill("two\n");
    page.once("dialog", (dialog) => dialog.dismiss());
    await page.getByRole("link", { name: "History", exact: true }).click();
    await page.getByText("Not saved").waitFor();
    assert.equal(await page.getByLabel("Content of a").inputValue(), "two\n");
    page.once("dialog", (dialog) => dialog.accept());
    await page.getByRole("link", { name: "History", exact: true }).click();
    await page.locator(".commits").waitFor();
  },
);

/** What the page asks, each time answered so. */
function answering(page, accept) {
  const asked = [];
  page.removeAllListeners("dialog");
  page.on("dialog", async (dialog) => {
    asked.push(dialog.message());
    await (accept ? dialog.accept() : dialog.dismiss());
  });
  return asked;
}

/** Waits until the page has asked so many times. */
async function isAsked(page, asked, times) {
  while (asked.length < times) await page.waitForEvent("dialog");
  assert.equal(asked.length, times);
}

/** Has whatever changes the working copy wait until it is let go on. */
async function hold(page) {
  await page.evaluate(async () => {
    await new Promise((held) => {
      const released = new Promise((release) => (window.release = release));
      void navigator.locks.request("alknet-git team/notes", () => (held(), released));
    });
  });
  return async () => await page.evaluate(() => window.release());
}

test("nobody goes to the terminal without what they have edited", options, async (t) => {
  const { node } = await hosted(t, { files: { a: "one\n" } });
  const page = await looking(t, node, notes("/edit"));
  await clone(page);
  const terminal = page.getByRole("link", { name: "Terminal" });
  await terminal.click();
  await page.waitForSelector("#status[data-kind=live]");
  await page.goto(new URL(notes("/edit/a"), page.url()).href);
  const editor = page.getByLabel("Content of a");
  await editor.fill("two\n");
  const asked = answering(page, false);
  const stays = async (times) => {
    await isAsked(page, asked, times);
    assert.equal(await editor.inputValue(), "two\n");
    assert.equal(new URL(page.url()).hash, notes("/edit/a"));
    assert.equal(await page.locator("#terminal").evaluate((it) => it.inert), true);
    assert.equal(await page.getAttribute("#to-repositories", "aria-current"), "page");
  };
  await page.goBack();
  await stays(1);
  await terminal.click();
  await stays(2);
  // To another file of the copy it is asked once, too.
  await page.getByRole("link", { name: "Working copy" }).last().click();
  await stays(3);
  await page.getByText("Not saved").waitFor();
  const left = answering(page, true);
  await terminal.click();
  await page.locator("#repositories").waitFor({ state: "hidden" });
  assert.equal(left.length, 1);
  assert.equal(await page.locator("#terminal").evaluate((it) => it.inert), false);
  assert.equal(asked.length, 3);
});

test("who is signed out while they edit can save what they have", options, async (t) => {
  const { node } = await hosted(t, { files: { a: "one\n" } });
  const page = await looking(t, node, notes("/edit"));
  await clone(page);
  await page.getByRole("link", { name: "a", exact: true }).click();
  const editor = page.getByLabel("Content of a");
  await editor.fill("two\n");
  const sessions = JSON.parse(alknet(node, "token", "list", "--json"));
  for (const { id } of sessions) alknet(node, "token", "revoke", id);
  await page.getByText(/You are not signed in/).waitFor();
  await screenshot(page, "git-signed-out");
  assert.equal(await editor.inputValue(), "two\n");
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByText("Saved.", { exact: true }).waitFor();
  assert.equal(await stored(page, "a"), "two\n");
  await page.getByRole("link", { name: "History", exact: true }).click();
  await page.getByRole("heading", { name: "You are not signed in" }).waitFor();
});

test("what is typed while the copy changes stays in the editor", options, async (t) => {
  const { node, source, name, commit } = await hosted(t, { files: { a: "one\n", b: "one\n" } });
  git(source, "push", "-q", bare(node, name), "main:dev");
  const page = await looking(t, node, notes("/edit"));
  await clone(page);
  await page.getByText("Nothing has changed here.").waitFor();
  await page.getByRole("link", { name: "a", exact: true }).click();
  const editor = page.getByLabel("Content of a");
  await editor.waitFor();
  await page.getByText("as it was at the node").waitFor();

  /** Goes to a branch, and types before it is there. */
  const branch = async (name, text) => {
    await page.locator(".deskbar").evaluate((it) => (it.firstChild.dataset.before = ""));
    const release = await hold(page);
    await page.getByLabel("Branch").selectOption(name);
    await editor.fill(text);
    await release();
    await page.locator(".deskbar select:not([data-before])").waitFor();
    assert.equal((await stored(page, ".git/HEAD")).trim(), `ref: refs/heads/${name}`);
    assert.equal(await editor.inputValue(), text);
  };
  await branch("dev", "ours\n");
  await editor.fill("one\n");
  await branch("main", "one\n");

  commit({ a: "theirs\n" }, "Theirs");
  const release = await hold(page);
  await page.getByRole("button", { name: "Pull", exact: true }).click();
  await editor.fill("ours\n");
  await release();
  await says(page, "Up to date with the node.");
  assert.equal(await stored(page, "a"), "theirs\n");
  assert.equal(await editor.inputValue(), "ours\n");
  // And it is not written over what has come.
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByText("the file has changed since it was opened here").waitFor();
  assert.equal(await stored(page, "a"), "theirs\n");
});

test("what could not be dropped is still asked for", options, async (t) => {
  const { node, commit } = await hosted(t, { files: { a: "one\n", b: "one\n" } });
  const page = await looking(t, node, notes("/edit"));
  await clone(page);
  commit({ a: "theirs\n" }, "Theirs");
  await edit(page, "a", "ours\n");
  await commitAs(page, "Ours", "Commit");
  await says(page, /Committed 1 file/);
  await page.goto(new URL(notes("/edit/b"), page.url()).href);
  const editor = page.getByLabel("Content of b");
  await editor.waitFor();
  await page.getByRole("button", { name: "Pull", exact: true }).click();
  await says(page, /the same lines have changed: a/);
  await editor.fill("two\n");
  await page.evaluate(() => {
    navigator.locks.request = () => Promise.reject(new Error("locked out"));
  });
  await page.getByRole("button", { name: "Drop mine" }).click();
  await page.locator(".ask").getByRole("button", { name: "Drop mine" }).click();
  await says(page, "Locked out.");
  const asked = answering(page, false);
  await page.getByRole("link", { name: "History", exact: true }).click();
  await isAsked(page, asked, 1);
  assert.equal(await editor.inputValue(), "two\n");
});

test("all that has changed is discarded at once", options, async (t) => {
  const { node } = await hosted(t, { files: { a: "one\n", "d/b": "one\n", c: "one\n" } });
  const page = await looking(t, node, notes("/edit"));
  await clone(page);
  await edit(page, "a", "two\n");
  const all = page.getByRole("button", { name: "Discard all" });
  await page.getByLabel("Commit a").waitFor();
  assert.equal(await all.count(), 0);
  await edit(page, "d/b", "two\n");
  await edit(page, "new/file", "two\n");
  await page.goto(new URL(notes("/edit/c"), page.url()).href);
  await page.getByLabel("Content of c").fill("typed\n");
  await all.click();
  await page.getByText("Lose what has changed in 3 files since the last commit?").waitFor();
  await screenshot(page, "git-discard");
  await page.getByRole("button", { name: "Keep it" }).click();
  assert.equal(await page.locator(".changed li").count(), 3);
  await all.click();
  await page.getByRole("button", { name: "Discard them" }).click();
  await page.getByText("Nothing has changed here.").waitFor();
  for (const path of ["a", "d/b", "c"]) assert.equal(await stored(page, path), "one\n");
  await assert.rejects(stored(page, "new/file"), /NotFoundError/);
  assert.equal(await page.getByLabel("Content of c").inputValue(), "typed\n");
});

test("a page of settings that was left open sets nothing back", options, async (t) => {
  const { node, token, name, source } = await hosted(t, { files: { a: "one\n" } });
  git(source, "push", "-q", bare(node, name), "main:dev");
  const ask = async (operation, settings = {}) => {
    const answer = await post(node, token, `/alknet/api/git/${operation}`, { name, ...settings });
    assert.equal(answer.status, 200, answer.text);
    return JSON.parse(answer.text);
  };
  await ask("configure", { public: true });
  const page = await looking(t, node, notes("/settings"));
  const open = page.getByLabel("Public:");
  await open.waitFor();
  assert.equal(await open.isChecked(), true);
  await ask("configure", { public: false, lfs: false });
  const save = async () => {
    await page.getByRole("button", { name: "Save" }).click();
    await page.getByText("Saved.").waitFor();
  };
  await page.getByLabel("Description").fill("Noted");
  await save();
  const { description, public: is, lfs } = await ask("show");
  assert.deepEqual({ description, is, lfs }, { description: "Noted", is: false, lfs: false });
  // The page shows what it has learnt, and goes by that.
  assert.equal(await open.isChecked(), false);
  for (const branch of ["dev", "main"]) {
    await page.getByLabel("Default branch").selectOption(branch);
    await page.getByText("Saved.").waitFor({ state: "detached" });
    await save();
    assert.equal((await ask("show")).default_branch, branch);
  }
  assert.equal((await ask("show")).public, false);
});

test("a clone over a network that stalls is cancelled, and begun again", options, async (t) => {
  const relay = await startRelay(t);
  const config = `origins = ["${relay.origin}"]\n`;
  const { node, first } = await hosted(t, { files: { a: "one\n" }, config });
  relay.target = new URL(node.origin).port;
  const signIn = node.signIn.replace(node.origin, relay.origin);
  const page = await looking(t, { ...node, origin: relay.origin, signIn }, notes("/edit"));
  // Once before git is loaded, and once when the node is what is waited for.
  for (const loaded of [false, true]) {
    relay.cut();
    await page.getByRole("button", { name: "Clone into this browser" }).click();
    await page.locator(".progress").waitFor();
    await page.getByRole("button", { name: "Cancel" }).click();
    await page.locator(".progress").waitFor({ state: "detached" });
    assert.equal(await page.locator(".desk, .complaint").count(), 0);
    relay.restore({ forgotten: true });
    await page.reload();
    await clone(page);
    assert.equal((await stored(page, ".git/refs/heads/main")).trim(), first);
    if (loaded) return;
    await page.getByRole("button", { name: "Remove", exact: true }).click();
    await page.getByRole("button", { name: "Remove it" }).click();
    await page.getByRole("button", { name: "Clone into this browser" }).waitFor();
  }
});

test("who is not signed in any more is told so", options, async (t) => {
  const { node } = await hosted(t, { files: { a: "one\n" } });
  const page = await looking(t, node, notes());
  await page.getByRole("link", { name: "a", exact: true }).waitFor();
  const sessions = JSON.parse(alknet(node, "token", "list", "--json"));
  for (const { id } of sessions) alknet(node, "token", "revoke", id);
  await page.getByRole("heading", { name: "You are not signed in" }).waitFor();
});
