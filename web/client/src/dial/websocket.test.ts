import { beforeEach, describe, expect, test, vi } from "vitest";
import type { Bytes } from "../bytes.js";
import { streams, type Socket } from "./websocket.js";

/** What `streams` uses of a WebSocket, with the network's side in the test's hands. */
class FakeSocket {
  readonly OPEN = 1;
  binaryType = "blob";
  readyState = 1;
  bufferedAmount = 0;
  sent: Bytes[] = [];
  closed = false;
  onmessage: (event: { data: ArrayBuffer | string }) => void = () => undefined;
  onclose: (event: { code: number }) => void = () => undefined;

  send(data: Bytes): void {
    this.sent.push(data.slice());
  }

  close(): void {
    this.closed = true;
    this.readyState = 2;
  }

  receive(...bytes: number[]): void {
    this.onmessage({ data: Uint8Array.from(bytes).buffer });
  }
}

let socket: FakeSocket;
let pair: ReturnType<typeof streams>;

beforeEach(() => {
  socket = new FakeSocket();
  pair = streams(socket as unknown as Socket);
});

describe("reading", () => {
  test("gives messages as bytes until the empty one", async () => {
    const reader = pair.readable.getReader();
    socket.receive(1, 2);
    socket.receive(3);
    socket.receive();
    socket.receive(4);
    expect((await reader.read()).value).toEqual(Uint8Array.of(1, 2));
    expect((await reader.read()).value).toEqual(Uint8Array.of(3));
    expect((await reader.read()).done).toBe(true);
  });

  test("ends well with a normal close, and fails with another", async () => {
    socket.onclose({ code: 1000 });
    expect((await pair.readable.getReader().read()).done).toBe(true);

    const other = new FakeSocket();
    const { readable } = streams(other as unknown as Socket);
    other.onclose({ code: 1006 });
    await expect(readable.getReader().read()).rejects.toThrow("1006");
  });

  test("refuses text", async () => {
    socket.onmessage({ data: "hello" });
    expect(socket.closed).toBe(true);
    await expect(pair.readable.getReader().read()).rejects.toThrow("text");
  });

  test("cuts off a peer that sends more than is read", async () => {
    const megabyte = new Uint8Array(1024 * 1024).buffer;
    for (let i = 0; i < 16; i++) socket.onmessage({ data: megabyte });
    expect(socket.closed).toBe(false);
    socket.receive(1);
    expect(socket.closed).toBe(true);
  });
});

describe("writing", () => {
  test("cuts into messages of 64 KiB and never sends an empty one", async () => {
    const writer = pair.writable.getWriter();
    await writer.write(new Uint8Array());
    await writer.write(new Uint8Array(150_000));
    expect(socket.sent.map((message) => message.length)).toEqual([65536, 65536, 18928]);
  });

  test("ends its direction with an empty message and leaves the socket open", async () => {
    await pair.writable.getWriter().close();
    expect(socket.sent).toEqual([new Uint8Array()]);
    expect(socket.closed).toBe(false);
  });

  test("waits while the browser holds more than 1 MiB", async () => {
    vi.useFakeTimers();
    try {
      socket.bufferedAmount = 1024 * 1024 + 1;
      let written = false;
      const writing = pair.writable
        .getWriter()
        .write(Uint8Array.of(1))
        .then(() => (written = true));
      await vi.advanceTimersByTimeAsync(1000);
      expect(written).toBe(false);
      socket.bufferedAmount = 0;
      await vi.advanceTimersByTimeAsync(10);
      await writing;
    } finally {
      vi.useRealTimers();
    }
  });

  test("fails on a closed socket", async () => {
    socket.readyState = 3;
    await expect(pair.writable.getWriter().write(Uint8Array.of(1))).rejects.toThrow("closed");
  });
});
