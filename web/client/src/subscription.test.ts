// Subscriptions of the client, against a node in the test's hands.
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { Client } from "./client.js";
import { FakeNode, type FakeSession, type Peer } from "./testing.js";

let node: FakeNode;
let client: Client;

beforeEach(() => {
  vi.useFakeTimers();
  node = new FakeNode();
  client = new Client(node.dial);
});

afterEach(() => {
  client.close();
  vi.useRealTimers();
});

function items(peer: Peer, id: string, from: number, to: number): void {
  for (let n = from; n < to; n++) peer.send("call.responded", id, { output: n, event: `e${n}` });
}

/** A subscription's first request, with the item that was asked for in vain. */
async function begin(
  session: FakeSession,
  options = {},
): Promise<{
  peer: Peer;
  id: string;
  subscription: ReturnType<Client["subscribe"]>;
  first: Promise<IteratorResult<unknown>>;
}> {
  const subscription = client.subscribe("audit/tail", {}, options);
  const first = subscription.next();
  first.catch(() => undefined);
  const peer = await session.stream();
  const { id } = await peer.next();
  return { peer, id, subscription, first };
}

describe.each([true, false])("over streams, multiplexed: %s", (multiplexed) => {
  test("gives the items in order, to the end", async () => {
    const session = await node.accept(multiplexed);
    const subscription = client.subscribe("audit/tail", { all: true });
    const taking = (async () => {
      const taken: unknown[] = [];
      for await (const item of subscription) taken.push(item, subscription.lastEvent);
      return taken;
    })();
    const peer = await session.stream();
    const { id, payload } = await peer.next();
    expect(payload).toEqual({ operationId: "audit/tail", input: { all: true }, window: 256 });
    items(peer, id, 0, 3);
    peer.send("call.completed", id);
    expect(await taking).toEqual([0, "e0", 1, "e1", 2, "e2"]);
    if (multiplexed) expect(await peer.ended()).toBe("end");
  });

  test("fails behind the items that came before", async () => {
    const { peer, id, subscription, first } = await begin(await node.accept(multiplexed));
    items(peer, id, 0, 2);
    peer.send("call.error", id, { code: "FORBIDDEN", message: "enough" });
    expect(await first).toEqual({ done: false, value: 0 });
    expect(await subscription.next()).toEqual({ done: false, value: 1 });
    await expect(subscription.next()).rejects.toMatchObject({ code: "FORBIDDEN" });
    expect(await subscription.next()).toEqual({ done: true, value: undefined });
  });

  test("is aborted when its loop is left", async () => {
    const session = await node.accept(multiplexed);
    const taking = (async () => {
      for await (const item of client.subscribe("audit/tail")) return item;
      return undefined;
    })();
    const peer = await session.stream();
    const { id } = await peer.next();
    items(peer, id, 0, 5);
    expect(await taking).toBe(0);
    expect(await peer.next()).toEqual({ type: "call.aborted", id, payload: {} });
    items(peer, id, 5, 9);
    peer.send("call.aborted", id);
    await vi.advanceTimersByTimeAsync(10);
    expect(client.state).toBe("open");
  });
});

describe("the window", () => {
  test("is opened as items are taken, and not before", async () => {
    const { peer, id, subscription, first } = await begin(await node.accept(), { window: 4 });
    items(peer, id, 0, 4);
    await first;
    await vi.advanceTimersByTimeAsync(10);
    expect(peer.waiting).toEqual([]);
    await subscription.next();
    expect(await peer.next()).toEqual({ type: "call.window", id, payload: { items: 2 } });
    items(peer, id, 4, 6);
    for (let n = 2; n < 6; n++) expect((await subscription.next()).value).toBe(n);
  });

  test.each([
    [3, false],
    [4, true],
  ])("of 2, one taken, has room for %i items: exceeded %s", async (sent, exceeded) => {
    const { peer, id } = await begin(await node.accept(), { window: 2 });
    items(peer, id, 0, sent);
    await vi.advanceTimersByTimeAsync(0);
    const aborted = { type: "call.aborted", id, payload: {} };
    expect(peer.waiting.some((frame) => JSON.stringify(frame) === JSON.stringify(aborted))).toBe(
      exceeded,
    );
  });

  test("holds: a node that sends more is cut off", async () => {
    const { peer, id, subscription, first } = await begin(await node.accept(), { window: 2 });
    items(peer, id, 0, 8);
    expect((await first).value).toBe(0);
    const rest = async () => {
      for await (const _ of subscription);
    };
    await expect(rest()).rejects.toMatchObject({ code: "INTERNAL" });
    await vi.advanceTimersByTimeAsync(0);
    expect(peer.waiting).toContainEqual({ type: "call.aborted", id, payload: {} });
  });

  test("has room for something", () => {
    expect(() => client.subscribe("audit/tail", {}, { window: 0 })).toThrow(RangeError);
  });
});

