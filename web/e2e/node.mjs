// A real node for a test: `alknet serve` on a free port with a state folder of its own.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:https";
import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { connect } from "node:tls";
import { cleanUp } from "./cleanup.mjs";

const START_MS = 30_000;
const STOP_MS = 40_000;

/** Starts a node; it is stopped, and has to end well, when the test is over. */
export async function startNode(test, { args = [], config = "" } = {}) {
  const home = mkdtempSync(join(tmpdir(), "alknet-e2e-"));
  cleanUp(test, () => rmSync(home, { recursive: true, force: true }));
  if (config !== "") writeFileSync(join(home, "alknet.toml"), config);
  const node = new Node(home, args);
  cleanUp(test, () => node.stop());
  await node.start("127.0.0.1:0");
  return node;
}

class Node {
  #args;
  #child;
  #log = "";

  constructor(home, args) {
    this.home = home;
    this.#args = args;
  }

  async start(listen) {
    // Run by root, a node lets nobody but its owner use an account without a mapping.
    const mapped = ["--account", `*=${userInfo().username}`];
    const listening = ["--json", "--listen", listen, "--host", "127.0.0.1"];
    const args = ["serve", ...listening, ...mapped, ...this.#args];
    const env = { ...process.env, ...account(this.home), ALKNET_HOME: this.home };
    this.#child = spawn(program(), args, { env, stdio: ["ignore", "pipe", "pipe"] });
    this.#child.stderr.setEncoding("utf8").on("data", (text) => (this.#log += text));
    const banner = JSON.parse(await firstLine(this.#child));
    this.listen = banner.listen;
    this.id = banner.node;
    [this.signIn] = banner.sign_in;
    this.origin = new URL(this.signIn).origin;
    Object.assign(this, await certificate(this.origin));
  }

  /** Starts it again where it was. */
  async restart() {
    await this.start(this.listen);
  }

  /** Ends it as a power cut does. */
  async kill() {
    const child = this.#child;
    this.#child = undefined;
    const gone = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await gone;
  }

  async stop() {
    const child = this.#child;
    this.#child = undefined;
    if (child === undefined) return;
    assert.equal(await exitCode(child), 0, this.#log);
  }
}

/** Runs another verb of the program on a node's state folder; what it printed. */
export function alknet(node, ...args) {
  const env = { ...process.env, ALKNET_HOME: node.home };
  const stdio = ["ignore", "pipe", "ignore"];
  return execFileSync(program(), args, { env, encoding: "utf8", stdio, timeout: START_MS });
}

/** Posts JSON with a bearer token, as a client that is no browser. */
export function post(node, token, path, body) {
  const url = new URL(path, node.origin);
  const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
  const options = { method: "POST", headers, rejectUnauthorized: false, timeout: START_MS };
  return new Promise((resolve, reject) => {
    const sending = request(url, options, (answer) => {
      let text = "";
      answer.setEncoding("utf8");
      answer.on("data", (part) => (text += part));
      answer.on("end", () => resolve({ status: answer.statusCode, text }));
    });
    sending.on("error", reject);
    sending.on("timeout", () => sending.destroy(new Error(`${path} does not answer`)));
    sending.end(JSON.stringify(body));
  });
}

/**
 * Gives the account that runs the tests an empty home folder and bash, as far as the node can
 * see: what a test finds in a shell must not depend on somebody's start-up files.
 * (libnss_wrapper.so answers the node's look-ups in the account database.)
 */
function account(home) {
  const { uid, gid, username } = userInfo();
  const empty = join(home, "account");
  mkdirSync(empty, { recursive: true });
  const passwd = join(home, "passwd");
  const group = join(home, "group");
  writeFileSync(passwd, `${username}:x:${uid}:${gid}::${empty}:/bin/bash\n`);
  writeFileSync(group, `${username}:x:${gid}:\n`);
  return {
    LD_PRELOAD: "libnss_wrapper.so",
    NSS_WRAPPER_PASSWD: passwd,
    NSS_WRAPPER_GROUP: group,
  };
}

function program() {
  const path = process.env.ALKNET_BIN;
  if (path === undefined) throw new Error("ALKNET_BIN does not name the alknet program");
  return path;
}

function firstLine(child) {
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error("alknet serve prints nothing")), START_MS);
    createInterface(child.stdout).once("line", (line) => {
      clearTimeout(late);
      resolve(line);
    });
    child.once("error", reject);
    child.once("exit", (code) => reject(new Error(`alknet serve ended with ${code}`)));
  });
}

/** The exit code of a process told to end; null if it had to be killed. */
async function exitCode(child) {
  if (child.exitCode !== null || child.signalCode !== null) return child.exitCode;
  const gone = new Promise((resolve) => child.once("exit", resolve));
  const late = setTimeout(() => child.kill("SIGKILL"), STOP_MS);
  child.kill("SIGTERM");
  const code = await gone;
  clearTimeout(late);
  return code;
}

/** SHA-256 of the node's web certificate, in hex, and of its key, in base64. */
function certificate(origin) {
  const { hostname, port } = new URL(origin);
  const options = { host: hostname, port, rejectUnauthorized: false, ALPNProtocols: ["http/1.1"] };
  return new Promise((resolve, reject) => {
    const socket = connect(options, () => {
      const shown = socket.getPeerX509Certificate();
      const key = shown.publicKey.export({ type: "spki", format: "der" });
      socket.destroy();
      resolve({
        certificate: sha256(shown.raw).toString("hex"),
        key: sha256(key).toString("base64"),
      });
    });
    socket.setTimeout(START_MS, () => socket.destroy(new Error("no TLS handshake")));
    socket.on("error", reject);
  });
}

function sha256(bytes) {
  return createHash("sha256").update(bytes).digest();
}
