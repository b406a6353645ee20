// What a client does when its connection is lost, against a node in the test's hands.
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { Backoff } from "./backoff.js";
import { Client, type StateEvent } from "./client.js";
import { SignedOutError } from "./dial/node.js";
import { StatementError } from "./statement.js";
import { FakeNode, type FakeSession, type Peer } from "./testing.js";

let node: FakeNode;
let client: Client;
let states: StateEvent[];

beforeEach(() => {
  vi.useFakeTimers();
  node = new FakeNode();
  client = new Client(node.dial);
  states = [];
  client.addEventListener("state", (event) => states.push(event));
});

afterEach(() => {
  client.close();
  vi.useRealTimers();
});

/** The connection after one that is lost. */
async function again(): Promise<FakeSession> {
  return await node.acceptLater((ms) => vi.advanceTimersByTimeAsync(ms));
}

async function answerList(peer: Peer): Promise<void> {
  const { id, payload } = await peer.next();
  expect(payload).toMatchObject({ operationId: "services/list", input: {} });
  const operations = [
    { name: "node/status", type: "query", description: "" },
    { name: "node/stop", type: "mutation", description: "" },
  ];
  peer.send("call.responded", id, { output: { operations } });
}

describe("the state", () => {
  test("follows the connection, with the reasons", async () => {
    expect(client.state).toBe("connecting");
    const failure = new Error("no route");
    await node.refuse(failure);
    const session = await again();
    await client.ready();
    expect(client.state).toBe("open");
    await session.end(2);
    await vi.advanceTimersByTimeAsync(0);
    expect(client.state).toBe("connecting");
    client.close();
    expect(client.state).toBe("closed");
    expect(states.map(({ state, reason }) => [state, reason])).toEqual([
      ["connecting", { error: failure }],
      ["open", {}],
      ["connecting", { code: 2 }],
      ["closed", {}],
    ]);
  });

  test.each([new SignedOutError(), new StatementError()])("is final after: %s", async (error) => {
    const call = expect(client.call("node/status")).rejects.toMatchObject({
      code: "UNAVAILABLE",
      cause: error,
    });
    await node.refuse(error);
    await call;
    expect(client.state).toBe("closed");
    await vi.advanceTimersByTimeAsync(600_000);
    expect(node.waiting).toBe(0);
    await expect(client.call("node/status")).rejects.toMatchObject({ code: "UNAVAILABLE" });
    await expect(client.ready()).rejects.toMatchObject({ code: "UNAVAILABLE" });
  });

  test("a client that is closed while it dials cuts what comes of it", async () => {
    await vi.advanceTimersByTimeAsync(0);
    client.close();
    const session = await node.accept();
    await vi.advanceTimersByTimeAsync(0);
    expect(session.closedWith).toBe(0);
  });
});

describe("backing off", () => {
  test("takes twice as long each time, up to half a minute, and half of it by chance", () => {
    const [least, most] = [new Backoff(() => 0), new Backoff(() => 1)];
    const times = Array.from({ length: 9 }, () => [least.next(), most.next()]);
    expect(times.map(([, most]) => most)).toEqual([
      250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000,
    ]);
    for (const [least, most] of times) expect(least).toBe(most! / 2);
  });

  test("begins anew after a connection that lasted, and only then", () => {
    const backoff = new Backoff(() => 1);
    backoff.next();
    backoff.ended(9_999);
    expect(backoff.next()).toBe(500);
    backoff.ended(10_000);
    expect(backoff.next()).toBe(250);
  });

  test("is what a client does", async () => {
    vi.spyOn(Math, "random").mockReturnValue(1);
    for (const wait of [250, 500, 1000]) {
      await node.refuse(new Error("no route"));
      await vi.advanceTimersByTimeAsync(wait - 1);
      expect(node.waiting).toBe(0);
      await vi.advanceTimersByTimeAsync(1);
      expect(node.waiting).toBe(1);
    }
    vi.restoreAllMocks();
  });

  test("is cut short when the network is back", async () => {
    const target = new EventTarget();
    vi.stubGlobal("addEventListener", target.addEventListener.bind(target));
    const client = new Client(node.dial);
    await vi.advanceTimersByTimeAsync(0);
    await node.refuse(new Error("no route"));
    await node.refuse(new Error("no route"));
    await vi.advanceTimersByTimeAsync(0);
    expect(node.waiting).toBe(0);
    target.dispatchEvent(new Event("online"));
    await vi.advanceTimersByTimeAsync(0);
    expect(node.waiting).toBe(1);
    client.close();
    vi.unstubAllGlobals();
  });
});

