// The Concealed HTTP authentication scheme (RFC 9729): a token's holder proves it without
// showing it, so that it can be used towards a server that has not proven itself yet.
import {
  createPrivateKey,
  createPublicKey,
  hkdfSync,
  sign,
  type KeyObject,
  type webcrypto,
} from "node:crypto";
import type { TLSSocket } from "node:tls";

const LABEL = "EXPORTER-HTTP-Concealed-Authentication";
const SIGNED = "HTTP Concealed Authentication";
/** `ed25519` in TLS's registry of signature schemes. */
const ED25519 = 0x0807;
/** Of the 48 exported bytes the first 32 are signed, the others sent along. */
const EXPORTED = 48;
const SIGNATURE_INPUT = 32;

/** What stands before the seed in an Ed25519 key as PKCS #8 (RFC 8410 §7). */
const PKCS8 = Buffer.from("302e020100300506032b657004220420", "hex");

/** The value of an `Authorization` field that proves `token` on this connection. */
export function authorization(socket: TLSSocket, token: string, origin: string): string {
  const key = keyOfToken(token);
  const id = publicBytes(key);
  const exported = socket.exportKeyingMaterial(EXPORTED, LABEL, context(id, origin));
  const input = exported.subarray(0, SIGNATURE_INPUT);
  const verification = exported.subarray(SIGNATURE_INPUT).toString("base64url");
  // As TLS 1.3 keeps its signatures apart from others (RFC 8446 §4.4.3).
  const covered = Buffer.concat([Buffer.alloc(64, 0x20), Buffer.from(`${SIGNED}\0`), input]);
  const proof = sign(null, covered, key).toString("base64url");
  const k = id.toString("base64url");
  return `Concealed k=${k}, a=${k}, s=${ED25519}, v=${verification}, p=${proof}`;
}

/** The key that the holder of a token proves instead of sending it. */
export function keyOfToken(token: string): KeyObject {
  const seed = Buffer.from(hkdfSync("sha256", token, "", "alknet v1 token ed25519", 32));
  const key = Buffer.concat([PKCS8, seed]);
  return createPrivateKey({ key, format: "der", type: "pkcs8" });
}

/** The 32 bytes of RFC 8032 of a key's public half. */
export function publicBytes(key: KeyObject): Buffer {
  const { x } = createPublicKey(key).export({ format: "jwk" }) as webcrypto.JsonWebKey;
  return Buffer.from(x!, "base64url");
}

/** The exporter's context (RFC 9729 §3.1). */
function context(key: Buffer, origin: string): Buffer {
  const { hostname, port } = new URL(origin);
  return Buffer.concat([
    uint16(ED25519),
    prefixed(key),
    prefixed(key),
    prefixed(Buffer.from("https")),
    prefixed(Buffer.from(hostname)),
    uint16(Number(port || 443)),
    prefixed(Buffer.alloc(0)),
  ]);
}

/** Bytes after their length as a variable-length integer (RFC 9000 §16). */
function prefixed(bytes: Buffer): Buffer {
  if (bytes.length > 0x3fff) throw new RangeError("a host name that is none");
  const length = bytes.length < 0x40 ? Buffer.of(bytes.length) : uint16(bytes.length | 0x4000);
  return Buffer.concat([length, bytes]);
}

function uint16(value: number): Buffer {
  return Buffer.of(value >> 8, value & 0xff);
}
