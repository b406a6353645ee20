// The web client in a real browser against a real node.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import {
  card,
  carrier,
  line,
  live,
  newPage,
  openSsh,
  received,
  screenshot,
  shellSize,
  startBrowser,
  startTrustingBrowser,
  titled,
  type,
} from "./browser.mjs";
import { cleanUp } from "./cleanup.mjs";
import { alknet, post, startNode } from "./node.mjs";

const TEN_MEGABYTES = 10 * 1024 * 1024;
const options = { timeout: 120_000 };

/** Notes what the page asks of WebTransport, which is all that there is. */
function recordWebTransport() {
  // An empty page on the way has none.
  if (!("WebTransport" in window)) return;
  window.dials = [];
  // On a slow machine one could be there first, in spite of WebTransport's head start.
  window.WebSocket = class {
    constructor(url) {
      window.dials.push({ url: String(url) });
      throw new Error("not in this test");
    }
  };
  window.WebTransport = class extends WebTransport {
    constructor(url, options) {
      super(url, options);
      const hashes = (options?.serverCertificateHashes ?? []).map(({ value }) =>
        Array.from(value, (byte) => byte.toString(16).padStart(2, "0")).join(""),
      );
      window.dials.push({ url: String(url), hashes });
    }
  };
}

function withoutWebTransport() {
  delete window.WebTransport;
}

/** A certificate that is valid for longer than a hash may pin, as arguments of `serve`. */
function certificateFiles(t) {
  const folder = mkdtempSync(join(tmpdir(), "alknet-e2e-"));
  cleanUp(t, () => rmSync(folder, { recursive: true }));
  const [certificate, key] = [join(folder, "certificate.pem"), join(folder, "key.pem")];
  const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
  const names = ["-subj", "/CN=node", "-addext", "subjectAltName=IP:127.0.0.1"];
  const files = ["-keyout", key, "-out", certificate, "-days", "90"];
  execFileSync("openssl", ["req", "-x509", ...curve, ...names, ...files], { stdio: "ignore" });
  return ["--certificate", certificate, "--key", key];
}

