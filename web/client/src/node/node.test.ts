// Clients in Node.js against a real HTTPS server with a certificate that nobody has signed.
import { execFileSync } from "node:child_process";
import {
  createHash,
  createPublicKey,
  generateKeyPairSync,
  sign,
  verify,
  X509Certificate,
  type KeyObject,
} from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer, type Server } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TLSSocket } from "node:tls";
import { afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { WebSocketServer } from "ws";
import { fetchSchemas } from "../cli/fetch.js";
import { isTransient } from "../dial/dial.js";
import type { NodeId } from "../statement.js";
import { keyOfToken, publicBytes } from "./concealed.js";
import { dial, type NodeDialOptions } from "./index.js";

const token = "alk_a-token-of-no-node";

let pem: { key: string; cert: string };
let sha256: string;
let identity: KeyObject;
let node: NodeId;

let server: Server;
let origin: string;
/** What the server says of its certificates. */
let certificates: { sha256: string; not_after: number }[];
/** Who asked for what. */
let seen: string[];
/** What the server does about an upgrade. */
let status: number;

beforeAll(() => {
  const folder = mkdtempSync(join(tmpdir(), "alknet-client-"));
  const [key, cert] = [join(folder, "key.pem"), join(folder, "cert.pem")];
  const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
  const names = ["-subj", "/CN=node", "-addext", "subjectAltName=IP:127.0.0.1"];
  const files = ["-keyout", key, "-out", cert, "-days", "2"];
  execFileSync("openssl", ["req", "-x509", ...curve, ...names, ...files], { stdio: "ignore" });
  pem = { key: readFileSync(key, "utf8"), cert: readFileSync(cert, "utf8") };
  rmSync(folder, { recursive: true });
  sha256 = createHash("sha256").update(new X509Certificate(pem.cert).raw).digest("hex");
  identity = generateKeyPairSync("ed25519").privateKey;
  node = `ed25519:${publicBytes(identity).toString("hex")}`;
});

beforeEach(async () => {
  certificates = [{ sha256, not_after: 2_000_000_000 }];
  seen = [];
  status = 101;
  server = createServer(pem, answer);
  const sockets = new WebSocketServer({ noServer: true, handleProtocols: ([first]) => first! });
  server.on("upgrade", (request: IncomingMessage, socket: TLSSocket, head: Buffer) => {
    note(request);
    if (status !== 101) return socket.end(`HTTP/1.1 ${status} No\r\ncontent-length: 0\r\n\r\n`);
    sockets.handleUpgrade(request, socket, head, (socket) =>
      socket.on("message", (data) => socket.send(data)),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  origin = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
});

afterEach(() => {
  server.closeAllConnections();
  server.close();
});

function note({ url, headers }: IncomingMessage): void {
  seen.push(`${url} ${headers.authorization?.split(" ")[0]}`);
}

function answer(request: IncomingMessage, response: ServerResponse): void {
  note(request);
  const { url, headers, socket } = request;
  const bearer = headers.authorization === `Bearer ${token}`;
  const json = (value: unknown) => {
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify(value));
  };
  if (url === "/alknet/session" && proves(socket as TLSSocket, headers.authorization!)) {
    return json(session());
  }
  if (url === "/alknet/api/services/list" && bearer) {
    return json({ operations: [{ name: "math/add", type: "query", description: "" }] });
  }
  if (url === "/alknet/api/services/schema" && bearer) {
    return json({ name: "math/add", type: "query", description: "", input: {}, output: {} });
  }
  response.statusCode = 404;
  response.end("<html>");
}

function session(): object {
  const statement = Buffer.from(JSON.stringify({ node, certificates, issued_at: 0 }));
  const signature = sign(null, Buffer.concat([Buffer.from(PREFIX), statement]), identity);
  const [text, by] = [statement, signature].map((bytes) => bytes.toString("base64url"));
  return { node, statement: text, signature: by };
}

const PREFIX = "alknet node statement v1\n";

/** Checks a Concealed credential as RFC 9729 says, not as the client does it. */
function proves(socket: TLSSocket, authorization: string): boolean {
  const [, k, a, s, v, p] =
    /^Concealed k=(\S+), a=(\S+), s=(\d+), v=(\S+), p=(\S+)$/.exec(authorization) ?? [];
  if (k === undefined || k !== a || s !== "2055") return false;
  if (k !== publicBytes(keyOfToken(token)).toString("base64url")) return false;
  const { port } = server.address() as AddressInfo;
  const context = Buffer.from(
    "0807" +
      `20${Buffer.from(k, "base64url").toString("hex")}`.repeat(2) +
      "05" +
      Buffer.from("https").toString("hex") +
      "09" +
      Buffer.from("127.0.0.1").toString("hex") +
      port.toString(16).padStart(4, "0") +
      "00",
    "hex",
  );
  const label = "EXPORTER-HTTP-Concealed-Authentication";
  const exported = socket.exportKeyingMaterial(48, label, context);
  if (exported.subarray(32).toString("base64url") !== v) return false;
  const covered = Buffer.concat([
    Buffer.from(" ".repeat(64) + "HTTP Concealed Authentication\0"),
    exported.subarray(0, 32),
  ]);
  const key = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x: k }, format: "jwk" });
  return verify(null, covered, key, Buffer.from(p!, "base64url"));
}

