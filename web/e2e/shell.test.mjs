// Shells that keep running, in a real browser against a real node.
import assert from "node:assert/strict";
import { execFile, execFileSync } from "node:child_process";
import { closeSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import {
  carrier,
  line,
  live,
  newPage,
  received,
  screenshot,
  scrollback,
  shellSize,
  startBrowser,
  titled,
  type,
} from "./browser.mjs";
import { shells } from "../client/dist/node/index.js";
import { cleanUp } from "./cleanup.mjs";
import { alknet, startNode } from "./node.mjs";
import { startRelay } from "./relay.mjs";

const options = { timeout: 180_000 };
const CARRIERS = ["webtransport", "websocket"];

/** The app, over one carrier. */
const app = (node, query = "") => `${node.origin}/alknet/app/${query}`;

/** A page that is signed in, with a shell over this carrier. */
async function signedIn(t, browser, node, via = "auto", profile = {}) {
  const page = await newPage(t, browser, profile);
  await page.goto(node.signIn);
  await live(page);
  await page.goto(app(node, `?via=${via}`));
  await live(page);
  return page;
}

/** Another browser profile of the same person. */
async function elsewhere(t, browser, node, profile = {}) {
  const [signIn] = JSON.parse(alknet(node, "token", "link", "--json"));
  const page = await newPage(t, browser, profile);
  await page.goto(signIn);
  await live(page);
  return page;
}

/** The shells that run, as a script of the same person sees them. */
async function list(node) {
  const token = alknet(node, "token", "create", "--scope", "shell").trim();
  return await shells({ origin: node.origin, node: node.id, token }).list();
}

/** Opens the menu, and waits for what runs now: what is clicked before goes when that comes. */
async function menu(page) {
  await page.evaluate(() => {
    for (const row of document.querySelectorAll("#shell-list .shell")) row.dataset.before = "";
  });
  await page.click("#menu-button");
  await page.locator("#shell-list .shell:not([data-before])").first().waitFor();
}

const status = (page) => page.innerText("#status");

/** Waits for the page to say so in its bar. */
async function says(page, pattern) {
  await page.locator("#status", { hasText: pattern }).waitFor();
}

for (const via of CARRIERS) {
  test(`a reload takes the shell up again, over ${via}`, options, async (t) => {
    const node = await startNode(t);
    const page = await signedIn(t, await startBrowser(t, node), node, via);
    assert.equal(await carrier(page), via);
    await type(page, "mark=$((6 * 7)); seq -f 'line %g' 200", /line 200/);
    await page.keyboard.type("echo half a com");
    await line(page, /.*half a com/);
    await page.reload();
    await live(page);
    assert.equal(await carrier(page), via);
    await line(page, /.*half a com/);
    const lines = (await scrollback(page)).flat();
    for (const wanted of ["line 1", "line 57", "line 200"])
      assert.ok(lines.includes(wanted), wanted);
    await type(page, "mand $mark", /half a command 42/);
    assert.deepEqual(
      (await list(node)).map(({ name }) => name),
      ["main"],
    );
  });
}

test("nothing of a viewer is in an address or in what outlives the tab", options, async (t) => {
  const node = await startNode(t);
  const page = await newPage(t, await startBrowser(t, node));
  const addresses = [];
  page.on("request", (request) => addresses.push(request.url()));
  page.on("websocket", (socket) => addresses.push(socket.url()));
  await page.goto(node.signIn);
  await live(page);
  const { kept, viewer } = await page.evaluate(() => ({
    kept: JSON.stringify({ ...localStorage }) + document.cookie,
    viewer: JSON.parse(sessionStorage.getItem("alknet.shell")).viewer,
  }));
  assert.match(viewer.viewer, /^[0-9a-f]{32}$/);
  for (const secret of [viewer.viewer, viewer.session]) {
    assert.ok(!kept.includes(secret));
    assert.ok(!addresses.some((address) => address.includes(secret)));
  }
});

test("another browser takes the session up when the tab is closed", options, async (t) => {
  const node = await startNode(t);
  const browser = await startBrowser(t, node);
  const page = await signedIn(t, browser, node);
  await type(page, "device=first; echo on $device", /on first/);
  await page.close();
  const other = await elsewhere(t, browser, node);
  await line(other, /on first/);
  await type(other, "echo still $device", /still first/);
});

test("two viewers see the same, and one that looks on types nothing", options, async (t) => {
  const node = await startNode(t);
  const browser = await startBrowser(t, node);
  const page = await signedIn(t, browser, node, "webtransport", { colorScheme: "light" });
  const other = await elsewhere(t, browser, node, {
    viewport: { width: 700, height: 420 },
    colorScheme: "dark",
  });
  await says(page, /1 other viewer/);
  await type(page, "echo a$((1 + 1))", /a2/);
  await line(other, /a2/);
  await type(other, "echo b$((1 + 1))", /b2/);
  await line(page, /b2/);
  // The terminal is as large as the smaller of the two has room for.
  const small = await shellSize(other);
  assert.equal(await page.locator(".xterm-rows > div").count(), small.rows);
  await screenshot(page, "shell-two-viewers");

  await menu(other);
  await screenshot(other, "shell-menu-dark");
  await other.getByRole("button", { name: "Watch main" }).click();
  await says(other, /looking on/);
  await line(page, /b2/);
  await other.keyboard.type("echo c$((1 + 1))\n");
  await type(page, "echo d$((1 + 1))", /d2/);
  await line(other, /d2/);
  const seen = (await scrollback(page)).flat();
  assert.ok(!seen.some((text) => /c2|echo c/.test(text)), seen.join("\n"));
  // Who looks on is shown all of a terminal that is larger than the window.
  const large = await shellSize(page);
  assert.ok(large.rows > small.rows, JSON.stringify({ large, small }));
  await other.locator(`.xterm-rows > div:nth-child(${large.rows})`).waitFor({ state: "attached" });
  await screenshot(other, "shell-watching");

  await other.reload();
  await says(other, /looking on/);
  await menu(other);
  await other.getByRole("button", { name: "Open main" }).click();
  // Until then it looks on, and what is typed goes nowhere.
  await says(other, /^(?!.*looking on).*1 other viewer/);
  await type(other, "echo e$((1 + 1))", /e2/);
});

test(
  "shells by name: a new one, another, detached, and ended with a question",
  options,
  async (t) => {
    const node = await startNode(t);
    const page = await signedIn(t, await startBrowser(t, node), node, "auto", {
      colorScheme: "light",
    });
    await type(page, "where=main; echo in $where", /in main/);
    await menu(page);
    await page.getByLabel("Name of a new shell").fill("build");
    await page.keyboard.press("Enter");
    await says(page, /in build/);
    await type(page, "where=build; echo in $where", /in build/);
    await menu(page);
    await page.getByRole("button", { name: "Open main" }).waitFor();
    await screenshot(page, "shell-menu-light");
    await page.keyboard.press("Escape");
    // Typing goes to the terminal again.
    await type(page, "echo back in $where", /back in build/);
    await menu(page);
    await page.getByRole("button", { name: "Open main" }).click();
    await says(page, /in main/);
    await type(page, "echo now in $where", /now in main/);

    await menu(page);
    await page.getByRole("button", { name: "End build" }).click();
    await page.getByText("End build and all that runs in it?").waitFor();
    await screenshot(page, "shell-menu-end");
    await page.getByRole("button", { name: "Keep it" }).click();
    await page.getByRole("button", { name: "End build" }).click();
    await page.getByRole("button", { name: "End it" }).click();
    const build = page.locator("#shell-list .shell", { hasText: "build" });
    await build.waitFor({ state: "detached" });
    await page.keyboard.press("Escape");

    await menu(page);
    await page.getByRole("button", { name: "Detach" }).click();
    await titled(page, "Detached");
    await screenshot(page, "shell-detached");
    const [session] = await list(node);
    assert.deepEqual([session.name, session.viewers], ["main", []]);
    await page.keyboard.press("Enter");
    await live(page);
    await type(page, "echo again in $where", /again in main/);

    await menu(page);
    await page.getByRole("button", { name: "End main" }).click();
    await page.getByRole("button", { name: "End it" }).click();
    await page.getByText("Somebody has ended this shell.").waitFor();
  },
);

test("a tab that is copied gets a viewer of its own", options, async (t) => {
  const node = await startNode(t);
  const browser = await startBrowser(t, node);
  const page = await signedIn(t, browser, node);
  await type(page, "echo a$((1 + 1))", /a2/);
  const kept = await page.evaluate(() => sessionStorage.getItem("alknet.shell"));
  const copy = await page.context().newPage();
  // Browsers copy the session store with the tab.
  await copy.addInitScript((kept) => {
    if (sessionStorage.length === 0) sessionStorage.setItem("alknet.shell", kept);
  }, kept);
  await copy.goto(app(node));
  await live(copy);
  await says(copy, /1 other viewer/);
  await says(page, /1 other viewer/);
  await type(page, "echo b$((1 + 1))", /b2/);
  await type(copy, "echo c$((1 + 1))", /c2/);
  await line(page, /c2/);
  const [{ viewers }] = await list(node);
  assert.equal(viewers.filter(({ away }) => !away).length, 2);
});

for (const via of CARRIERS) {
  for (const forgotten of [false, true]) {
    const how = forgotten ? "forgets its connections" : "stalls";
    test(`no byte is lost or doubled when the network ${how}, over ${via}`, options, async (t) => {
      const relay = await startRelay(t);
      const node = await startNode(t, { config: `origins = ["${relay.origin}"]\n` });
      relay.target = new URL(node.origin).port;
      const browser = await startBrowser(t, node);
      const reached = { ...node, origin: relay.origin };
      reached.signIn = node.signIn.replace(node.origin, relay.origin);
      const page = await signedIn(t, browser, reached, via);
      const typed = join(node.home, "typed");
      writeFileSync(
        join(node.home, "account/count"),
        `stty -echo
seq -f 'n%05g' 900 | while read n; do echo $n; sleep 0.01; done &
cat > ${typed}
wait
stty echo
echo do''ne
`,
      );
      // Or any later one: a line is on the screen for a moment only.
      await type(page, "clear; . ./count", /n00[1-9]\d\d/);
      const start = await received(page);
      let text = "";
      for (let round = 0; round < 3; round++) {
        await page.keyboard.type(`before ${round}\n`);
        relay.cut();
        await page.keyboard.type(`while it is cut ${round}\n`);
        text += `before ${round}\nwhile it is cut ${round}\n`;
        await page.waitForSelector("#status[data-kind=away]");
        if (round === 0) await screenshot(page, `shell-away-${via}`);
        const back = performance.now();
        relay.restore({ forgotten });
        await live(page);
        t.diagnostic(`back after ${(performance.now() - back).toFixed(0)} ms`);
        assert.equal(await carrier(page), via);
      }
      await line(page, /n00900/);
      await page.keyboard.press("Control+d");
      await line(page, /done/);
      assert.equal(readFileSync(typed, "utf8"), text);
      const pages = await scrollback(page);
      const numbers = pages.map((rows) => rows.filter((row) => row.startsWith("n")));
      for (const rows of numbers) {
        for (let at = 1; at < rows.length; at++) {
          assert.equal(Number(rows[at].slice(1)), Number(rows[at - 1].slice(1)) + 1, rows.join());
        }
      }
      assert.equal(new Set(numbers.flat()).size, 900);
      assert.ok((await received(page)) - start < 900 * 8 + 1_000, "as much as there was");
    });
  }
}

test("a node that is started anew says that the shell is over", options, async (t) => {
  const node = await startNode(t);
  const page = await signedIn(t, await startBrowser(t, node), node);
  await type(page, "echo $((6 * 7))", /42/);
  await node.stop();
  await titled(page, "The node has shut down");
  await screenshot(page, "shell-shut-down");
  await node.restart();
  await page.keyboard.press("Enter");
  await live(page);
  await type(page, "echo new $((6 * 7))", /new 42/);
  await node.kill();
  await page.waitForSelector("#status[data-kind=away]");
  await node.restart();
  await titled(page, "This shell is over");
  await screenshot(page, "shell-over");
  await page.keyboard.press("Enter");
  await live(page);
});

test("signing out ends the shell that no other credential holds", options, async (t) => {
  const node = await startNode(t);
  const page = await signedIn(t, await startBrowser(t, node), node);
  const fifo = join(node.home, "fifo");
  execFileSync("mkfifo", [fifo]);
  // Open for both, so that nobody has to wait for a reader while signals come.
  const held = openSync(fifo, "r+");
  cleanUp(t, () => closeSync(held));
  const trap = `trap "echo hung up > ${fifo}; exit" HUP; echo rea""dy`;
  await type(page, `sh -c '${trap}; while :; do sleep 0.1; done'`, /ready/);
  // Once is enough: it is told by the terminal and by bash.
  const told = promisify(execFile)("head", ["-n", "1", fifo], { timeout: 60_000 });
  await page.click("#sign-out");
  await titled(page, "You are not signed in");
  assert.equal((await told).stdout, "hung up\n");
});

for (const [lacking, prepare] of [
  [
    "a sign-in for SSH alone",
    async (page) => {
      await page.route("**/alknet/session", async (route) => {
        const answer = await route.fetch();
        const session = await answer.json();
        session.identity.scopes = ["ssh"];
        await route.fulfill({ response: answer, json: session });
      });
    },
  ],
  [
    "a node without such shells",
    async (page) => {
      await page.addInitScript(() => {
        const { fetch } = window;
        window.fetch = async (input, init) =>
          init?.body?.includes("alknet/shell")
            ? new Response("", { status: 404 })
            : await fetch(input, init);
      });
    },
  ],
]) {
  test(`${lacking} gets SSH, and says so`, options, async (t) => {
    const node = await startNode(t);
    // For the interception, which is no part of the browser.
    const profile = { ignoreHTTPSErrors: true };
    const page = await newPage(t, await startBrowser(t, node), profile);
    await prepare(page);
    await page.goto(node.signIn);
    await live(page);
    assert.match(await status(page), /SSH, as this sign-in covers no shells that keep running/);
    await type(page, "echo $((6 * 7))", /42/);
    await page.click("#menu-button");
    await page.getByLabel("Transport").waitFor();
    assert.equal(await page.locator("#shells").isVisible(), false);
  });
}

test("the choice of SSH is in the menu and in the address", options, async (t) => {
  const node = await startNode(t);
  const page = await signedIn(t, await startBrowser(t, node), node);
  await page.click("#menu-button");
  await page.getByLabel("Shell", { exact: true }).selectOption("ssh");
  await page.waitForURL(/[?&]shell=ssh/);
  await says(page, /node verified/);
  await live(page);
  await type(page, "echo $((6 * 7))", /42/);
});

test("on a phone everything is within reach", options, async (t) => {
  const node = await startNode(t);
  const viewport = { width: 375, height: 667 };
  const profile = { viewport, hasTouch: true, isMobile: true, colorScheme: "dark" };
  const page = await signedIn(t, await startBrowser(t, node), node, "auto", profile);
  await type(page, "echo $((6 * 7))", /42/);
  await screenshot(page, "shell-phone");
  await menu(page);
  await screenshot(page, "shell-phone-menu");
  const { width } = await page.evaluate(() => ({ width: document.documentElement.scrollWidth }));
  assert.equal(width, viewport.width);
  for (const name of ["End main", "New shell", "Detach"]) {
    const box = await page.getByRole("button", { name }).boundingBox();
    assert.ok(box.x >= 0 && box.x + box.width <= viewport.width, `${name}: ${JSON.stringify(box)}`);
  }
});
