// The TypeScript client, in a real browser and in Node.js, against a real node.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { appendFileSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { connect } from "../client/dist/node/index.js";
import { newPage, openSsh, startBrowser } from "./browser.mjs";
import { cleanUp } from "./cleanup.mjs";
import { alknet, post, startNode } from "./node.mjs";

const CLIENT = new URL("../client/", import.meta.url);
const ITEMS = 10_000;
const WAIT_MS = 30_000;
const options = { timeout: 120_000 };

/** Ways to have a client: the handle's `evaluate` runs a function where the client is. */
const clients = {
  "a page, over WebTransport": (t, node) => inPage(t, node, "webtransport"),
  "a page, over WebSocket": (t, node) => inPage(t, node, "websocket"),
  "Node.js, over WebSocket": (t, node) => {
    const client = connect({ origin: node.origin, node: node.id, token: token(node) });
    cleanUp(t, () => client.close());
    return { evaluate: async (run, arg) => await run(client, arg) };
  },
};

/** A client in the node's own page, under its own content security policy. */
async function inPage(t, node, via) {
  const page = await newPage(t, await startBrowser(t, node));
  await page.route(`${node.origin}/test-client/**`, (route) => {
    const { pathname } = new URL(route.request().url());
    const file = new URL(`dist/${pathname.slice("/test-client/".length)}`, CLIENT);
    return route.fulfill({ path: fileURLToPath(file), contentType: "text/javascript" });
  });
  await openSsh(page, node);
  return await page.evaluateHandle(async (via) => {
    const { connect } = await import(new URL("/test-client/index.js", location.href).href);
    return connect({ via });
  }, via);
}

function token(node) {
  return alknet(node, "token", "create", "--scope", "*").trim();
}

/** Calls an operation of the node by HTTP, as somebody else than the client under test. */
async function call(node, bearer, name, input = {}) {
  const answer = await post(node, bearer, `/alknet/api/${name}`, input);
  assert.equal(answer.status, 200, answer.text);
  return JSON.parse(answer.text);
}

/** Has the node call what the client serves, as soon as the node knows that it does. */
async function callBack(node, bearer, operation, input) {
  const serves = ({ operations }) => operations.some(({ name }) => name === operation);
  for (const end = Date.now() + WAIT_MS; Date.now() < end; await setTimeout(10)) {
    const { sessions } = await call(node, bearer, "node/sessions");
    const found = sessions.find(serves);
    if (found === undefined) continue;
    const { session } = found;
    return await call(node, bearer, "node/call-session", { session, operation, input });
  }
  assert.fail(`no session serves ${operation}`);
}

/** Adds entries to the audit log of a node that does not run. */
function extendAuditLog(node, entries) {
  const file = join(node.home, "audit.log");
  let last = readFileSync(file, "utf8").trimEnd().split("\n").at(-1);
  const lines = [];
  for (let seq = JSON.parse(last).seq + 1; lines.length < entries; seq++) {
    const prev = createHash("sha256").update(last).digest("hex");
    last = JSON.stringify({ seq, time: "2026-01-01T00:00:00Z", prev, event: "tested" });
    lines.push(`${last}\n`);
  }
  appendFileSync(file, lines.join(""));
}

/** Serves what the tests call, wherever the client is. */
async function serve(client) {
  await client.serve({
    "test/add": {
      type: "query",
      description: "Adds.",
      input: { type: "array", items: { type: "number" } },
      output: { type: "number" },
      handler: ([a, b]) => a + b,
    },
  });
}

/** Waits until a process is gone. */
async function gone(pid) {
  for (const end = Date.now() + WAIT_MS; Date.now() < end; await setTimeout(10)) {
    try {
      process.kill(pid, 0);
    } catch {
      return;
    }
  }
  assert.fail(`process ${pid} is still there`);
}

