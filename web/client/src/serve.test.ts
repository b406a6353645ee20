// What the client serves, to a node in the test's hands.
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { CallError } from "./call/error.js";
import { Item, type Operation, type Operations } from "./call/services.js";
import { Client } from "./client.js";
import { Deferred } from "./deferred.js";
import { FakeNode, type FakeSession, type Peer } from "./testing.js";

let node: FakeNode;
let client: Client;
let session: FakeSession;
let failures: [string, unknown][];

beforeEach(async () => {
  vi.useFakeTimers();
  node = new FakeNode();
  failures = [];
  client = new Client(node.dial, { onHandlerError: (...failure) => failures.push(failure) });
  session = await node.accept();
});

afterEach(() => {
  client.close();
  vi.useRealTimers();
});

/** Serves operations; the stream on which they were registered. */
async function serve(operations: Operations): Promise<Peer> {
  const serving = client.serve(operations);
  const peer = await session.stream();
  const { id } = await peer.next();
  peer.send("call.responded", id, { output: { operations: Object.keys(operations) } });
  await serving;
  return peer;
}

/** Asks what is served, on the client's stream. */
function ask(peer: Peer, id: string, operationId: string, more: object = {}): void {
  peer.send("call.requested", id, { operationId, ...more });
}

const add: Operation = {
  type: "query",
  description: "Adds.",
  input: { type: "array", items: { type: "number" } },
  output: { type: "number" },
  handler: ([a, b]: [number, number]) => a + b,
};

/** A handler that runs until it is told to stop, and longer. */
function endless(): { operation: Operation; signal: Promise<AbortSignal>; end: Deferred<void> } {
  const signal = new Deferred<AbortSignal>();
  const end = new Deferred<void>();
  const handler = async (_: unknown, context: { signal: AbortSignal }) => {
    signal.resolve(context.signal);
    await end.promise;
  };
  return { operation: { type: "mutation", handler }, signal: signal.promise, end };
}

async function* count(_: unknown): AsyncGenerator<unknown> {
  for (let n = 0; ; n++) yield new Item(n, `e${n}`);
}

describe("serving", () => {
  test("registers what is served, and all of it again when there is more", async () => {
    const first = client.serve({ "math/add": add });
    const peer = await session.stream();
    const { id, payload } = await peer.next();
    const { handler: _, ...described } = add;
    const operations = [{ name: "math/add", ...described }];
    expect(payload).toMatchObject({ operationId: "services/register", input: { operations } });
    peer.send("call.responded", id, { output: { operations: ["math/add"] } });
    const withdraw = await first;

    const second = client.serve({ "math/sum": { type: "query", handler: () => 0 } });
    const again = await peer.next();
    const sum = { name: "math/sum", type: "query", description: "", input: true, output: true };
    expect(again.payload["input"]).toEqual({ operations: [...operations, sum] });
    peer.send("call.responded", again.id, { output: {} });
    await second;

    const withdrawing = withdraw();
    const last = await peer.next();
    expect(last.payload["input"]).toEqual({ operations: [sum] });
    peer.send("call.responded", last.id, { output: {} });
    await withdrawing;
    ask(peer, "~1", "math/add", { input: [1, 2] });
    expect(await peer.next()).toMatchObject({ payload: { code: "NOT_FOUND" } });
  });

  test("fails if the node does not want it, and keeps what was served before", async () => {
    const peer = await serve({ "math/add": add });
    const serving = client.serve({ "node/status": add });
    const refused = expect(serving).rejects.toMatchObject({ code: "INVALID_INPUT" });
    const { id } = await peer.next();
    peer.send("call.error", id, { code: "INVALID_INPUT", message: "the node's own" });
    const again = await peer.next();
    expect(again.payload["input"]).toMatchObject({ operations: [{ name: "math/add" }] });
    peer.send("call.responded", again.id, { output: {} });
    await refused;
  });

  test("refuses a name twice", async () => {
    await serve({ "math/add": add });
    await expect(client.serve({ "math/add": add })).rejects.toThrow("served already");
  });
});

