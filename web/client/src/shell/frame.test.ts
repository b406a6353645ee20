import { describe, expect, test } from "vitest";
import { concat, type Bytes } from "../bytes.js";
import {
  encodeShell,
  MAX_CONTROL,
  MAX_DATA,
  ShellDecoder,
  ShellProtocolError,
  type Sender,
  type ShellFrame,
} from "./frame.js";

const bytes = (...values: number[]): Bytes => Uint8Array.from(values);

const NODE: ShellFrame[] = [
  { kind: "control", control: { type: "notice", event: "é€😀" } },
  { kind: "output", offset: 0x1_0000_0001, bytes: bytes(1, 2, 3) },
  { kind: "ack", offset: Number.MAX_SAFE_INTEGER - MAX_DATA },
  { kind: "screen", bytes: bytes(27, 99) },
  { kind: "ping", token: 0xffff_ffff_ffff_ffffn },
  { kind: "pong", token: 7n },
];

const CLIENT: ShellFrame[] = [
  { kind: "control", control: { type: "list" } },
  { kind: "input", offset: 9, bytes: bytes(0) },
  { kind: "resize", size: { columns: 80, rows: 24, width: 0, height: 65_535 } },
  { kind: "detach" },
];

function decode(sender: Sender, ...chunks: Bytes[]): ShellFrame[] {
  const decoder = new ShellDecoder(sender);
  return chunks.flatMap((chunk) => [...decoder.push(chunk)]);
}

function framed(type: number, body: Bytes, length = body.length): Bytes {
  const head = new Uint8Array(5);
  head[0] = type;
  new DataView(head.buffer).setUint32(1, length);
  return concat(head, body);
}

const json = (text: string) => framed(1, new TextEncoder().encode(text));

test("frames are written as they are specified", () => {
  const frame: ShellFrame = { kind: "input", offset: 258, bytes: bytes(65) };
  expect([...encodeShell(frame)]).toEqual([3, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 1, 2, 65]);
  expect([...encodeShell({ kind: "detach" })]).toEqual([9, 0, 0, 0, 0]);
  const size = { columns: 258, rows: 3, width: 4, height: 5 };
  expect([...encodeShell({ kind: "resize", size })]).toEqual([
    6, 0, 0, 0, 8, 1, 2, 0, 3, 0, 4, 0, 5,
  ]);
});

describe.each([
  ["node", NODE],
  ["client", CLIENT],
] as const)("a %s's frames", (sender, frames) => {
  const all = concat(...frames.map((frame) => encodeShell(frame, sender)));

  test("are the same wherever the bytes are split", () => {
    for (let at = 0; at <= all.length; at++) {
      expect(decode(sender, all.subarray(0, at), all.subarray(at))).toEqual(frames);
    }
  });

  test.each([1, 2, 3, 5, 64])("may come in pieces of %i bytes", (size) => {
    const pieces: Bytes[] = [];
    for (let at = 0; at < all.length; at += size) pieces.push(all.slice(at, at + size));
    expect(decode(sender, ...pieces)).toEqual(frames);
  });
});

test("nothing is kept of a chunk that is used for something else afterwards", () => {
  const decoder = new ShellDecoder();
  const chunk = encodeShell(NODE[1]!, "node");
  const rest = chunk.slice(10);
  [...decoder.push(chunk.subarray(0, 10))];
  chunk.fill(0);
  expect([...decoder.push(rest)]).toEqual([NODE[1]]);
});

describe("the longest frames are taken, and longer ones refused before they come", () => {
  test.each([
    ["node", 2, MAX_DATA + 8],
    ["client", 3, MAX_DATA + 8],
    ["node", 5, MAX_DATA],
  ] as const)("%s, type %i", (sender, type, most) => {
    const body = new Uint8Array(most);
    expect(decode(sender, framed(type, body))).toHaveLength(1);
    expect(() => decode(sender, framed(type, bytes(), most + 1))).toThrow(ShellProtocolError);
  });

  test.each(["client", "node"] as const)("a CONTROL of a %s", (sender) => {
    const most = MAX_CONTROL[sender];
    const longest = `{"a":"${"x".repeat(most - 8)}"}`;
    expect(decode(sender, json(longest))).toHaveLength(1);
    expect(() => decode(sender, framed(1, bytes(), most + 1))).toThrow(ShellProtocolError);
  });

  test("and not made", () => {
    const control = { x: "x".repeat(MAX_CONTROL.client) };
    expect(() => encodeShell({ kind: "control", control })).toThrow(RangeError);
  });
});

test.each([
  ["type 0", framed(0, bytes())],
  ["type 10", framed(10, bytes())],
  ["OUTPUT without a byte", framed(2, new Uint8Array(8))],
  ["a frame of the client's", framed(3, new Uint8Array(9))],
  ["DETACH of a node", framed(9, bytes())],
  ["an ACK of 7 bytes", framed(4, new Uint8Array(7))],
  ["an empty SCREEN", framed(5, bytes())],
  ["an offset that is no number here", framed(4, bytes(0, 0x20, 0, 0, 0, 0, 0, 0))],
  ["4 GiB", bytes(5, 255, 255, 255, 255)],
  ["no JSON", json("{{")],
  ["two values", json("{}{}")],
  ["an array", json("[]")],
  ["null", json("null")],
  ["a byte order mark", json("\ufeff{}")],
  ["no UTF-8", framed(1, bytes(0x22, 0xff, 0x22))],
])("%s is refused", (_, hostile) => {
  expect(() => decode("node", hostile)).toThrow(ShellProtocolError);
});

test("whatever comes is frames or a protocol error, and reserves little", () => {
  let seed = 1;
  const random = () => (seed = (seed * 48_271) % 0x7fff_ffff) / 0x7fff_ffff;
  for (let round = 0; round < 3_000; round++) {
    const length = Math.floor(random() * 40);
    const noise = Uint8Array.from({ length }, (_, at) => random() * (at % 5 === 0 ? 11 : 256));
    try {
      decode("node", noise);
    } catch (error) {
      expect(error).toBeInstanceOf(ShellProtocolError);
    }
  }
});
