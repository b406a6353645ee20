// Which carrier is tried how, against stand-ins for what the platform offers.
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { Deferred } from "../deferred.js";
import { dial, DialError, dialSession, isTransient, UnsupportedError } from "./dial.js";
import { dialSoon } from "./hedge.js";
import { SignedOutError } from "./node.js";

const origin = "https://node.example:8443";
const sha256 = new Uint8Array(32).fill(7);
const certificates = [{ sha256, notAfter: 0 }];

/** What was asked of the platform, in order. */
let asked: string[];
let transports: FakeTransport[];
let sockets: FakeSocket[];
/** Answers of the node to requests for tickets. */
let tickets: () => Response;

class FakeTransport {
  readonly settle = new Deferred<void>();
  readonly ready = this.settle.promise;
  readonly over = new Deferred<{ closeCode: number }>();
  readonly closed = this.over.promise;
  readonly incomingBidirectionalStreams = new ReadableStream();
  closes: unknown[] = [];

  constructor(
    readonly url: string,
    readonly options: WebTransportOptions,
  ) {
    asked.push("webtransport");
    transports.push(this);
  }

  createBidirectionalStream() {
    return Promise.resolve(new TransformStream());
  }

  close(info?: unknown) {
    this.closes.push(info);
    this.settle.reject(new Error("closed"));
    this.over.resolve({ closeCode: 0 });
  }
}

class FakeSocket {
  readonly OPEN = 1;
  readyState = 0;
  bufferedAmount = 0;
  binaryType = "blob";
  closes: unknown[] = [];
  onopen: (event: object) => void = () => undefined;
  onclose: (event: { code: number }) => void = () => undefined;

  constructor(
    readonly url: string,
    readonly protocols: string[],
  ) {
    asked.push("websocket");
    sockets.push(this);
  }

  close(code?: number) {
    this.closes.push(code);
    this.onclose({ code: code ?? 1005 });
  }
}

beforeEach(() => {
  vi.useFakeTimers();
  asked = [];
  [transports, sockets] = [[], []];
  let count = 0;
  tickets = () => Response.json({ ticket: `secret${++count}` });
  vi.stubGlobal("WebTransport", FakeTransport);
  vi.stubGlobal("WebSocket", FakeSocket);
  vi.stubGlobal("fetch", async (url: URL, { method, headers, body }: RequestInit) => {
    asked.push(`${method} ${url.href} ${String(body)} ${JSON.stringify(headers)}`);
    return tickets();
  });
});

afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

const tick = () => vi.advanceTimersByTimeAsync(0);

describe("automatic choice", () => {
  test("takes WebTransport, with the certificates and a ticket", async () => {
    const dialling = dial("alknet/call", { origin, certificates });
    await tick();
    const [transport] = transports;
    expect(transport!.url).toBe(`${origin}/alknet/call`);
    expect(transport!.options).toEqual({
      protocols: ["alknet/call", "ticket.secret1"],
      serverCertificateHashes: [{ algorithm: "sha-256", value: sha256 }],
    });
    transport!.settle.resolve();
    expect((await dialling).carrier).toBe("webtransport");
    expect(sockets).toEqual([]);
  });

  test("gives the browser no hashes where its own trust counts", async () => {
    void dial("alknet/call", { origin, certificates: [] }).catch(() => undefined);
    await tick();
    expect(transports[0]!.options).not.toHaveProperty("serverCertificateHashes");
  });

  test("takes WebSocket where WebTransport fails, with a ticket of its own", async () => {
    const dialling = dial("alknet/call", { origin, certificates });
    await tick();
    transports[0]!.settle.reject(new Error("blocked"));
    await tick();
    expect(sockets[0]!.url).toBe("wss://node.example:8443/alknet/call");
    expect(sockets[0]!.protocols).toEqual(["alknet.call", "ticket.secret2"]);
    sockets[0]!.onopen({});
    const line = await dialling;
    expect(line.carrier).toBe("websocket");
    sockets[0]!.onclose({ code: 4007 });
    expect(await line.closed).toBe(7);
  });

  test("waits five seconds for WebTransport, and not longer", async () => {
    void dial("alknet/call", { origin, certificates }).catch(() => undefined);
    await vi.advanceTimersByTimeAsync(4_999);
    expect(asked).not.toContain("websocket");
    await vi.advanceTimersByTimeAsync(1);
    expect(asked).toContain("websocket");
  });

  test("takes WebSocket at once where there is no WebTransport", async () => {
    Reflect.deleteProperty(globalThis, "WebTransport");
    void dial("alknet/call", { origin }).catch(() => undefined);
    await tick();
    expect(asked.at(-1)).toBe("websocket");
    await expect(dial("alknet/call", { origin, via: "webtransport" })).rejects.toThrow(
      UnsupportedError,
    );
  });

  test("tells of every failure", async () => {
    const dialling = dial("alknet/call", { origin, certificates }).catch((error) => error);
    await tick();
    transports[0]!.settle.reject(new Error("blocked"));
    await tick();
    sockets[0]!.onclose({ code: 1006 });
    const error = await dialling;
    expect(error).toBeInstanceOf(DialError);
    expect([...error.failures.keys()]).toEqual(["webtransport", "websocket"]);
    expect(error.message).toContain("webtransport: blocked");
    expect(isTransient(error)).toBe(true);
  });
});

