import { expect, test } from "vitest";
import { ChangedNode, parseNodeId, Pin } from "./node";

const ADA = parseNodeId(`ed25519:${"0a".repeat(32)}`)!;
const BOB = parseNodeId(`ed25519:${"0b".repeat(32)}`)!;

function store(): ConstructorParameters<typeof Pin>[0] {
  const items = new Map<string, string>();
  return {
    getItem: (name) => items.get(name) ?? null,
    setItem: (name, value) => void items.set(name, value),
    removeItem: (name) => void items.delete(name),
  };
}

test.each([
  "",
  "ed25519:",
  `ed25519:${"0A".repeat(32)}`,
  `ed25519:${"0a".repeat(33)}`,
  "0a".repeat(32),
])("%j is no node id", (text) => expect(parseNodeId(text)).toBeUndefined());

test("the first node is kept, the same one again is fine, another one is not", () => {
  const pin = new Pin(store());
  expect(pin.node).toBeUndefined();
  pin.keep(ADA);
  pin.keep(ADA);
  expect(() => pin.keep(BOB)).toThrow(ChangedNode);
  expect(pin.node).toBe(ADA);
  pin.forget();
  pin.keep(BOB);
  expect(pin.node).toBe(BOB);
});
