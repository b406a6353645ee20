import { parseNodeId, type NodeId } from "@alknet/client";
import { Problem } from "./problem";

export { parseNodeId, type NodeId };

const PIN = "alknet.node";

/** Enough for a person to recognise a node by, not enough to trust it. */
export function shortId(node: NodeId): string {
  return `${node.slice(0, "ed25519:".length + 12)}…`;
}

/** Which node belongs to this origin: learned once from the sign-in link, then kept. */
export class Pin {
  readonly #store: Pick<Storage, "getItem" | "setItem" | "removeItem">;

  constructor(store: Pick<Storage, "getItem" | "setItem" | "removeItem">) {
    this.#store = store;
  }

  get node(): NodeId | undefined {
    return parseNodeId(this.#store.getItem(PIN) ?? "");
  }

  /** Keeps `node`, or throws if another one is kept already. */
  keep(node: NodeId): void {
    const known = this.node;
    if (known !== undefined && known !== node) throw new ChangedNode(known, node);
    this.#store.setItem(PIN, node);
  }

  forget(): void {
    this.#store.removeItem(PIN);
  }
}

/** Another node answers than the one this browser knows here. */
export class ChangedNode extends Problem {
  constructor(known: NodeId, found: NodeId) {
    super(
      "The node has changed",
      "This address belonged to a node with another key. Either the node was set up anew, or " +
        "somebody else answers in its place. Compare with what `alknet id` prints on the node.",
      { detail: `known: ${known}\nfound: ${found}` },
    );
  }
}
