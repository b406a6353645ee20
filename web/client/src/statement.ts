import { concat, fromBase64Url, fromHex, type Bytes } from "./bytes.js";

/** A node's public key: "ed25519:" and 64 hexadecimal digits. */
export type NodeId = `ed25519:${string}`;

export function parseNodeId(text: string): NodeId | undefined {
  return /^ed25519:[0-9a-f]{64}$/.test(text) ? (text as NodeId) : undefined;
}

/** The 32 bytes of RFC 8032. */
export function keyOf(node: NodeId): Bytes {
  return fromHex(node.slice("ed25519:".length));
}

/** A TLS certificate that a node vouches for. */
export interface Certificate {
  sha256: Bytes;
  /** Milliseconds since 1970. */
  notAfter: number;
}

/** What is said to be a node's statement is not: somebody may be answering in its place. */
export class StatementError extends Error {
  override readonly name = "StatementError";

  constructor(options?: ErrorOptions) {
    super("what is said of the node's certificates is not signed by the node's key", options);
  }
}

const PREFIX = new TextEncoder().encode("alknet node statement v1\n");

/**
 * The certificates in a statement that `node` has signed. None means that the node's
 * certificate is for the platform's own trust to judge. Throws a {@link StatementError}.
 */
export async function verifyStatement(
  statement: string,
  signature: string,
  node: NodeId,
): Promise<Certificate[]> {
  try {
    const bytes = fromBase64Url(statement);
    const key = await crypto.subtle.importKey("raw", keyOf(node), "Ed25519", false, ["verify"]);
    const signed = concat(PREFIX, bytes);
    if (await crypto.subtle.verify("Ed25519", key, fromBase64Url(signature), signed)) {
      return parse(JSON.parse(new TextDecoder().decode(bytes)), node);
    }
  } catch (cause) {
    throw new StatementError({ cause });
  }
  throw new StatementError();
}

function parse(statement: unknown, node: NodeId): Certificate[] {
  const { node: subject, certificates } = statement as { node: unknown; certificates: unknown };
  if (subject !== node || !Array.isArray(certificates)) throw new TypeError("another statement");
  return certificates.map(({ sha256, not_after }: { sha256: string; not_after: number }) => {
    const hash = fromHex(sha256);
    if (hash.length !== 32 || !Number.isFinite(not_after)) throw new TypeError("no SHA-256");
    return { sha256: hash, notAfter: not_after * 1000 };
  });
}
