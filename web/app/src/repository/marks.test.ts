import { expect, test } from "vitest";
import { carried, piles } from "./marks";

const ACUTE = "\u0301";
/** The longest run of what joins what is before it. */
const longest = (text: string, joined: RegExp) =>
  Math.max(0, ...text.split(joined).map((run) => [...run].length));

test.each([
  [
    "an ordinary text",
    "Grüße, naïve e\u0301\u0323, שָׁלוֹם, ภาษาไทยน้ำ, हिन्दी, 한국어 \u1112\u1161\u11ab\n",
  ],
  ["pictures", "👩🏽‍🚀 👨‍👩‍👧‍👦 🏴\u{e0067}\u{e0062}\u{e007f} ❤️ 1️⃣\n".repeat(100)],
  ["marks on each letter", `e${ACUTE.repeat(64)}`.repeat(1_000)],
  ["code", 'fn main() {\r\n\tprintln!("\u202e");\r\n}\r\n'.repeat(100)],
  ["nothing", ""],
])("%s stays as it is", (_, text) => {
  expect(carried(text)).toBe(text);
  expect(piles(text)).toBe(false);
});

test.each([
  ["one mark", "\u0301"],
  ["two of them", "\u0301\u0316"],
  ["marks with something between that nobody sees", "\u0301\u200b\u2060\u{e0041}"],
  ["points of Hebrew", "\u05b0"],
  ["the vowel AM", "\u0e33"],
  ["tones of skin", "\u{1f3fb}"],
  ["turns of the direction", "\u202e"],
  ["selectors", "\ufe0f\u{e0100}"],
])("a run of %s is carried by several", (_, unit) => {
  const text = `e${unit.repeat(10_000)}.`;
  const safe = carried(text);
  expect(piles(text)).toBe(true);
  expect(safe.replaceAll("\u200b◌", "")).toBe(text);
  expect(longest(safe, /[e.]|\u200b◌/u)).toBe(64);
});

test("pictures that are joined without an end are carried by several", () => {
  const text = `👩${"\u200d❤\ufe0f".repeat(1_000)}`;
  const safe = carried(text);
  expect(safe.replaceAll("\u200b◌", "")).toBe(text);
  expect(longest(safe, /\u200b◌/u)).toBeLessThan(140);
});

test("of what goes on there is no more than has to be", () => {
  expect(carried(`e${ACUTE.repeat(64)}`)).toBe(`e${ACUTE.repeat(64)}`);
  expect(carried(`e${ACUTE.repeat(65)}`)).toBe(`e${ACUTE.repeat(64)}\u200b◌${ACUTE}`);
  expect(carried(ACUTE.repeat(128))).toBe(`${ACUTE.repeat(64)}\u200b◌${ACUTE.repeat(64)}`);
});

test("a large text takes no time", () => {
  const began = performance.now();
  for (const text of [ACUTE, `e${ACUTE.repeat(63)}`, "\u200d❤\ufe0f", "text ", "\u{1f3fb}"]) {
    carried(text.repeat((1024 * 1024) / text.length));
  }
  expect(performance.now() - began).toBeLessThan(10_000);
});
