import { concat, fromBase64Url, fromHex, type Bytes } from "./bytes";
import { keyOf, type NodeId } from "./node";
import { Problem } from "./problem";

/** A TLS certificate that the node vouches for. */
export interface Certificate {
  sha256: Bytes;
  /** Milliseconds since 1970. */
  notAfter: number;
}

const PREFIX = new TextEncoder().encode("alknet node statement v1\n");

/**
 * The certificates in a statement that `node` has signed. None means that the node's
 * certificate is for the browser's own trust to judge.
 */
export async function verify(
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
    throw forged(cause);
  }
  throw forged();
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

function forged(cause?: unknown): Problem {
  return new Problem(
    "The node's certificate cannot be trusted",
    "What this address says about its certificate is not signed by the node's key. Somebody " +
      "may be answering in the node's place.",
    { cause },
  );
}
