import { fromHex, type Bytes } from "./bytes";
import { Problem } from "./problem";

/** A node's public key: "ed25519:" and 64 hexadecimal digits. */
export type NodeId = `ed25519:${string}`;

const PIN = "alknet.node";

export function parseNodeId(text: string): NodeId | undefined {
  return /^ed25519:[0-9a-f]{64}$/.test(text) ? (text as NodeId) : undefined;
}

/** The 32 bytes of RFC 8032. */
export function keyOf(node: NodeId): Bytes {
  return fromHex(node.slice("ed25519:".length));
}

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
