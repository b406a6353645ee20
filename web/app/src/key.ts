import { concat, toBase64, type Bytes } from "./bytes";
import { transact } from "./database";
import { Problem } from "./problem";

/** What IndexedDB keeps: WebCrypto never gives out the private key's bytes, not even to us. */
interface Stored {
  pair: CryptoKeyPair;
  openssh: string;
}

const AT = { database: "alknet", store: "keys" };
const NAME = "ssh";

/** This browser's SSH key. */
export class SshKey {
  readonly #stored: Stored;

  private constructor(stored: Stored) {
    this.#stored = stored;
  }

  /** The key of this origin: made at the first call, then kept. */
  static async load(): Promise<SshKey> {
    const found = await transact<Stored | undefined>(AT, "readonly", (store) => store.get(NAME));
    if (found !== undefined) return new SshKey(found);
    const made = await generate();
    await transact(AT, "readwrite", (store) => store.put(made, NAME));
    return new SshKey(made);
  }

  /** The public half as a line of OpenSSH. */
  get openssh(): string {
    return this.#stored.openssh;
  }

  async sign(data: Bytes): Promise<Bytes> {
    return new Uint8Array(await crypto.subtle.sign("Ed25519", this.#stored.pair.privateKey, data));
  }
}

async function generate(): Promise<Stored> {
  try {
    const pair = await crypto.subtle.generateKey("Ed25519", false, ["sign", "verify"]);
    const raw = new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey));
    const day = new Date().toISOString().slice(0, 10);
    return { pair, openssh: `${opensshLine(raw)} web-client-${day}` };
  } catch (cause) {
    throw new Problem("This browser is too old", "It cannot make Ed25519 keys.", { cause });
  }
}

/** An Ed25519 public key as OpenSSH writes it (RFC 8709). */
export function opensshLine(raw: Bytes): string {
  const algorithm = "ssh-ed25519";
  const blob = concat(sshString(new TextEncoder().encode(algorithm)), sshString(raw));
  return `${algorithm} ${toBase64(blob)}`;
}

function sshString(bytes: Bytes): Bytes {
  const length = new Uint8Array(4);
  new DataView(length.buffer).setUint32(0, bytes.length);
  return concat(length, bytes);
}
