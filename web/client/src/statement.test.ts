import { beforeAll, describe, expect, test } from "vitest";
import { concat, type Bytes } from "./bytes.js";

import { parseNodeId, verifyStatement, type NodeId } from "./statement.js";

const HASH = "ab".repeat(32);
const text = new TextEncoder();

let keys: CryptoKeyPair;
let node: NodeId;

beforeAll(async () => {
  keys = await crypto.subtle.generateKey("Ed25519", false, ["sign", "verify"]);
  const raw = new Uint8Array(await crypto.subtle.exportKey("raw", keys.publicKey));
  node = parseNodeId(`ed25519:${Buffer.from(raw).toString("hex")}`)!;
});

async function signed(
  statement: unknown,
  prefix = "alknet node statement v1\n",
): Promise<[string, string]> {
  const bytes = text.encode(JSON.stringify(statement));
  const message = concat(text.encode(prefix), bytes);
  const signature = await crypto.subtle.sign("Ed25519", keys.privateKey, message);
  return [base64Url(bytes), base64Url(new Uint8Array(signature))];
}

function base64Url(bytes: Bytes): string {
  return Buffer.from(bytes).toString("base64url");
}

describe("a statement", () => {
  test("gives the certificates the node has signed", async () => {
    const certificates = [{ sha256: HASH, not_after: 1_800_000_000 }];
    const statement = await signed({ node, certificates, issued_at: 0 });
    const [certificate] = await verifyStatement(...statement, node);
    expect(Buffer.from(certificate!.sha256).toString("hex")).toBe(HASH);
    expect(certificate!.notAfter).toBe(1_800_000_000_000);
  });

  test("may list none", async () => {
    const statement = await signed({ node, certificates: [], issued_at: 0 });
    expect(await verifyStatement(...statement, node)).toEqual([]);
  });

  test("of another key is refused", async () => {
    const other = parseNodeId(`ed25519:${"07".repeat(32)}`)!;
    const statement = await signed({ node: other, certificates: [] });
    await expect(verifyStatement(...statement, other)).rejects.toThrow("not signed");
  });

  test("about another node is refused, though the signature is right", async () => {
    const statement = await signed({ node: `ed25519:${"07".repeat(32)}`, certificates: [] });
    await expect(verifyStatement(...statement, node)).rejects.toThrow("not signed");
  });

  test("changed after signing is refused", async () => {
    const [, signature] = await signed({ node, certificates: [] });
    const [statement] = await signed({ node, certificates: [{ sha256: HASH, not_after: 1 }] });
    await expect(verifyStatement(statement, signature, node)).rejects.toThrow("not signed");
  });

  test("signed for another purpose is refused", async () => {
    const statement = await signed({ node, certificates: [] }, "another purpose\n");
    await expect(verifyStatement(...statement, node)).rejects.toThrow("not signed");
  });

  test.each([
    ["no list", undefined],
    ["a short hash", [{ sha256: "ab", not_after: 1 }]],
    ["no hash", [{ not_after: 1 }]],
    ["no end", [{ sha256: HASH }]],
  ])("with %s is refused", async (_, certificates) => {
    const statement = await signed({ node, certificates });
    await expect(verifyStatement(...statement, node)).rejects.toThrow("not signed");
  });

  test("that is no base64url is refused", async () => {
    await expect(verifyStatement("+/=", "", node)).rejects.toThrow("not signed");
  });
});
