// The WebAssembly SSH client without a browser: over a TLS connection of Node's own.
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { userInfo } from "node:os";
import { Duplex } from "node:stream";
import { connect as connectTls } from "node:tls";
import { connect, initSync } from "../app/src/wasm/alknet_wasm.js";
import { cleanUp } from "./cleanup.mjs";

const MODULE = new URL("../app/src/wasm/alknet_wasm.opt.wasm", import.meta.url);

initSync({ module: readFileSync(MODULE) });

/** An Ed25519 key as the page's: the private half signs and is never seen. */
export async function newKey() {
  const pair = await crypto.subtle.generateKey("Ed25519", false, ["sign", "verify"]);
  const raw = Buffer.from(await crypto.subtle.exportKey("raw", pair.publicKey));
  const blob = Buffer.concat([
    Buffer.from("0000000b", "hex"),
    Buffer.from("ssh-ed25519"),
    Buffer.from("00000020", "hex"),
    raw,
  ]);
  return {
    publicKey: `ssh-ed25519 ${blob.toString("base64")}`,
    sign: async (data) =>
      new Uint8Array(await crypto.subtle.sign("Ed25519", pair.privateKey, data)),
  };
}

/** A TLS connection to the node's SSH service, and its streams. */
export async function line(test, node) {
  const { hostname, port } = new URL(node.origin);
  const ALPNProtocols = ["alknet/ssh"];
  const socket = connectTls({ host: hostname, port, ALPNProtocols, rejectUnauthorized: false });
  cleanUp(test, () => socket.destroy());
  await once(socket, "secureConnect");
  // A connection that a test cuts reports it here, too.
  socket.on("error", () => undefined);
  return { socket, ...Duplex.toWeb(socket) };
}

/** Logs in; `options` replace what a proper client would say. */
export async function logIn(test, node, key, options = {}) {
  const { socket, readable, writable } = await line(test, node);
  const { username: user } = userInfo();
  const ssh = await connect(readable, writable, { user, nodeId: node.id, ...key, ...options });
  return { ssh, socket };
}

/** A shell whose output is collected, and can be held back. */
export async function startShell(ssh) {
  const shell = { output: "", hold: Promise.resolve() };
  const decoder = new TextDecoder();
  shell.exit = new Promise((resolve, reject) => {
    const opening = ssh.shell({
      term: "dumb",
      cols: 80,
      rows: 24,
      env: { LANG: "C.UTF-8" },
      onData: (data) => {
        shell.output += decoder.decode(data, { stream: true });
        shell.heard?.();
        return shell.hold;
      },
      onExit: resolve,
    });
    opening.catch(reject);
    shell.opened = opening;
  });
  shell.channel = await shell.opened;
  shell.type = (text) => shell.channel.write(new TextEncoder().encode(text));
  shell.until = async (pattern) => {
    while (!pattern.test(shell.output)) await new Promise((heard) => (shell.heard = heard));
    return shell.output.match(pattern);
  };
  return shell;
}