for (const [name, start] of Object.entries(clients)) {
  test(`calls from ${name}`, options, async (t) => {
    const node = await startNode(t);
    const client = await start(t, node);
    const status = await client.evaluate((client) => client.call("node/status"));
    assert.equal(status.node, node.id);
    const code = (name, input) =>
      client.evaluate(
        (client, [name, input]) => client.call(name, input).catch(({ code }) => code),
        [name, input],
      );
    assert.equal(await code("no/such", {}), "NOT_FOUND");
    assert.equal(await code("node/end-session", { session: "x" }), "INVALID_INPUT");
    assert.equal(await code("node/end-session", { session: 1e9 }), "NO_SUCH_SESSION");
    const { sessions } = await client.evaluate((client) => client.call("node/sessions"));
    const [own] = sessions.filter(({ own }) => own);
    assert.equal(own.alpn, "alknet/call");
    assert.equal(own.transport, name.includes("WebTransport") ? "webtransport" : "websocket");
  });

  test(`an abort from ${name} ends a command`, options, async (t) => {
    const node = await startNode(t);
    const client = await start(t, node);
    const pid = await client.evaluate(async (client) => {
      const items = client.subscribe("exec/run", { command: "echo $$; exec sleep 600" });
      for await (const { data } of items) return Number(data);
    });
    assert.ok(pid > 1, `${pid}`);
    await gone(pid);
  });

  test(`a subscription of ${ITEMS} items from ${name}`, options, async (t) => {
    const node = await startNode(t);
    await node.stop();
    extendAuditLog(node, ITEMS);
    await node.restart();
    const client = await start(t, node);
    const { items, after } = await client.evaluate(async (client, lines) => {
      const subscription = client.subscribe("audit/tail", { lines });
      const items = [];
      let after;
      for await (const { seq } of subscription) {
        if (items.push(seq) === lines - 9) after = subscription.lastEvent;
      }
      return { items, after };
    }, ITEMS);
    assert.equal(items.length, ITEMS);
    assert.deepEqual(
      items,
      items.map((_, n) => items[0] + n),
    );
    const rest = await client.evaluate(async (client, after) => {
      const rest = [];
      for await (const { seq } of client.subscribe("audit/tail", {}, { after })) rest.push(seq);
      return rest;
    }, after);
    assert.deepEqual(rest.slice(0, 9), items.slice(-9));
  });

  test(`the node calls ${name}`, options, async (t) => {
    const node = await startNode(t);
    const client = await start(t, node);
    await client.evaluate(serve);
    assert.equal(await callBack(node, token(node), "test/add", [1, 2]), 3);
  });

  test(`${name} connects again after the node has restarted`, options, async (t) => {
    const node = await startNode(t, { args: ["--drain", "0"] });
    const client = await start(t, node);
    const bearer = token(node);
    await client.evaluate(serve);
    await client.evaluate(async (client) => {
      const items = client.subscribe("audit/tail", { follow: true, lines: 3 });
      const { value } = await items.next();
      Object.assign(globalThis, { items, first: value.seq });
    });
    await node.stop();
    await client.evaluate((client) => {
      // What is asked while the node is away is answered when it is back.
      globalThis.pending = client.call("node/status", {}, { timeoutMs: 60_000 });
    });
    await node.restart();
    assert.equal(await client.evaluate(async () => (await globalThis.pending).node), node.id);
    assert.equal(await callBack(node, bearer, "test/add", [20, 22]), 42);
    // The log tells of that call: up to there nothing is missing, and nothing comes twice.
    const { state, seqs } = await client.evaluate(async (client) => {
      const seqs = [globalThis.first];
      for await (const { seq, event } of globalThis.items) {
        seqs.push(seq);
        if (event === "session-called") break;
      }
      return { state: client.state, seqs };
    });
    assert.equal(state, "open");
    assert.deepEqual(
      seqs,
      seqs.map((_, n) => seqs[0] + n),
    );
  });
}

test("types are made of what a node says", options, async (t) => {
  const node = await startNode(t);
  const file = join(node.home, "token");
  writeFileSync(file, token(node), { mode: 0o600 });
  const program = fileURLToPath(new URL("bin/alknet-types.mjs", CLIENT));
  const args = ["--node", node.origin, "--node-id", node.id, "--token-file", file];
  const code = execFileSync(process.execPath, [program, ...args], { encoding: "utf8" });
  assert.match(code, /"node\/status": \{\s+type: "query";/);
  assert.match(code, /"audit\/tail": \{\s+type: "subscription";/);
});