test("the signal ends it and drops what was not taken", async () => {
  const controller = new AbortController();
  const session = await node.accept();
  const { signal } = controller;
  const { peer, id, subscription, first } = await begin(session, { signal });
  items(peer, id, 0, 3);
  await first;
  controller.abort(new Error("enough"));
  await expect(subscription.next()).rejects.toThrow("enough");
  expect(await peer.next()).toMatchObject({ type: "call.aborted", id });
});

test("a signal that was aborted before asks nothing", async () => {
  const signal = AbortSignal.abort(new Error("before"));
  await node.accept();
  await expect(client.subscribe("audit/tail", {}, { signal }).next()).rejects.toThrow("before");
});

test("shares a stream beyond those that have one of their own", async () => {
  const session = await node.accept();
  for (let n = 0; n < 34; n++)
    client
      .subscribe("audit/tail", n)
      .next()
      .catch(() => undefined);
  const peers = await Promise.all(Array.from({ length: 33 }, () => session.stream()));
  const inputs = await Promise.all(peers.map(async (peer) => (await peer.next()).payload["input"]));
  expect(inputs.sort()).toEqual(Array.from({ length: 33 }, (_, n) => n).sort());
  expect((await peers[32]!.next()).payload["input"]).toBe(33);
});

test("asks for nothing until somebody wants an item", async () => {
  const session = await node.accept();
  client.subscribe("audit/tail");
  const { peer } = await begin(session);
  expect(peer.waiting).toEqual([]);
});

test("ends at its deadline", async () => {
  const { peer, id, first } = await begin(await node.accept(), { timeoutMs: 1_000 });
  const failed = expect(first).rejects.toMatchObject({ code: "TIMEOUT" });
  await vi.advanceTimersByTimeAsync(1_000);
  await failed;
  expect(await peer.next()).toMatchObject({ type: "call.aborted", id });
});

describe("after a loss of the connection", () => {
  /** The connection after the first. */
  async function again(): Promise<FakeSession> {
    return await node.acceptLater((ms) => vi.advanceTimersByTimeAsync(ms));
  }

  test("it goes on behind the last item that came, with the room that is left", async () => {
    const session = await node.accept();
    const { peer, id, subscription, first } = await begin(session, { window: 8 });
    items(peer, id, 0, 3);
    await first;
    await vi.advanceTimersByTimeAsync(0);
    await session.end();
    const { peer: next, payload } = await resumed(await again());
    expect(payload).toEqual({ operationId: "audit/tail", input: {}, window: 6, after: "e2" });
    items(next, "1", 3, 5);
    next.send("call.completed", "1");
    const rest: unknown[] = [];
    for await (const item of subscription) rest.push(item);
    expect(rest).toEqual([1, 2, 3, 4]);
  });

  test("it goes on if the node has ended it to shut down", async () => {
    const session = await node.accept();
    const { peer, id, subscription, first } = await begin(session);
    items(peer, id, 0, 1);
    await first;
    const leaving = { code: "UNAVAILABLE", message: "shutting down", retryable: true };
    peer.send("call.error", id, leaving);
    await vi.advanceTimersByTimeAsync(9_000);
    await session.end(2);
    const { peer: next, payload } = await resumed(await again());
    expect(payload["after"]).toBe("e0");
    items(next, "1", 1, 2);
    expect((await subscription.next()).value).toBe(1);
  });

  test.each([
    ["that is there to stay", { code: "UNAVAILABLE", retryable: true }, 10_000],
    ["that will not have it", { code: "UNAVAILABLE", retryable: false }, 0],
    ["with an error", { code: "INTERNAL", retryable: true }, 0],
    [
      "for which it was too slow",
      { code: "UNAVAILABLE", retryable: true, details: { reason: "slow-consumer" } },
      0,
    ],
  ])("it fails if it was ended by a node %s", async (_, error, ms) => {
    const { peer, id, subscription, first } = await begin(await node.accept());
    items(peer, id, 0, 1);
    await first;
    peer.send("call.error", id, { message: "no", ...error });
    const failed = expect(subscription.next()).rejects.toMatchObject(error);
    await vi.advanceTimersByTimeAsync(ms);
    await failed;
  });

  test("it goes on where it was to begin, if nothing has come yet", async () => {
    const session = await node.accept();
    await begin(session, { after: "e7" });
    await session.end();
    const { payload } = await resumed(await again());
    expect(payload["after"]).toBe("e7");
  });

  test("it fails if its items carry no events, behind those that came", async () => {
    const session = await node.accept();
    const { peer, id, subscription, first } = await begin(session);
    peer.send("call.responded", id, { output: 1 });
    peer.send("call.responded", id, { output: 2 });
    await first;
    await vi.advanceTimersByTimeAsync(0);
    await session.end();
    expect((await subscription.next()).value).toBe(2);
    await expect(subscription.next()).rejects.toMatchObject({
      code: "UNAVAILABLE",
      retryable: false,
    });
  });

  test("it fails if it may have begun and nothing has come", async () => {
    const session = await node.accept();
    const { first } = await begin(session);
    await session.end();
    await expect(first).rejects.toMatchObject({ code: "UNAVAILABLE" });
  });

  async function resumed(session: FakeSession) {
    const peer = await session.stream();
    return { peer, ...(await peer.next()) };
  }
});
