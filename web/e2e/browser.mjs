// A real browser for a test, and the web client's page in it.
import assert from "node:assert/strict";
import { existsSync, mkdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { cleanUp } from "./cleanup.mjs";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const OUT = fileURLToPath(new URL("out", import.meta.url));
const WAIT_MS = 30_000;

/**
 * Starts Chromium. It takes the nodes' self-signed certificates for pages and WebSockets by
 * their keys; WebTransport does not get by with that: see the test on certificate hashes.
 */
export async function startBrowser(test, ...nodes) {
  return await launch(test, nodes, []);
}

/**
 * Starts Chromium so that it takes the node's certificate for WebTransport, too: stands for a
 * certificate that browsers trust.
 */
export async function startTrustingBrowser(test, node) {
  return await launch(test, [node], [`--origin-to-force-quic-on=${new URL(node.origin).host}`]);
}

async function launch(test, nodes, more) {
  if (!existsSync(CHROMIUM)) throw new Error(`no ${CHROMIUM}: install the package chromium`);
  const keys = nodes.map((node) => node.key).join(",");
  const args = ["--no-sandbox", `--ignore-certificate-errors-spki-list=${keys}`, ...more];
  const browser = await chromium.launch({ executablePath: CHROMIUM, args });
  cleanUp(test, () => browser.close());
  return browser;
}

/**
 * A page of a browser profile of its own, which fails the test if the page has an error; but
 * for messages that are `expected`.
 */
export async function newPage(test, browser, options = {}, expected = /^$/) {
  const context = await browser.newContext({ viewport: { width: 1000, height: 600 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(WAIT_MS);
  const errors = [];
  page.on("pageerror", (error) => errors.push(error.stack));
  page.on("console", (message) => {
    const text = message.text();
    if (/Content Security Policy|panicked/.test(text) && !expected.test(text)) errors.push(text);
  });
  cleanUp(test, async () => {
    await context.close();
    assert.deepEqual(errors, []);
  });
  return page;
}

/** Waits for a terminal that is connected, and has what is typed. */
export async function live(page) {
  const handle = await page.waitForFunction(() => {
    // The page may not be there yet.
    const kind = document.querySelector("#status")?.dataset.kind;
    const ready = kind === "live" && document.querySelector("#panel")?.hidden;
    return ready || kind === "bad" ? kind : null;
  });
  const kind = await handle.jsonValue();
  assert.equal(kind, "live", kind === "bad" ? await card(page) : undefined);
}

/** Signs in without opening a shell that keeps running, and opens one that ends with the page. */
export async function openSsh(page, node) {
  const signingIn = { maxRedirects: 0, ignoreHTTPSErrors: true };
  const answer = await page.context().request.get(node.signIn, signingIn);
  assert.equal(answer.status(), 303);
  // Another fragment alone would load nothing.
  await page.goto("about:blank");
  await page.goto(`${node.origin}/alknet/app/?shell=ssh#${node.id}`);
  await live(page);
}

/** Waits for a card with this title. */
export async function titled(page, title) {
  await page.getByRole("heading", { name: title }).waitFor();
}

/** What the card over the terminal says. */
export async function card(page) {
  return await page.innerText("#panel");
}

export async function carrier(page) {
  return await page.getAttribute("#terminal", "data-carrier");
}

/** Types a command, and waits for a line of the terminal that matches. */
export async function type(page, command, answer) {
  await page.keyboard.type(`${command}\n`);
  return await line(page, answer);
}

/** Waits for a line of the terminal that matches as a whole; gives the match. */
export async function line(page, pattern) {
  const handle = await page.waitForFunction(findLine, pattern.source);
  return await handle.jsonValue();
}

function findLine(source) {
  const pattern = new RegExp(`^${source}$`);
  const rows = [...document.querySelectorAll(".xterm-rows > div")];
  const matches = rows.map((row) => row.textContent.trimEnd().match(pattern)).filter(Boolean);
  return matches.length > 0 ? [...matches.at(-1)] : null;
}

/** All that the terminal holds, page by page, each with the last line of the one before. */
export async function scrollback(page) {
  const rows = () =>
    page.evaluate(async () => {
      // What was asked for is drawn by the frame after the next.
      for (let frame = 0; frame < 3; frame++) await new Promise(requestAnimationFrame);
      const rows = [...document.querySelectorAll(".xterm-rows > div")];
      return rows.map((row) => row.textContent.trimEnd());
    });
  /** The pages on the way, until there are no more. */
  const turn = async (key) => {
    for (const pages = [await rows()]; ;) {
      await page.keyboard.press(key);
      const next = await rows();
      if (next.join("\n") === pages.at(-1).join("\n")) return pages;
      pages.push(next);
    }
  };
  await turn("Shift+PageUp");
  return await turn("Shift+PageDown");
}

/** The terminal's size as the shell sees it. */
export async function shellSize(page) {
  const mark = `s${performance.now().toFixed(0)}`;
  const [, rows, cols] = await type(
    page,
    `echo ${mark}: $(stty size)`,
    RegExp(`${mark}: (\\d+) (\\d+)`),
  );
  return { rows: Number(rows), cols: Number(cols) };
}

/** Bytes the page has received from the shell. */
export async function received(page) {
  return Number(await page.getAttribute("#traffic", "data-received"));
}

export async function screenshot(page, name) {
  mkdirSync(OUT, { recursive: true });
  await page.screenshot({ path: `${OUT}/${name}.png` });
}
