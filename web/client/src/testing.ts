// A node for tests: its ends of in-memory streams, and what it says on them by hand.
import type { Bytes } from "./bytes.js";
import { Decoder, encode, type Frame, type FrameType } from "./call/frame.js";
import { Deferred } from "./deferred.js";
import type { Carrier, Duplex, Session } from "./dial/session.js";

/** The node's end of a stream. */
export class Peer {
  readonly #writer: WritableStreamDefaultWriter<Bytes>;
  readonly #frames = new Queue<Frame | "end" | "reset">();
  readonly #reader: ReadableStreamDefaultReader<Bytes>;
  #hold: Promise<void> = Promise.resolve();

  constructor({ readable, writable }: Duplex) {
    this.#writer = writable.getWriter();
    this.#writer.closed.catch(() => undefined);
    this.#reader = readable.getReader();
    this.#read().then(
      () => this.#frames.put("end"),
      () => this.#frames.put("reset"),
    );
  }

  /** The next frame. Unlike a test's expectations, waiting has no deadline but the test's. */
  async next(): Promise<Frame> {
    const frame = await this.#frames.take();
    if (typeof frame === "string") throw new Error(`there is no frame, but ${frame}`);
    return frame;
  }

  /** How the client's direction ends, with nothing before. */
  async ended(): Promise<"end" | "reset"> {
    const frame = await this.#frames.take();
    if (typeof frame !== "string") throw new Error(`another frame: ${JSON.stringify(frame)}`);
    return frame;
  }

  /** Frames that have come and were not taken. */
  get waiting(): readonly unknown[] {
    return this.#frames.waiting;
  }

  send(type: FrameType | (string & {}), id: string, payload: object = {}): void {
    this.raw(encode({ type, id, payload } as Frame));
  }

  raw(bytes: Bytes): void {
    this.#writer.write(bytes).catch(() => undefined);
  }

  /** Reads no more until the returned function is called. */
  hold(): () => void {
    const held = new Deferred<void>();
    this.#hold = held.promise;
    return () => held.resolve();
  }

  async end(): Promise<void> {
    await this.#writer.close().catch(() => undefined);
  }

  async reset(): Promise<void> {
    const reason = new Error("reset");
    await Promise.allSettled([this.#writer.abort(reason), this.#reader.cancel(reason)]);
  }

  async #read(): Promise<void> {
    const decoder = new Decoder();
    for (;;) {
      const { done, value } = await this.#reader.read();
      if (done) return;
      for (const frame of decoder.push(value)) this.#frames.put(frame);
      await this.#hold;
    }
  }
}

/** A connection, with the node's side in the test's hands. */
export class FakeSession implements Session {
  readonly carrier: Carrier;
  readonly incoming: ReadableStream<Duplex>;
  readonly closed: Promise<number | undefined>;
  /** The code with which the client has closed it. */
  closedWith: number | undefined;
  readonly #closed = new Deferred<number | undefined>();
  readonly #streams = new Queue<Peer>();
  readonly #peers: Peer[] = [];
  #accept!: ReadableStreamDefaultController<Duplex>;
  #opened = false;

  constructor(readonly multiplexed = true) {
    this.carrier = multiplexed ? "webtransport" : "websocket";
    this.incoming = new ReadableStream({ start: (controller) => void (this.#accept = controller) });
    this.closed = this.#closed.promise;
  }

  async open(): Promise<Duplex> {
    if (this.#opened && !this.multiplexed) throw new Error("a second stream");
    this.#opened = true;
    const [ours, theirs] = duplexes();
    const peer = new Peer(theirs);
    this.#peers.push(peer);
    this.#streams.put(peer);
    return ours;
  }

  close(code = 0): void {
    this.closedWith = code;
    void this.end();
  }

  /** The next stream that the client opens. */
  async stream(): Promise<Peer> {
    return await this.#streams.take();
  }

  /** Opens a stream towards the client. */
  offer(): Peer {
    const [ours, theirs] = duplexes();
    const peer = new Peer(theirs);
    this.#peers.push(peer);
    this.#accept.enqueue(ours);
    return peer;
  }

  /** Ends the connection as somebody does who has nothing more to say. */
  async finish(): Promise<void> {
    await Promise.all(this.#peers.map((peer) => peer.end()));
    this.#closed.resolve(0);
  }

  /** Cuts the connection. */
  async end(code?: number): Promise<void> {
    this.#closed.resolve(code);
    await Promise.all(this.#peers.map((peer) => peer.reset()));
  }
}

/** A node that a client dials: each try is answered by the test. */
export class FakeNode {
  readonly #tries = new Queue<Deferred<Session>>();

  readonly dial = (): Promise<Session> => {
    const attempt = new Deferred<Session>();
    this.#tries.put(attempt);
    return attempt.promise;
  };

  /** Answers the next try to connect. */
  async accept(multiplexed = true): Promise<FakeSession> {
    const session = new FakeSession(multiplexed);
    (await this.#tries.take()).resolve(session);
    return session;
  }

  /** Answers the next try, which is made some time after a connection was lost. */
  async acceptLater(advance: (ms: number) => Promise<unknown>): Promise<FakeSession> {
    while (this.waiting === 0) await advance(50);
    return await this.accept();
  }

  async refuse(error: unknown): Promise<void> {
    (await this.#tries.take()).reject(error);
  }

  /** Tries that were not answered yet. */
  get waiting(): number {
    return this.#tries.waiting.length;
  }
}

class Queue<T> {
  readonly #items: T[] = [];
  readonly #takers: ((item: T) => void)[] = [];

  put(item: T): void {
    const taker = this.#takers.shift();
    if (taker === undefined) this.#items.push(item);
    else taker(item);
  }

  async take(): Promise<T> {
    const item = this.#items.shift();
    return item ?? (await new Promise<T>((resolve) => this.#takers.push(resolve)));
  }

  get waiting(): readonly T[] {
    return this.#items;
  }
}

function duplexes(): [Duplex, Duplex] {
  const up = new TransformStream<Bytes, Bytes>();
  const down = new TransformStream<Bytes, Bytes>();
  return [
    { readable: down.readable, writable: up.writable },
    { readable: up.readable, writable: down.writable },
  ];
}
