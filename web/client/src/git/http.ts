import type { Bytes } from "../bytes.js";
import type { Dialler } from "../connector.js";
import { race } from "../deadline.js";
import type { Duplex, Session } from "../dial/session.js";
import { Exchange, GitRefusedError, type Pieces } from "./exchange.js";
import { packet, FLUSH } from "./packets.js";
import { requestLine, targetOf, type Target } from "./target.js";

/** What isomorphic-git asks its `http` for. */
export interface GitRequest {
  url: string;
  method?: string | undefined;
  headers?: Record<string, string> | undefined;
  body?: Pieces | undefined;
  /** Its abort ends the exchange. */
  signal?: AbortSignal | undefined;
}

/** What isomorphic-git gets. */
export interface GitResponse {
  url: string;
  method: string;
  statusCode: number;
  statusMessage: string;
  headers: Record<string, string>;
  /** Leaving the loop over it ends the exchange. */
  body: AsyncIterableIterator<Uint8Array>;
}

/**
 * The `http` of isomorphic-git over streams of `alknet/git`, for the repositories of one node:
 * each request is an exchange of its own. Where the carrier has many streams, a connection is
 * kept for the next request until the node ends it.
 */
export class GitHttp {
  readonly #dial: Dialler;
  readonly #origin: string;
  readonly #closing = new AbortController();
  #kept: Session | undefined;

  constructor(dial: Dialler, origin: string) {
    this.#dial = dial;
    this.#origin = origin;
  }

  /**
   * Answers a request of git's smart HTTP protocol. Throws a {@link GitRefusedError} with the
   * node's words, `GitProtocolError`, a `TypeError` if the address is no repository of this
   * node, what dialling throws, or the signal's reason.
   */
  readonly request = async (request: GitRequest): Promise<GitResponse> => {
    const { url, method = "GET", headers = {}, body } = request;
    const target = targetOf(method, url, this.#origin);
    const line = requestLine(target, this.#origin, versionOf(headers));
    const exchange = await this.#begin(line, this.#signal(request.signal));
    const asks = method === "GET";
    if (!asks) await exchange.ask(body ?? []);
    return {
      url,
      method,
      statusCode: 200,
      statusMessage: "OK",
      headers: { "content-type": contentType(target, asks) },
      body: asks ? advertised(target, exchange) : exchange.answer(),
    };
  };

  /** Ends everything that is under way, for good. */
  close(): void {
    this.#closing.abort(new Error("the transport is closed"));
    this.#kept?.close();
    this.#kept = undefined;
  }

  #signal(signal: AbortSignal | undefined): AbortSignal {
    const closing = this.#closing.signal;
    return signal === undefined ? closing : AbortSignal.any([closing, signal]);
  }

  /** Begins an exchange, on a new connection where the kept one is of no use any more. */
  async #begin(line: Bytes, signal: AbortSignal): Promise<Exchange> {
    signal.throwIfAborted();
    const kept = this.#kept;
    if (kept !== undefined) {
      try {
        return await begun(line, await race(kept.open(), signal), signal, () => undefined);
      } catch (error) {
        signal.throwIfAborted();
        if (error instanceof GitRefusedError) throw error;
        this.#forget(kept);
      }
    }
    const session = await this.#dial(signal);
    // A connection with one stream is over with its exchange.
    const release = session.multiplexed ? this.#keep(session) : () => session.close();
    try {
      return await begun(line, await race(session.open(), signal), signal, release);
    } catch (error) {
      this.#forget(session);
      throw error;
    }
  }

  #keep(session: Session): () => void {
    this.#kept = session;
    const over = () => this.#forget(session);
    session.closed.then(over, over);
    return () => undefined;
  }

  #forget(session: Session): void {
    if (this.#kept === session) this.#kept = undefined;
    session.close();
  }
}

async function begun(
  line: Bytes,
  stream: Duplex,
  signal: AbortSignal,
  release: () => void,
): Promise<Exchange> {
  const exchange = new Exchange(stream, signal, release);
  await exchange.begin(line);
  return exchange;
}

/** The references, behind what the smart HTTP protocol puts before them (gitprotocol-http). */
async function* advertised({ service }: Target, exchange: Exchange): AsyncGenerator<Bytes, void> {
  try {
    yield packet(`# service=${service}\n`);
    yield FLUSH;
    yield* exchange.references();
  } finally {
    exchange.close();
  }
}

function contentType({ service }: Target, asks: boolean): string {
  return `application/x-${service}-${asks ? "advertisement" : "result"}`;
}

/** The version of the protocol that the client has asked for. */
function versionOf(headers: Record<string, string>): number {
  const name = Object.keys(headers).find((name) => name.toLowerCase() === "git-protocol");
  return Number(/(?:^|:)version=([12])(?:$|:)/.exec(headers[name ?? ""] ?? "")?.[1] ?? 0);
}