describe("the node's call", () => {
  test("is answered on the stream of the client", async () => {
    const peer = await serve({ "math/add": add });
    ask(peer, "~1", "math/add", { input: [1, 2] });
    expect(await peer.next()).toEqual({
      type: "call.responded",
      id: "~1",
      payload: { output: 3 },
    });
  });

  test("is answered on the stream of the node", async () => {
    await serve({ "math/add": add });
    const peer = session.offer();
    ask(peer, "1", "math/add", { input: [1, 2] });
    expect(await peer.next()).toMatchObject({ id: "1", payload: { output: 3 } });
    ask(peer, "~1", "math/add", { input: [1, 2] });
    expect(await peer.next()).toMatchObject({ id: "~1", payload: { code: "INVALID_INPUT" } });
  });

  test("is answered after the node's direction has ended, and then so does ours", async () => {
    const { operation, end } = endless();
    await serve({ "slow/slow": operation });
    const peer = session.offer();
    ask(peer, "1", "slow/slow");
    await peer.end();
    await vi.advanceTimersByTimeAsync(1_000);
    expect(peer.waiting).toEqual([]);
    end.resolve();
    expect(await peer.next()).toMatchObject({ type: "call.responded", id: "1" });
    expect(await peer.ended()).toBe("end");
  });

  test.each([
    ["an operation that is not there", { operationId: "math/sub" }, "NOT_FOUND"],
    ["what every object has", { operationId: "constructor" }, "NOT_FOUND"],
    ["no operation", {}, "INVALID_INPUT"],
    ["an operation that is no name", { operationId: 7 }, "INVALID_INPUT"],
  ])("of %s is refused", async (_, payload, code) => {
    const peer = await serve({ "math/add": add });
    peer.send("call.requested", "~1", payload);
    expect(await peer.next()).toMatchObject({ type: "call.error", id: "~1", payload: { code } });
  });

  test("is refused without end only to a node that reads", async () => {
    const peer = await serve({ "math/add": add });
    peer.hold();
    for (let n = 0; n < 3_000; n++) ask(peer, `~${n}`, "no/such");
    await vi.advanceTimersByTimeAsync(10);
    expect(session.closedWith).toBe(0);
  });

  test("with an id in use is refused, and the first goes on", async () => {
    const { operation, end } = endless();
    const peer = await serve({ "slow/slow": operation });
    ask(peer, "~1", "slow/slow");
    ask(peer, "~1", "slow/slow");
    expect(await peer.next()).toMatchObject({ id: "~1", payload: { code: "INVALID_INPUT" } });
    end.resolve();
    expect(await peer.next()).toMatchObject({ type: "call.responded", id: "~1" });
    ask(peer, "~1", "slow/slow");
    expect(await peer.next()).toMatchObject({ type: "call.responded", id: "~1" });
  });

  test("fails with the error that the handler meant for the node", async () => {
    const error = new CallError("DIVISION", "by zero", { retryable: true, details: [0] });
    const handler = () => Promise.reject(error);
    const peer = await serve({ "math/divide": { type: "query", handler } });
    ask(peer, "~1", "math/divide");
    expect((await peer.next()).payload).toEqual({
      code: "DIVISION",
      message: "by zero",
      retryable: true,
      details: [0],
    });
    expect(failures).toEqual([]);
  });

  test("fails with no word of an error that was not meant for it", async () => {
    const error = new Error("the password is swordfish");
    const handler = () => {
      throw error;
    };
    const peer = await serve({ "math/divide": { type: "query", handler } });
    ask(peer, "~1", "math/divide");
    const { payload } = await peer.next();
    expect(payload["code"]).toBe("INTERNAL");
    expect(JSON.stringify(payload)).not.toContain("swordfish");
    expect(failures).toEqual([["math/divide", error]]);
  });

  test("fails if its answer is too long", async () => {
    const handler = () => "x".repeat(5 * 1024 * 1024);
    const peer = await serve({ "echo/long": { type: "query", handler } });
    ask(peer, "~1", "echo/long");
    expect(await peer.next()).toMatchObject({ type: "call.error", payload: { code: "INTERNAL" } });
  });

  test("that is aborted is over when its handler is", async () => {
    const { operation, signal, end } = endless();
    const peer = await serve({ "slow/slow": operation });
    ask(peer, "~1", "slow/slow");
    const { aborted } = await signal;
    expect(aborted).toBe(false);
    peer.send("call.aborted", "~1");
    await vi.advanceTimersByTimeAsync(1_000);
    expect((await signal).aborted).toBe(true);
    expect(peer.waiting).toEqual([]);
    end.resolve();
    expect(await peer.next()).toEqual({ type: "call.aborted", id: "~1", payload: {} });
  });

  test("ends at its deadline, whatever its handler does", async () => {
    const { operation, signal, end } = endless();
    const peer = await serve({ "slow/slow": operation });
    ask(peer, "~1", "slow/slow", { timeout_ms: 500 });
    await vi.advanceTimersByTimeAsync(499);
    expect(peer.waiting).toEqual([]);
    await vi.advanceTimersByTimeAsync(1);
    expect(await peer.next()).toMatchObject({ id: "~1", payload: { code: "TIMEOUT" } });
    expect((await signal).aborted).toBe(true);
    end.resolve();
    await vi.advanceTimersByTimeAsync(1_000);
    expect(peer.waiting).toEqual([]);
  });

  test.each(["end", "finish"] as const)("is stopped by the connection's %s", async (how) => {
    const { operation, signal } = endless();
    const peer = await serve({ "slow/slow": operation });
    ask(peer, "~1", "slow/slow");
    const running = await signal;
    await session[how]();
    await vi.advanceTimersByTimeAsync(0);
    expect(running.aborted).toBe(true);
  });

  test("is refused when there are too many", async () => {
    const { operation } = endless();
    const peer = await serve({ "slow/slow": operation });
    for (let n = 0; n <= 256; n++) ask(peer, `~${n}`, "slow/slow");
    expect(await peer.next()).toMatchObject({ id: "~256", payload: { code: "UNAVAILABLE" } });
  });

  test.each(["", "~".repeat(65)])("with the id %j ends the stream", async (id) => {
    const peer = await serve({ "math/add": add });
    ask(peer, id, "math/add");
    expect(await peer.next()).toMatchObject({ type: "call.error", id: "" });
    expect(await peer.ended()).toBe("end");
  });
});