/** What comes back of what is sent. */
async function echo(options: Partial<NodeDialOptions>): Promise<string> {
  const line = await dial("alknet/echo", { origin, token, ...options });
  await line.writable.getWriter().write(new Uint8Array(Buffer.from("hello")));
  const { value } = await line.readable.getReader().read();
  line.close();
  return new TextDecoder().decode(value);
}

describe("a node is known", () => {
  test("by its id, and is shown the token only then", async () => {
    expect(await echo({ node })).toBe("hello");
    expect(seen).toEqual(["/alknet/session Concealed", "/alknet/echo Bearer"]);
  });

  test("by the hash of its certificate, as it may be written", async () => {
    const colons = sha256.toUpperCase().replaceAll(/..(?=.)/g, "$&:");
    expect(await echo({ certificateSha256: ["00".repeat(32), colons] })).toBe("hello");
    expect(seen).toEqual(["/alknet/echo Bearer"]);
  });

  test("by an authority", async () => {
    expect(await echo({ ca: pem.cert })).toBe("hello");
  });

  test("by an authority, if it says that it has no certificate of its own", async () => {
    certificates = [];
    expect(await echo({ node, ca: pem.cert })).toBe("hello");
    await expect(echo({ node })).rejects.toThrow("self-signed");
  });
});

describe("a stranger is shown no token", () => {
  const other: NodeId = `ed25519:${"07".repeat(32)}`;

  test.each([
    ["with another id", () => ({ node: other }), "StatementError"],
    [
      "with another certificate",
      () => ({ certificateSha256: "00".repeat(32) }),
      "CertificateError",
    ],
    ["of no authority", () => ({}), "Error"],
  ])("%s", async (_, trust, name) => {
    await expect(echo(trust())).rejects.toMatchObject({ name });
    expect(seen.filter((request) => !request.endsWith("Concealed"))).toEqual([]);
  });

  test("that has got hold of an old statement, and of its key", async () => {
    certificates = [{ sha256, not_after: 1_000_000_000 }];
    await expect(echo({ node })).rejects.toMatchObject({ name: "CertificateError" });
    expect(seen).toEqual(["/alknet/session Concealed"]);
  });

  test("that has got hold of the node's statement", async () => {
    certificates = [{ sha256: "00".repeat(32), not_after: 2_000_000_000 }];
    await expect(echo({ node })).rejects.toMatchObject({ name: "CertificateError" });
    expect(seen).toEqual(["/alknet/session Concealed"]);
  });
});

test.each([
  [404, "SignedOutError", false],
  [302, "SignedOutError", false],
  [503, "Error", true],
])("an answer of %i is a %s", async (code, name, transient) => {
  status = code;
  const error = await echo({ certificateSha256: sha256 }).catch((error: unknown) => error);
  expect(error).toMatchObject({ name });
  expect(isTransient(error)).toBe(transient);
});

test("a token that the node does not know is no credential", async () => {
  await expect(echo({ node, token: "alk_other" })).rejects.toMatchObject({
    name: "SignedOutError",
  });
});

test.each([{ origin: "http://127.0.0.1" }, { origin: "node" }, { certificateSha256: "00" }])(
  "%j makes no sense",
  async (options) => {
    await expect(echo(options)).rejects.toThrow(TypeError);
  },
);

test("schemas are fetched one by one", async () => {
  expect(await fetchSchemas(origin, token, { node })).toEqual([
    { name: "math/add", type: "query", description: "", input: {}, output: {} },
  ]);
});
