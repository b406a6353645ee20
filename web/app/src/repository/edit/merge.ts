// How a file that both sides have changed is merged.
import diff3 from "diff3";

/**
 * Merges line by line what git here gives as text. A conflict is what both have changed in one
 * place, and what is no text in UTF-8: decoding it has lost what it was.
 */
export function merge({ contents }: { contents: string[] }): {
  cleanMerge: boolean;
  mergedText: string;
} {
  const [base = "", ours = "", theirs = ""] = contents;
  const conflict = { cleanMerge: false, mergedText: ours };
  if (contents.some((text) => /[\uFFFD\0]/.test(text))) return conflict;
  const merged: string[] = [];
  for (const { ok } of diff3(linesOf(ours), linesOf(base), linesOf(theirs))) {
    if (ok === undefined) return conflict;
    for (const line of ok) merged.push(line);
  }
  return { cleanMerge: true, mergedText: merged.join("") };
}

/** All of a text: nothing but a line feed ends a line, and it is part of it. */
function linesOf(text: string): string[] {
  return text.match(/[^\n]*\n|[^\n]+/g) ?? [];
}