describe("a subscription of the node", () => {
  const items = (handler: (input: unknown) => AsyncIterable<unknown>): Operations => ({
    "count/up": { type: "subscription", handler },
  });

  test("gets the items and the end", async () => {
    const peer = await serve(
      items(async function* () {
        yield "a";
        yield new Item("b", "2");
        yield undefined;
      }),
    );
    ask(peer, "~1", "count/up");
    expect((await peer.next()).payload).toEqual({ output: "a" });
    expect((await peer.next()).payload).toEqual({ output: "b", event: "2" });
    expect((await peer.next()).payload).toEqual({ output: null });
    expect(await peer.next()).toEqual({ type: "call.completed", id: "~1", payload: {} });
  });

  test("says where it goes on", async () => {
    const handler = async function* (_: unknown, { after }: { after: string | undefined }) {
      yield after;
    };
    const peer = await serve({ "count/up": { type: "subscription", handler } });
    ask(peer, "~1", "count/up", { after: "e7" });
    expect((await peer.next()).payload).toEqual({ output: "e7" });
    await peer.next();
    ask(peer, "~2", "count/up", { after: 7 });
    expect((await peer.next()).payload).toEqual({ output: null });
  });

  test("gets no more than it has room for", async () => {
    const peer = await serve(items(count));
    ask(peer, "~1", "count/up", { window: 2 });
    expect((await peer.next()).payload).toEqual({ output: 0, event: "e0" });
    expect((await peer.next()).payload).toEqual({ output: 1, event: "e1" });
    await vi.advanceTimersByTimeAsync(1_000);
    expect(peer.waiting).toEqual([]);
    peer.send("call.window", "~1", { items: 1 });
    expect((await peer.next()).payload).toEqual({ output: 2, event: "e2" });
    await vi.advanceTimersByTimeAsync(1_000);
    expect(peer.waiting).toEqual([]);
  });

  test("without a window waits for a stream that is not read", async () => {
    let made = 0;
    const peer = await serve(
      items(async function* () {
        for (;;) yield made++;
      }),
    );
    const release = peer.hold();
    ask(peer, "~1", "count/up");
    await vi.advanceTimersByTimeAsync(1_000);
    expect(made).toBeLessThan(10);
    release();
    for (let n = 0; n < 20; n++) expect((await peer.next()).payload["output"]).toBe(n);
    peer.send("call.aborted", "~1");
  });

  test("is told that it is slow, and its generator ends", async () => {
    let ended = false;
    const peer = await serve(
      items(async function* () {
        try {
          for (;;) yield 1;
        } finally {
          ended = true;
        }
      }),
    );
    ask(peer, "~1", "count/up", { window: 0 });
    await vi.advanceTimersByTimeAsync(29_999);
    expect(peer.waiting).toEqual([]);
    await vi.advanceTimersByTimeAsync(1);
    const { payload } = await peer.next();
    expect(payload).toMatchObject({ code: "UNAVAILABLE", details: { reason: "slow-consumer" } });
    expect(ended).toBe(true);
  });

  test("ends its generator when it is aborted", async () => {
    let ended = false;
    const peer = await serve(
      items(async function* () {
        try {
          for (;;) yield 1;
        } finally {
          ended = true;
        }
      }),
    );
    ask(peer, "~1", "count/up", { window: 1 });
    await peer.next();
    peer.send("call.aborted", "~1");
    expect(await peer.next()).toEqual({ type: "call.aborted", id: "~1", payload: {} });
    expect(ended).toBe(true);
  });

  test.each([{ items: -1 }, { items: 0.5 }, { items: "1" }, {}])(
    "with a window of %j ends the stream",
    async (payload) => {
      const peer = await serve(items(count));
      peer.send("call.window", "~1", payload);
      expect(await peer.next()).toMatchObject({ type: "call.error", id: "" });
    },
  );
});
