import type { TLSSocket } from "node:tls";
import { isObject } from "../call/frame.js";
import { readStatement } from "../dial/node.js";
import type { Certificate, NodeId } from "../statement.js";
import { authorization } from "./concealed.js";
import { ask } from "./https.js";
import {
  CertificateError,
  openPinned,
  openTrusted,
  openUnchecked,
  parsePin,
  pinsOf,
} from "./tls.js";

/** How to know the node, in the order in which they count. */
export interface Trust {
  /** SHA-256 of the node's certificate, or of each that it may have, in hexadecimal digits. */
  certificateSha256?: string | readonly string[];
  /**
   * The node's id. The node has to have signed the certificate that it shows, as it tells the
   * holder of the token; the token is not shown before.
   */
  node?: NodeId;
  /** Authorities to trust in place of Node's own, as PEM. */
  ca?: string;
}

/** TLS connections to one node, each checked before anything is sent. */
export class Trusted {
  readonly origin: string;
  readonly #trust: Trust;
  readonly #pins: readonly string[] | undefined;
  /** Those of the last statement. */
  #learned: readonly Certificate[] = [];

  /** Throws a `TypeError` if the origin or a SHA-256 makes no sense. */
  constructor(origin: string, trust: Trust) {
    this.origin = parseOrigin(origin);
    this.#trust = trust;
    const { certificateSha256: pins } = trust;
    if (pins !== undefined) this.#pins = (typeof pins === "string" ? [pins] : pins).map(parsePin);
  }

  /** A connection; `token` is what the node's id is learned by, where that is what counts. */
  async open(token: string, signal?: AbortSignal): Promise<TLSSocket> {
    const { node, ca } = this.#trust;
    if (this.#pins !== undefined) return await openPinned(this.origin, this.#pins, signal);
    if (node === undefined) return await openTrusted(this.origin, ca, signal);
    const known = valid(this.#learned);
    if (known.length > 0) {
      try {
        return await openPinned(this.origin, known, signal);
      } catch (error) {
        // The node may have a new certificate by now.
        if (!(error instanceof CertificateError)) throw error;
      }
    }
    this.#learned = await this.#learn(node, token, signal);
    // A node that names none has a certificate of an authority.
    return this.#learned.length === 0
      ? await openTrusted(this.origin, ca, signal)
      : await openPinned(this.origin, valid(this.#learned), signal);
  }

  /**
   * The certificates that the node has signed, told by whoever answers. The token is proven
   * over this very TLS session and not sent, so nobody in between can use or learn it, and
   * what they pass on is what the node has signed.
   */
  async #learn(node: NodeId, token: string, signal?: AbortSignal): Promise<readonly Certificate[]> {
    const socket = await openUnchecked(this.origin, signal);
    const session = await ask(socket, this.origin, {
      path: "/alknet/session",
      authorization: authorization(socket, token, this.origin),
      signal,
    });
    if (!isObject(session)) throw new Error("the node's answer makes no sense");
    return await readStatement(session, node);
  }
}

/**
 * The hashes of certificates that have not ended: a statement is good for no longer than they
 * are, because their keys may be out by then.
 */
function valid(certificates: readonly Certificate[]): string[] {
  return pinsOf(certificates.filter(({ notAfter }) => notAfter > Date.now()));
}

function parseOrigin(text: string): string {
  const { origin, protocol } = new URL(text);
  if (protocol !== "https:") throw new TypeError(`not an https origin: ${text}`);
  return origin;
}
