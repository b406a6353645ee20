import { afterEach, expect, test, vi } from "vitest";
import { rehearse } from "./rehearsal";

/** Elements each of which is in the one before. */
function nested(depth: number): object | null {
  if (depth === 0) return null;
  const inner = nested(depth - 1);
  const made = { firstElementChild: inner, nextElementSibling: null, parentElement: null };
  if (inner !== null) Object.assign(inner, { parentElement: made });
  return made;
}

/** A parser that makes as many elements of a piece as it is told to. */
function parser(elementsOf: (piece: string) => number, attributes = 1, depth = 3) {
  const pieces: string[] = [];
  const elements: { attributes: { length: number } }[] = [];
  const inert = {
    getElementsByTagName: () => elements,
    documentElement: nested(depth),
    open: () => undefined,
    close: () => undefined,
    write: (piece: string) => {
      pieces.push(piece);
      for (let i = elementsOf(piece); i > 0; i--)
        elements.push({ attributes: { length: attributes } });
    },
  };
  vi.stubGlobal("document", { implementation: { createHTMLDocument: () => inert } });
  return pieces;
}

afterEach(() => {
  vi.unstubAllGlobals();
});

const LONG = `<p>${"text ".repeat(2_000)}</p>\n<img alt="${"<".repeat(9)}"><`;

test("a text comes as a whole, at most one tag at once", async () => {
  const pieces = parser(() => 1);
  await rehearse(LONG);
  expect(pieces.join("")).toBe(LONG);
  expect(pieces.filter((piece) => piece.lastIndexOf("<") > 0 || piece.length > 4097)).toEqual([]);
});

test("of a text that becomes too much the rest is not even looked at", async () => {
  const pieces = parser(() => 500);
  await expect(rehearse("<p>x".repeat(100_000))).rejects.toThrow("too much");
  expect(pieces.length).toBeLessThan(100);
  parser(() => 1);
  await rehearse("<p>x".repeat(20_000));
  await expect(rehearse("<p>x".repeat(20_001))).rejects.toThrow("too much");
});

test("nobody waits for what is open again and again", async () => {
  parser(() => 1, 1, 101);
  await rehearse("<b>".repeat(1_000));
  const pieces = parser(() => 1, 1, 102);
  await expect(rehearse("<b>".repeat(1_000))).rejects.toThrow("too deeply");
  expect(pieces.length).toBeLessThan(100);
});

test("a tag has not any number of attributes", async () => {
  parser(() => 1, 100);
  await rehearse(LONG);
  parser(() => 1, 101);
  await expect(rehearse(LONG)).rejects.toThrow("too many attributes");
});

test("a text that takes too long is given up, and others come to their turn", async () => {
  let now = 0;
  vi.stubGlobal("performance", { now: () => now });
  parser(() => {
    now += 5;
    return 0;
  });
  let turns = 0;
  const others = setInterval(() => turns++);
  await rehearse("<b>".repeat(190));
  await expect(rehearse("<b>".repeat(1_000))).rejects.toThrow("too long");
  clearInterval(others);
  expect(turns).toBeGreaterThan(1);
});
