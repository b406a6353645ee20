import { verifyStatement, type Certificate } from "@alknet/client";
import type { NodeId } from "./node";
import { Problem } from "./problem";

export type { Certificate };

/**
 * The certificates in a statement that `node` has signed. None means that the node's
 * certificate is for the browser's own trust to judge.
 */
export async function verify(
  statement: string,
  signature: string,
  node: NodeId,
): Promise<Certificate[]> {
  return verifyStatement(statement, signature, node).catch((cause: unknown) => {
    throw new Problem(
      "The node's certificate cannot be trusted",
      "What this address says about its certificate is not signed by the node's key. Somebody " +
        "may be answering in the node's place.",
      { cause },
    );
  });
}
