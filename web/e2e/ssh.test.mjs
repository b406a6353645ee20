// The WebAssembly SSH client against a real node.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { closeSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { connect } from "../app/src/wasm/alknet_wasm.js";
import { cleanUp } from "./cleanup.mjs";
import { alknet, startNode } from "./node.mjs";
import { line, logIn, newKey, startShell } from "./ssh.mjs";

const options = { timeout: 120_000 };
const text = (bytes) => new TextDecoder().decode(bytes);
const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

/** A node, and a key that may log in to it. */
async function nodeAndKey(t) {
  const node = await startNode(t);
  const key = await newKey();
  alknet(node, "peer", "add", "tester", "--key", key.publicKey, "--scope", "ssh");
  return { node, key };
}

/** That it fails with an error of this code, and with a text that matches. */
async function fails(promise, code, pattern) {
  const error = await promise.then(
    () => assert.fail(`no ${code} error`),
    (error) => error,
  );
  assert.equal(error.name, "SshError", error.stack);
  assert.equal(error.code, code, error.message);
  assert.match(error.message, pattern);
}

test("a command's output, errors, exit code and signal", options, async (t) => {
  const { node, key } = await nodeAndKey(t);
  const { ssh } = await logIn(t, node, key);
  const ended = await ssh.exec("echo out; echo err >&2; exit 7");
  assert.deepEqual([text(ended.stdout), text(ended.stderr), ended.code], ["out\n", "err\n", 7]);
  assert.equal(ended.signal, undefined);
  const killed = await ssh.exec("kill -TERM $$");
  assert.deepEqual([killed.code, killed.signal], [undefined, "TERM"]);
  await ssh.disconnect();
  assert.equal(typeof (await ssh.closed).clean, "boolean");
  await fails(ssh.exec("true"), "closed", /ended/);
});

test("10 MB arrive as they were sent", options, async (t) => {
  const { node, key } = await nodeAndKey(t);
  const { ssh } = await logIn(t, node, key);
  const copy = join(node.home, "copy");
  const { stdout } = await ssh.exec(`head -c 10M /dev/urandom | tee '${copy}'`);
  assert.equal(stdout.length, 10 * 1024 * 1024);
  assert.equal(sha256(stdout), sha256(readFileSync(copy)));
});

test(
  "more output than a page should hold is an error, and the session goes on",
  options,
  async (t) => {
    const { node, key } = await nodeAndKey(t);
    const { ssh } = await logIn(t, node, key);
    await fails(ssh.exec("cat /dev/zero"), "too-much", /16 MiB/);
    assert.equal(text((await ssh.exec("echo fine")).stdout), "fine\n");
  },
);

test("who the server is and who logs in is checked", options, async (t) => {
  const { node, key } = await nodeAndKey(t);
  const other = `ed25519:${"07".repeat(32)}`;
  await fails(logIn(t, node, key, { nodeId: other }), "host", RegExp(`signed by ${node.id}`));
  await fails(logIn(t, node, await newKey()), "auth", /does not accept/);
  await fails(logIn(t, node, key, { user: "somebody-else" }), "auth", /somebody-else/);
  const stolen = { ...(await newKey()), publicKey: key.publicKey };
  await fails(logIn(t, node, stolen), "auth", /does not accept/);
  const refuses = { sign: () => Promise.reject(new Error("no")) };
  await fails(logIn(t, node, key, refuses), "sign", /could not sign/);
});

test("arguments of the wrong form are refused before anything is sent", options, async (t) => {
  const { node, key } = await nodeAndKey(t);
  await fails(logIn(t, node, key, { nodeId: "ed25519:07" }), "input", /node id/);
  await fails(logIn(t, node, key, { publicKey: "ssh-ed25519 x" }), "input", /public key/);
  const { readable, writable } = await line(t, node);
  readable.getReader();
  const login = { user: "x", nodeId: node.id, ...key };
  await fails(connect(readable, writable, login), "input", /in use/);
});

test("the account of the tests is an empty one", options, async (t) => {
  const { node, key } = await nodeAndKey(t);
  const { ssh } = await logIn(t, node, key);
  const { stdout } = await ssh.exec("pwd; ls -A");
  assert.equal(text(stdout), `${join(node.home, "account")}\n`, "is libnss-wrapper installed?");
});

