// HTML of strangers, made a document that nobody sees before it is one that somebody does.

/** The most elements of a text, how deep they lie, and the most attributes of one of them. */
const MAX_ELEMENTS = 20_000;
const MAX_DEPTH = 100;
const MAX_ATTRIBUTES = 100;
/** At most one tag at once, and so many of them between two looks. */
const PIECES = /<[^<]{0,4096}|[^<]{1,4096}/g;
const LOOK = 64;
/** How long nobody else comes to their turn, and how often. */
const TURN_MS = 20;
const MAX_TURNS = 50;

/**
 * Throws if more becomes of a text in HTML than a page can bear. A parser makes each `<b>` and
 * the like that is open again in each paragraph, which takes it a time that grows with the
 * square of how many there are, and makes any number of elements of a short text. Each of them
 * was within the others when it was opened, so that a bound of the depth is one of that, too.
 * The parser gets the text bit by bit, for a document that runs and fetches nothing. What is in
 * a `<template>` is not seen.
 */
export async function rehearse(html: string): Promise<void> {
  const inert = document.implementation.createHTMLDocument();
  const elements = inert.getElementsByTagName("*");
  inert.open();
  let [written, opened, turns, until] = [0, 0, 0, performance.now() + TURN_MS];
  for (const [piece] of html.matchAll(PIECES)) {
    inert.write(piece);
    if (++written % LOOK === 0) few(elements);
    if (/^<[a-z]/i.test(piece) && ++opened % LOOK === 0) flat(inert.documentElement);
    if (performance.now() < until) continue;
    if (++turns > MAX_TURNS) throw new Error("it takes too long");
    await new Promise((resolve) => setTimeout(resolve));
    until = performance.now() + TURN_MS;
  }
  inert.close();
  few(elements);
  flat(inert.documentElement);
  for (const { attributes } of elements) {
    if (attributes.length > MAX_ATTRIBUTES) throw new Error("a tag of it has too many attributes");
  }
}

function few({ length }: { length: number }): void {
  if (length > MAX_ELEMENTS) throw new Error("it is too much to be shown as a page");
}

/** Goes through all elements, in a time that grows with their number alone. */
function flat(root: Element): void {
  let depth = 0;
  for (let at: Element | null = root; at !== null;) {
    if (depth > MAX_DEPTH) throw new Error("it is nested too deeply");
    if (at.firstElementChild !== null) {
      at = at.firstElementChild;
      depth++;
      continue;
    }
    while (at !== null && at.nextElementSibling === null) {
      at = at.parentElement;
      depth--;
    }
    at = at?.nextElementSibling ?? null;
  }
}
