import { describe, expect, test } from "vitest";
import { concat, type Bytes } from "../bytes.js";
import { Decoder, encode, FrameError, MAX_FRAME, TooLongError, type Frame } from "./frame.js";

const FRAMES: Frame[] = [
  { type: "call.requested", id: "1", payload: { operationId: "math/add", input: [1, 2] } },
  { type: "call.responded", id: "~é€😀", payload: { output: 'é€😀\u0000\\"' } },
  { type: "call.completed", id: "2", payload: {} },
];

/** A frame around bytes, whatever they are. */
function framed(body: Bytes): Bytes {
  const head = new Uint8Array(4);
  new DataView(head.buffer).setUint32(0, body.length);
  return concat(head, body);
}

function text(body: string): Bytes {
  return framed(new Uint8Array(new TextEncoder().encode(body)));
}

function decode(...chunks: Bytes[]): Frame[] {
  const decoder = new Decoder();
  return chunks.flatMap((chunk) => [...decoder.push(chunk)]);
}

describe("decoding", () => {
  const bytes = concat(...FRAMES.map(encode));

  test("gives the same frames wherever the bytes are split", () => {
    for (let at = 0; at <= bytes.length; at++) {
      expect(decode(bytes.subarray(0, at), bytes.subarray(at))).toEqual(FRAMES);
    }
  });

  test.each([1, 2, 3, 5, 64])("takes pieces of %i bytes", (size) => {
    const pieces: Bytes[] = [];
    for (let at = 0; at < bytes.length; at += size) pieces.push(bytes.subarray(at, at + size));
    expect(decode(...pieces)).toEqual(FRAMES);
  });

  test("knows whether a frame has begun", () => {
    const decoder = new Decoder();
    expect(decoder.partial).toBe(false);
    for (let at = 1; at < bytes.length; at++) {
      const prefix = new Decoder();
      [...prefix.push(bytes.subarray(0, at))];
      const whole = FRAMES.map((_, n) => concat(...FRAMES.slice(0, n + 1).map(encode)).length);
      expect(prefix.partial).toBe(!whole.includes(at));
    }
  });

  test("keeps nothing of a chunk that is used for something else afterwards", () => {
    const decoder = new Decoder();
    const chunk = encode(FRAMES[0]!).slice();
    [...decoder.push(chunk.subarray(0, 10))];
    const rest = chunk.slice(10);
    chunk.fill(0);
    expect([...decoder.push(rest)]).toEqual([FRAMES[0]]);
  });

  test("takes the longest frame, and refuses a longer one before it comes", () => {
    const payload = (length: number) => ({ output: "x".repeat(length) });
    const overhead = encode({ ...FRAMES[1]!, payload: payload(0) }).length - 4;
    const longest = { ...FRAMES[1]!, payload: payload(MAX_FRAME - overhead) };
    const bytes = encode(longest);
    expect(bytes.length).toBe(4 + MAX_FRAME);
    expect(decode(bytes.subarray(0, 99_999), bytes.subarray(99_999))).toEqual([longest]);
    const head = new Uint8Array(4);
    new DataView(head.buffer).setUint32(0, MAX_FRAME + 1);
    expect(() => decode(head)).toThrow(FrameError);
    expect(() => decode(Uint8Array.of(255, 255, 255, 255))).toThrow(FrameError);
  });

  test("gives the frames before a bad one", () => {
    const frames: Frame[] = [];
    const all = concat(encode(FRAMES[0]!), text("{"));
    expect(() => {
      for (const frame of new Decoder().push(all)) frames.push(frame);
    }).toThrow(FrameError);
    expect(frames).toEqual([FRAMES[0]]);
  });

  test.each([
    ["nothing", ""],
    ["no JSON", "{"],
    ["two values", "{}{}"],
    ["an array", "[]"],
    ["null", "null"],
    ["a string", '"call.requested"'],
    ["no type", '{"id":"1","payload":{}}'],
    ["a type that is no string", '{"type":1,"id":"1"}'],
    ["no id", '{"type":"call.requested","payload":{}}'],
    ["an id that is no string", '{"type":"call.requested","id":1,"payload":{}}'],
    ["a byte order mark", '\ufeff{"type":"call.completed","id":"1"}'],
  ])("refuses %s", (_, body) => {
    expect(() => decode(text(body))).toThrow(FrameError);
  });

  test("refuses what is not UTF-8", () => {
    const bytes = encode({ type: "call.completed", id: "1", payload: { x: "?" } });
    bytes[bytes.indexOf(0x3f)] = 0xff;
    expect(() => decode(bytes)).toThrow(FrameError);
  });

  test("ignores types and members that it does not know", () => {
    const unknown = text('{"type":"call.paused","payload":7}');
    const more = text('{"type":"call.completed","id":"1","trace":[],"payload":{"more":1}}');
    const frame = { type: "call.completed", id: "1", payload: { more: 1 } };
    expect(decode(unknown, more)).toEqual([frame]);
  });
});

test("a frame that would be too long is not made", () => {
  const payload = { output: "x".repeat(MAX_FRAME) };
  expect(() => encode({ type: "call.responded", id: "1", payload })).toThrow(TooLongError);
});