/** What a terminal has to be able to do, over whatever carries it. */
async function exercise(page, name) {
  await type(page, "echo $((6 * 7)) $TERM", /42 xterm-256color/);
  const before = await shellSize(page);
  assert.equal(before.rows, await page.locator(".xterm-rows > div").count());
  await page.setViewportSize({ width: 1300, height: 800 });
  await page.locator(".xterm-rows > div").nth(before.rows).waitFor({ state: "attached" });
  const after = await shellSize(page);
  assert.ok(
    after.rows > before.rows && after.cols > before.cols,
    JSON.stringify({ before, after }),
  );
  await screenshot(page, name);

  const start = await received(page);
  await type(page, `head -c 10M /dev/zero | tr '\\0' x; echo; echo "do""ne"`, /done/);
  await line(page, /.*[$#%] ?/);
  assert.ok((await received(page)) - start >= TEN_MEGABYTES);
  await type(page, "echo still $((40 + 2))", /still 42/);
}

for (const [shell, open] of [
  ["shell", (page, node) => page.goto(node.signIn)],
  ["ssh", openSsh],
]) {
  test(`${shell} over WebTransport, the certificate pinned by its hash`, options, async (t) => {
    const node = await startNode(t);
    const page = await newPage(t, await startBrowser(t, node), { colorScheme: "dark" });
    await page.addInitScript(recordWebTransport);
    await open(page, node);
    await live(page);
    assert.equal(await carrier(page), "webtransport");
    const { origin, pathname, hash } = new URL(page.url());
    assert.deepEqual([origin, pathname, hash], [node.origin, "/alknet/app/", ""]);
    const [dial] = await page.evaluate(() => window.dials);
    assert.equal(dial.url, `${node.origin}/alknet/${shell}`);
    assert.ok(dial.hashes.includes(node.certificate), `${dial.hashes} lacks ${node.certificate}`);
    await exercise(page, `${shell}-webtransport`);
  });

  test(`${shell} over WebSocket where there is no WebTransport`, options, async (t) => {
    const node = await startNode(t);
    const page = await newPage(t, await startBrowser(t, node), { colorScheme: "light" });
    await page.addInitScript(withoutWebTransport);
    await open(page, node);
    await live(page);
    assert.equal(await carrier(page), "websocket");
    await exercise(page, `${shell}-websocket`);
  });

  test(`${shell} that ends says how, and another follows`, options, async (t) => {
    const node = await startNode(t);
    const page = await newPage(t, await startBrowser(t, node), { colorScheme: "dark" });
    await open(page, node);
    await live(page);
    await type(page, "echo $((6 * 7))", /42/);
    await page.keyboard.type("exit 3\n");
    await page.getByText("The shell exited with code 3.").waitFor();
    await screenshot(page, `${shell}-ended`);
    await page.keyboard.press("Enter");
    await live(page);
    await type(page, "kill -KILL $$", /.*/);
    await page.getByText("The shell was ended by signal KILL.").waitFor();
  });
}

test("WebTransport accepts no other certificate than the hashed one", options, async (t) => {
  const node = await startNode(t);
  const page = await newPage(t, await startBrowser(t, node));
  await page.goto(node.signIn);
  await live(page);
  const dial = (hash) =>
    page.evaluate(async (hash) => {
      const body = JSON.stringify({ alpn: "alknet/ssh" });
      const headers = { "content-type": "application/json" };
      const answer = await fetch("/alknet/ticket", { method: "POST", headers, body });
      const { ticket } = await answer.json();
      const value = Uint8Array.from(hash.match(/../g), (digits) => parseInt(digits, 16));
      const session = new WebTransport(new URL("/alknet/ssh", location.href), {
        protocols: ["alknet/ssh", `ticket.${ticket}`],
        serverCertificateHashes: [{ algorithm: "sha-256", value }],
      });
      session.closed.catch(() => undefined);
      return await session.ready.then(
        () => session.close(),
        (error) => error.name,
      );
    }, hash);
  assert.equal(await dial("00".repeat(32)), "WebTransportError");
  assert.equal(await dial(node.certificate), undefined);
});

test("a certificate from files is left to the browser's own trust", options, async (t) => {
  const node = await startNode(t, { args: certificateFiles(t) });
  const page = await newPage(t, await startTrustingBrowser(t, node));
  await page.addInitScript(recordWebTransport);
  await page.goto(node.signIn);
  await live(page);
  assert.equal(await carrier(page), "webtransport");
  const [dial] = await page.evaluate(() => window.dials);
  assert.deepEqual(dial.hashes, []);
  await type(page, "echo $((6 * 7))", /42/);
});

test("WebSocket takes over where WebTransport fails", options, async (t) => {
  const node = await startNode(t);
  const page = await newPage(t, await startBrowser(t, node));
  await page.addInitScript(() => {
    window.WebTransport = class {
      ready = Promise.reject(new Error("blocked"));
      closed = this.ready;
      close() {}
    };
  });
  await page.goto(node.signIn);
  await live(page);
  assert.equal(await carrier(page), "websocket");
  await page.goto(`${node.origin}/alknet/app/?via=webtransport`);
  await page.waitForSelector("#status[data-kind=bad]");
  assert.match(await card(page), /webtransport: blocked/);
});

test(
  "a reload keeps the sign-in and the key, and `via` decides on the transport",
  options,
  async (t) => {
    const node = await startNode(t);
    const page = await newPage(t, await startBrowser(t, node));
    const keys = () => JSON.parse(alknet(node, "peer", "list", "--json"))[0].keys;
    await openSsh(page, node);
    const first = keys();
    assert.equal(first.length, 1);
    await page.reload();
    await live(page);
    assert.equal(await carrier(page), "webtransport");
    await page.goto(`${node.origin}/alknet/app/?shell=ssh&via=websocket`);
    await live(page);
    assert.equal(await carrier(page), "websocket");
    await type(page, "echo $((1 + 1))nd", /2nd/);
    assert.deepEqual(keys(), first);
  },
);

test("over SSH a node that goes away is noticed, and found again", options, async (t) => {
  const node = await startNode(t, { args: ["--drain", "0"] });
  const page = await newPage(t, await startBrowser(t, node));
  await openSsh(page, node);
  await node.stop();
  await page.getByText("The connection was lost").waitFor();
  await page.getByRole("button", { name: "Reconnect" }).click();
  await titled(page, "The node does not answer");
  await node.restart();
  await page.getByRole("button", { name: "Try again" }).click();
  await live(page);
  await type(page, "echo $((6 * 7))", /42/);
});

test("a flood of output can be interrupted", options, async (t) => {
  const node = await startNode(t);
  const page = await newPage(t, await startBrowser(t, node));
  await page.goto(node.signIn);
  await live(page);
  await type(page, "yes flooded", /flooded/);
  await page.keyboard.press("Control+c");
  await type(page, "echo dr$((1))ed", /dr1ed/);
});

test("a sign-in link works once", options, async (t) => {
  const node = await startNode(t);
  const browser = await startBrowser(t, node);
  const page = await newPage(t, browser);
  await page.goto(node.signIn);
  await live(page);
  const stranger = await newPage(t, browser);
  const answer = await stranger.goto(node.signIn);
  assert.equal(answer.status(), 404);
  await stranger.goto(`${node.origin}/alknet/app/`);
  await titled(stranger, "You are not signed in");
  await screenshot(stranger, "signed-out");
  await type(page, "echo $((6 * 7))", /42/);
});

for (const [name, prepare] of [
  ["WebTransport", () => undefined],
  ["WebSocket", withoutWebTransport],
]) {
  test(`revoking the browser's session ends its shell, over ${name}`, options, async (t) => {
    const node = await startNode(t);
    const page = await newPage(t, await startBrowser(t, node));
    await page.addInitScript(prepare);
    await page.goto(node.signIn);
    await live(page);
    await type(page, "echo $((6 * 7))", /42/);
    const [session] = JSON.parse(alknet(node, "token", "list", "--json"));
    alknet(node, "token", "revoke", session.id);
    await page.getByText("The node has withdrawn this browser's access.").waitFor();
    await screenshot(page, `revoked-${name.toLowerCase()}`);
    await page.getByRole("button", { name: "Reconnect" }).click();
    await titled(page, "You are not signed in");
  });
}

test("signing out ends the browser's session and its key, until the next", options, async (t) => {
  const node = await startNode(t);
  const page = await newPage(t, await startBrowser(t, node));
  const keys = () => JSON.parse(alknet(node, "peer", "list", "--json"))[0].keys;
  await openSsh(page, node);
  const [{ fingerprint }] = keys();
  await page.click("#sign-out");
  await titled(page, "You are not signed in");
  assert.deepEqual(keys(), []);
  const [link] = JSON.parse(alknet(node, "token", "link", "--json"));
  await openSsh(page, { ...node, signIn: link });
  assert.deepEqual(
    keys().map((key) => key.fingerprint),
    [fingerprint],
  );
});

test("another node's id at the same address is an error", options, async (t) => {
  const node = await startNode(t);
  const page = await newPage(t, await startBrowser(t, node));
  const other = `ed25519:${"07".repeat(32)}`;
  await page.goto(node.signIn.replace(node.id, other));
  await titled(page, "The node has changed");
  assert.match(await card(page), RegExp(`known: ${other}\\s+found: ${node.id}`));
  await screenshot(page, "changed-node");
  await page.getByRole("button", { name: "Forget the known node" }).click();
  await titled(page, "Is this your node?");
  assert.match(await card(page), RegExp(node.id));
  await page.getByRole("button", { name: "Yes, trust it" }).click();
  await live(page);
});

test("a statement that the node did not sign is an error", options, async (t) => {
  const node = await startNode(t);
  // For the interception below, which is no part of the browser.
  const profile = { ignoreHTTPSErrors: true };
  const page = await newPage(t, await startBrowser(t, node), profile);
  await page.route("**/alknet/session", async (route) => {
    const answer = await route.fetch();
    const session = await answer.json();
    const statement = JSON.parse(Buffer.from(session.statement, "base64url").toString());
    statement.certificates[0].sha256 = "00".repeat(32);
    session.statement = Buffer.from(JSON.stringify(statement)).toString("base64url");
    await route.fulfill({ response: answer, json: session });
  });
  await page.goto(node.signIn);
  await titled(page, "The node's certificate cannot be trusted");
});

test("an SSH server with another node's host certificate is refused", options, async (t) => {
  const node = await startNode(t);
  const impostor = await startNode(t, { config: `origins = ["${node.origin}"]\n` });
  const token = alknet(impostor, "token", "create", "--scope", "ssh").trim();
  const page = await newPage(t, await startBrowser(t, node, impostor));
  await openSsh(page, node);

  // Not before: it is good for half a minute.
  const answer = await post(impostor, token, "/alknet/ticket", { alpn: "alknet/ssh" });
  assert.equal(answer.status, 200, answer.text);
  const { ticket } = JSON.parse(answer.text);
  const url = `${impostor.origin.replace("https", "wss")}/alknet/ssh`;
  await page.addInitScript(
    ({ url, ticket }) => {
      delete window.WebTransport;
      window.WebSocket = class extends WebSocket {
        constructor() {
          super(url, ["alknet.ssh", `ticket.${ticket}`]);
        }
      };
    },
    { url, ticket },
  );
  await page.goto(`${node.origin}/alknet/app/?shell=ssh`);
  await titled(page, "This is not your node");
  assert.match(await card(page), RegExp(`signed by ${impostor.id}`));
  await screenshot(page, "impostor");
});

test("under cover the page is there for those who are signed in alone", options, async (t) => {
  const node = await startNode(t, { args: ["--cover"] });
  const browser = await startBrowser(t, node);
  const stranger = await newPage(t, browser);
  assert.equal((await stranger.goto(`${node.origin}/alknet/app/`)).status(), 404);
  const page = await newPage(t, browser);
  await page.addInitScript(recordWebTransport);
  await page.goto(node.signIn);
  await live(page);
  assert.equal(await carrier(page), "webtransport");
  await type(page, "echo $((6 * 7))", /42/);
});