test.each([
  ["webtransport", "websocket"],
  ["websocket", "webtransport"],
] as const)("nothing but %s is tried if that is wanted", async (via, other) => {
  void dial("alknet/call", { origin, certificates, via }).catch(() => undefined);
  await tick();
  transports[0]?.settle.reject(new Error("blocked"));
  sockets[0]?.onclose({ code: 1006 });
  await tick();
  expect(asked).toContain(via);
  expect(asked).not.toContain(other);
});

describe("the ticket", () => {
  test("is asked for with a bearer token, if there is one", async () => {
    const token = async () => "alk_token";
    void dial("alknet/call", { origin, token, via: "websocket" }).catch(() => undefined);
    await tick();
    expect(asked[0]).toBe(
      `POST ${origin}/alknet/ticket {"alpn":"alknet/call"} ` +
        `{"content-type":"application/json","authorization":"Bearer alk_token"}`,
    );
  });

  test.each([
    ["a page", () => new Response("<html>", { headers: { "content-type": "text/html" } }), false],
    ["not found", () => new Response("", { status: 404 }), false],
    ["JSON of another kind", () => Response.json({ error: "no" }, { status: 403 }), false],
    ["out of order", () => new Response("", { status: 503 }), true],
    ["no ticket", () => Response.json({}), true],
  ])("is not: %s", async (_, answer, transient) => {
    tickets = answer;
    const dialling = dial("alknet/call", { origin, via: "websocket" });
    const error = await dialling.catch((error: unknown) => error);
    expect(error).toBeInstanceOf(Error);
    expect(error instanceof SignedOutError).toBe(!transient);
    expect(isTransient(error)).toBe(transient);
    expect(asked).not.toContain("websocket");
  });
});

describe("the signal", () => {
  test.each(["webtransport", "websocket"] as const)("cuts a try over %s", async (via) => {
    const controller = new AbortController();
    const { signal } = controller;
    const dialling = dialSession("alknet/call", { origin, certificates, via, signal });
    const failed = expect(dialling).rejects.toThrow("enough");
    await tick();
    controller.abort(new Error("enough"));
    await failed;
    expect((transports[0] ?? sockets[0])!.closes).not.toEqual([]);
  });

  test("that was aborted before asks nothing", async () => {
    const signal = AbortSignal.abort(new Error("before"));
    await expect(dialSession("alknet/call", { origin, signal })).rejects.toThrow("before");
    expect(asked).toEqual([]);
  });
});

describe("a WebSocket", () => {
  test("has one stream, and closes with a code in its range", async () => {
    const dialling = dialSession("alknet/call", { origin, via: "websocket" });
    await tick();
    sockets[0]!.onopen({});
    const session = await dialling;
    await session.open();
    await expect(session.open()).rejects.toThrow("one stream");
    session.close(6);
    expect(sockets[0]!.closes).toEqual([4006]);
    expect(await session.closed).toBe(6);
  });
});

describe("for who has to come back soon", () => {
  const soon = () => {
    const dialling = dialSoon("alknet/shell", { origin, certificates });
    dialling.catch(() => undefined);
    return dialling;
  };
  const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms);

  test("WebTransport has a head start", async () => {
    const dialling = soon();
    await pass(999);
    transports[0]!.settle.resolve();
    expect((await dialling).carrier).toBe("webtransport");
    await pass(20_000);
    expect(sockets).toEqual([]);
    expect(transports[0]!.closes).toEqual([]);
  });

  test("a WebSocket beside it may be there first", async () => {
    const dialling = soon();
    await pass(1_000);
    sockets[0]!.onopen({});
    expect((await dialling).carrier).toBe("websocket");
    await pass(20_000);
    expect(transports[0]!.closes).not.toEqual([]);
    expect(sockets[0]!.closes).toEqual([]);
  });

  test("or late, and is not kept", async () => {
    const dialling = soon();
    await pass(1_000);
    transports[0]!.settle.resolve();
    expect((await dialling).carrier).toBe("webtransport");
    await pass(0);
    expect(sockets[0]!.closes).not.toEqual([]);
    expect(transports[0]!.closes).toEqual([]);
  });

  test("what both failed with is told", async () => {
    const dialling = soon();
    await pass(0);
    transports[0]!.settle.reject(new Error("no UDP"));
    await pass(0);
    sockets[0]!.onclose({ code: 1006 });
    const error = await dialling.catch((error: unknown) => error);
    expect(error).toBeInstanceOf(DialError);
    expect([...(error as DialError).failures.keys()]).toEqual(["webtransport", "websocket"]);
  });

  test("a node that does not know the caller is asked by neither again", async () => {
    tickets = () => new Response("<html>", { status: 404 });
    await expect(soon()).rejects.toBeInstanceOf(SignedOutError);
    await pass(20_000);
    expect(transports).toEqual([]);
    expect(sockets).toEqual([]);
  });
});