describe("a call", () => {
  test("made while there is no connection waits for one", async () => {
    const call = client.call("node/stop");
    await node.refuse(new Error("no route"));
    const session = await again();
    const peer = await session.stream();
    const { id, payload } = await peer.next();
    expect(payload["timeout_ms"]).toBeLessThan(30_000);
    peer.send("call.responded", id, { output: "ok" });
    expect(await call).toBe("ok");
  });

  test("made while there is no connection waits no longer than its time", async () => {
    const call = client.call("node/stop", {}, { timeoutMs: 5_000 });
    const failed = expect(call).rejects.toMatchObject({ code: "TIMEOUT" });
    await vi.advanceTimersByTimeAsync(5_000);
    await failed;
  });

  test("of a query is made once more, and no third time", async () => {
    const call = client.call("node/status", {}, { timeoutMs: 600_000 });
    const failed = expect(call).rejects.toMatchObject({ code: "UNAVAILABLE", retryable: false });
    const first = await node.accept();
    await (await first.stream()).next();
    await first.end();
    const second = await again();
    const peer = await second.stream();
    await answerList(peer);
    expect((await peer.next()).payload["operationId"]).toBe("node/status");
    await second.end();
    await failed;
  });

  test("of a query gets the answer of the second try", async () => {
    const call = client.call("node/status", {}, { timeoutMs: 600_000 });
    const first = await node.accept(false);
    await (await first.stream()).next();
    await first.end();
    const second = await again();
    const peer = await second.stream();
    await answerList(peer);
    peer.send("call.responded", (await peer.next()).id, { output: "up" });
    expect(await call).toBe("up");
  });

  test("of a mutation fails, and is not made again", async () => {
    const call = client.call("node/stop", {}, { timeoutMs: 600_000 });
    const failed = expect(call).rejects.toMatchObject({ code: "UNAVAILABLE", retryable: false });
    const first = await node.accept();
    await (await first.stream()).next();
    await first.end();
    const second = await again();
    const peer = await second.stream();
    await answerList(peer);
    await failed;
    expect(peer.waiting).toEqual([]);

    // Now it is known, so nothing is waited for.
    const next = client.call("node/stop");
    await peer.next();
    const lost = expect(next).rejects.toMatchObject({ code: "UNAVAILABLE" });
    await second.end();
    await lost;
  });

  test("says by itself whether it may be repeated", async () => {
    const first = await node.accept();
    const never = expect(
      client.call("node/status", {}, { repeatable: false }),
    ).rejects.toMatchObject({ code: "UNAVAILABLE" });
    const call = client.call("node/stop", {}, { repeatable: true, timeoutMs: 600_000 });
    const peer = await first.stream();
    await peer.next();
    await peer.next();
    await first.end();
    await never;
    const next = await (await again()).stream();
    const { id, payload } = await next.next();
    expect(payload["operationId"]).toBe("node/stop");
    next.send("call.responded", id, { output: 1 });
    expect(await call).toBe(1);
  });

  test("on a stream that the node has ended is made on the next connection", async () => {
    const first = await node.accept();
    const done = client.call("node/status");
    const peer = await first.stream();
    peer.send("call.responded", (await peer.next()).id, { output: 1 });
    await done;
    await peer.end();
    const call = client.call("node/stop");
    const next = await (await again()).stream();
    next.send("call.responded", (await next.next()).id, { output: 2 });
    expect(await call).toBe(2);
    expect(peer.waiting).toEqual(["end"]);
  });

  test("in progress ends when the client is closed", async () => {
    const call = expect(client.call("node/status")).rejects.toMatchObject({ code: "UNAVAILABLE" });
    await (await (await node.accept()).stream()).next();
    client.close();
    await call;
  });
});

describe("what is served", () => {
  const operations = { "page/title": { type: "query" as const, handler: () => "title" } };

  test("is registered again, and answers on the new connection", async () => {
    const serving = client.serve(operations);
    const first = await node.accept();
    const peer = await first.stream();
    peer.send("call.responded", (await peer.next()).id, { output: {} });
    await serving;
    await first.end();
    const next = await (await again()).stream();
    const { id, payload } = await next.next();
    expect(payload).toMatchObject({
      operationId: "services/register",
      input: { operations: [{ name: "page/title" }] },
    });
    next.send("call.responded", id, { output: {} });
    next.send("call.requested", "~1", { operationId: "page/title" });
    expect(await next.next()).toMatchObject({ id: "~1", payload: { output: "title" } });
  });

  test("that the node takes no more is told", async () => {
    const errors: unknown[] = [];
    client.addEventListener("registration", ({ error }) => errors.push(error));
    const serving = client.serve(operations);
    const first = await node.accept();
    const peer = await first.stream();
    peer.send("call.responded", (await peer.next()).id, { output: {} });
    await serving;
    await first.end();
    const next = await (await again()).stream();
    next.send("call.error", (await next.next()).id, { code: "FORBIDDEN", message: "no more" });
    await vi.advanceTimersByTimeAsync(0);
    expect(errors).toMatchObject([{ code: "FORBIDDEN" }]);
  });
});