test("a shell has a terminal, which can change its size", options, async (t) => {
  const { node, key } = await nodeAndKey(t);
  const { ssh } = await logIn(t, node, key);
  const shell = await startShell(ssh);
  await shell.type("echo a:$(stty size):$TERM:$LANG\n");
  await shell.until(/a:24 80:dumb:C.UTF-8/);
  await shell.channel.resize(132, 50);
  await shell.type("echo b:$(stty size)\n");
  await shell.until(/b:50 132/);
  await shell.type("exit 5\n");
  assert.deepEqual(await shell.exit, { code: 5 });
  await fails(shell.type("too late\n"), "closed", /ended/);
});

test("output waits for the page, and holds up nothing else", options, async (t) => {
  const { node, key } = await nodeAndKey(t);
  const { ssh } = await logIn(t, node, key);
  const shell = await startShell(ssh);
  let release;
  await shell.type("echo rea''dy\n");
  await shell.until(/ready/);
  shell.hold = new Promise((resolve) => (release = resolve));
  await shell.type("head -c 8M /dev/zero | tr '\\0' x; echo; echo do''ne\n");
  const { stdout } = await ssh.exec("head -c 8M /dev/zero");
  assert.equal(stdout.length, 8 * 1024 * 1024);
  const held = shell.output.length;
  assert.ok(held < 1024 * 1024, `${held} characters were delivered meanwhile`);
  shell.hold = undefined;
  release();
  await shell.until(/done/);
  const [flood] = shell.output.split(/\r?\n/).filter((line) => line.startsWith("xxx"));
  assert.equal(flood.length, 8 * 1024 * 1024);
});

test("input keeps its order, however fast it comes", options, async (t) => {
  const { node, key } = await nodeAndKey(t);
  const { ssh } = await logIn(t, node, key);
  const shell = await startShell(ssh);
  await shell.type("stty raw -echo; echo rea''dy; head -c 4000000 | sha256sum; stty sane\n");
  await shell.until(/ready/);
  const input = new Uint8Array(4_000_000).map((_, i) => 97 + (((i * 31) >> 5) % 26));
  const pieces = [];
  for (let at = 0; at < input.length; at += 10_007) {
    pieces.push(shell.channel.write(input.subarray(at, at + 10_007)));
  }
  await Promise.all(pieces);
  await shell.until(RegExp(sha256(input)));
  await fails(shell.channel.write(new Uint8Array(9 * 1024 * 1024)), "too-much", /8 MiB/);
});

test("closing a shell hangs up on it", options, async (t) => {
  const { node, key } = await nodeAndKey(t);
  const { ssh } = await logIn(t, node, key);
  const shell = await startShell(ssh);
  const fifo = join(node.home, "fifo");
  await ssh.exec(`mkfifo '${fifo}'`);
  // Open for both, so that nobody has to wait for a reader while signals come.
  const held = openSync(fifo, "r+");
  cleanUp(t, () => closeSync(held));
  const trap = `trap "echo hung up > ${fifo}; exit" HUP; echo rea""dy; while :; do sleep 0.1; done`;
  await shell.type(`sh -c '${trap}'\n`);
  await shell.until(/ready/);
  // Once is enough: it is told by the terminal and by bash.
  const told = ssh.exec(`head -n 1 '${fifo}'`);
  await shell.channel.close();
  await shell.exit;
  assert.equal(text((await told).stdout), "hung up\n");
});

test("a connection that is cut ends everything", options, async (t) => {
  const { node, key } = await nodeAndKey(t);
  const { ssh, socket } = await logIn(t, node, key);
  const shell = await startShell(ssh);
  const command = fails(ssh.exec("sleep 1000"), "closed", /ended/);
  socket.destroy();
  assert.deepEqual(await shell.exit, {});
  assert.equal((await ssh.closed).clean, false);
  await command;
});

test("20 sessions at once", options, async (t) => {
  const { node, key } = await nodeAndKey(t);
  const one = async (_, i) => {
    const { ssh } = await logIn(t, node, key);
    return text((await ssh.exec(`echo ${i}`)).stdout);
  };
  const said = await Promise.all(Array.from({ length: 20 }, one));
  assert.deepEqual(
    said,
    said.map((_, i) => `${i}\n`),
  );
});
