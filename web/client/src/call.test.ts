// Calls of the client, against a node in the test's hands.
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { CallError } from "./call/error.js";
import { Client } from "./client.js";
import { FakeNode, type FakeSession, type Peer } from "./testing.js";

let node: FakeNode;
let client: Client;
let session: FakeSession;

beforeEach(async () => {
  vi.useFakeTimers();
  node = new FakeNode();
  client = new Client(node.dial);
  session = await node.accept();
});

afterEach(() => {
  client.close();
  vi.useRealTimers();
});

/** The error of a promise that has to fail. */
async function failure(promise: Promise<unknown>): Promise<CallError> {
  const error: unknown = await promise.then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(error).toBeInstanceOf(CallError);
  return error as CallError;
}

async function shared(): Promise<Peer> {
  return await session.stream();
}

describe("a call", () => {
  test("asks and gets its answer", async () => {
    const sum = client.call("math/add", { a: 1, b: 2 });
    const peer = await shared();
    expect(await peer.next()).toEqual({
      type: "call.requested",
      id: "1",
      payload: { operationId: "math/add", input: { a: 1, b: 2 }, timeout_ms: 30_000 },
    });
    peer.send("call.responded", "1", { output: 3 });
    expect(await sum).toBe(3);
  });

  test("leaves an input out that there is not, and takes an output that is not there", async () => {
    const call = client.call("node/ping");
    const peer = await shared();
    const { payload } = await peer.next();
    expect(payload).not.toHaveProperty("input");
    peer.send("call.responded", "1", {});
    expect(await call).toBe(null);
  });

  test("shares its stream with others, whose answers come in any order", async () => {
    const calls = ["a", "b", "c"].map((input) => client.call("echo/echo", input));
    const peer = await shared();
    const requests = [await peer.next(), await peer.next(), await peer.next()];
    for (const { id, payload } of requests.reverse()) {
      peer.send("call.responded", id, { output: payload["input"] });
    }
    expect(await Promise.all(calls)).toEqual(["a", "b", "c"]);
  });

  test("fails with what the node says", async () => {
    const failed = failure(client.call("math/divide", { a: 1, b: 0 }));
    const peer = await shared();
    const error = { code: "DIVISION", message: "by zero", retryable: true, details: { b: 0 } };
    peer.send("call.error", (await peer.next()).id, error);
    expect(await failed).toMatchObject(error);
  });

  test("fails with an error that says too little, too", async () => {
    const failed = failure(client.call("math/divide"));
    const peer = await shared();
    peer.send("call.error", (await peer.next()).id, { code: 7, retryable: "yes" });
    expect(await failed).toMatchObject({ code: "INTERNAL", retryable: false });
  });

  test("fails when the node has stopped it", async () => {
    const failed = failure(client.call("math/add"));
    const peer = await shared();
    peer.send("call.aborted", (await peer.next()).id, { reason: "shutting down" });
    expect(await failed).toMatchObject({ code: "UNAVAILABLE" });
  });

  test("is cancelled by its signal, and what still comes of it is ignored", async () => {
    const controller = new AbortController();
    const call = client.call("exec/run", {}, { signal: controller.signal });
    const peer = await shared();
    const { id } = await peer.next();
    controller.abort(new Error("enough"));
    await expect(call).rejects.toThrow("enough");
    expect(await peer.next()).toEqual({ type: "call.aborted", id, payload: {} });
    peer.send("call.responded", id, { output: 1 });
    peer.send("call.aborted", id);
    const next = client.call("math/add");
    const request = await peer.next();
    expect(request.type).toBe("call.requested");
    peer.send("call.responded", request.id, { output: 2 });
    expect(await next).toBe(2);
  });

  test("with an aborted signal asks nothing", async () => {
    const signal = AbortSignal.abort(new Error("before"));
    await expect(client.call("math/add", {}, { signal })).rejects.toThrow("before");
  });

  test("ends at its deadline, and the node hears of it", async () => {
    const failed = failure(client.call("math/add", {}, { timeoutMs: 1_000 }));
    const peer = await shared();
    const { id, payload } = await peer.next();
    expect(payload["timeout_ms"]).toBe(1_000);
    await vi.advanceTimersByTimeAsync(999);
    expect(peer.waiting).toEqual([]);
    await vi.advanceTimersByTimeAsync(1);
    expect(await failed).toMatchObject({ code: "TIMEOUT" });
    expect(await peer.next()).toMatchObject({ type: "call.aborted", id });
  });

  test("that is too long is not sent, and the stream goes on", async () => {
    const long = client.call("echo/echo", "x".repeat(5 * 1024 * 1024));
    await expect(long).rejects.toThrow("bytes");
    const call = client.call("echo/echo", 1);
    const peer = await shared();
    const { id } = await peer.next();
    peer.send("call.responded", id, { output: 1 });
    expect(await call).toBe(1);
  });
});

describe("what a node may send", () => {
  test("an answer that nobody waits for is answered with call.aborted", async () => {
    void client.call("math/add").catch(() => undefined);
    const peer = await shared();
    await peer.next();
    peer.send("call.responded", "77", { output: 1 });
    expect(await peer.next()).toEqual({ type: "call.aborted", id: "77", payload: {} });
  });

  test("unknown types, and endings of unknown calls, change nothing", async () => {
    const call = client.call("math/add");
    const peer = await shared();
    const { id } = await peer.next();
    peer.send("call.paused", id);
    peer.send("call.completed", "9");
    peer.send("call.error", "9", { code: "INTERNAL", message: "" });
    peer.send("call.aborted", "9");
    peer.send("call.window", "9", { items: 1 });
    peer.send("call.responded", id, { output: 5, more: true });
    expect(await call).toBe(5);
    expect(peer.waiting).toEqual([]);
  });

  test("an error of the stream as a whole fails all calls on it", async () => {
    const calls = [1, 2].map(() => failure(client.call("math/add", 1, { repeatable: true })));
    const peer = await shared();
    await peer.next();
    peer.send("call.error", "", { code: "INVALID_INPUT", message: "no frame" });
    for (const call of calls) {
      expect(await call).toMatchObject({ code: "INVALID_INPUT", message: "no frame" });
    }
  });

  test.each([
    ["too long", Uint8Array.of(255, 0, 0, 0)],
    ["no JSON", Uint8Array.of(0, 0, 0, 1, 0x7b)],
  ])("a frame that is %s ends the stream with the reason", async (_, bytes) => {
    const failed = failure(client.call("math/add", 1, { repeatable: false }));
    const peer = await shared();
    await peer.next();
    peer.raw(bytes);
    const { type, id, payload } = await peer.next();
    expect({ type, id, code: payload["code"] }).toEqual({
      type: "call.error",
      id: "",
      code: "INVALID_INPUT",
    });
    expect(await peer.ended()).toBe("end");
    expect(await failed).toMatchObject({ code: "UNAVAILABLE" });
    await vi.advanceTimersByTimeAsync(0);
    expect(session.closedWith).toBe(6);
  });

  test("more than is read of our answers ends the stream", async () => {
    void client.call("math/add").catch(() => undefined);
    const peer = await shared();
    peer.hold();
    for (let n = 0; n < 3_000; n++) peer.send("call.responded", `x${n}`, { output: 1 });
    await vi.advanceTimersByTimeAsync(10);
    expect(session.closedWith).toBe(0);
  });
});
