import { expect, test } from "vitest";
import { merge } from "./merge";

const merged = (base: string, ours: string, theirs: string) => {
  const { cleanMerge, mergedText } = merge({ contents: [base, ours, theirs] });
  return cleanMerge ? mergedText : undefined;
};

test.each([
  ["changes of one side", "a\nb\nc\n", "a\nb\nc\n", "a\nb\nx\n", "a\nb\nx\n"],
  ["of both", "a\nb\nc\n", "x\nb\nc\n", "a\nb\ny\n", "x\nb\ny\n"],
  ["the same of both", "a\nb\n", "a\nx\n", "a\nx\n", "a\nx\n"],
  ["lines that come and go", "a\nb\nc\nd\n", "b\nc\nd\n", "a\nb\nc\n1\nd\n", "b\nc\n1\nd\n"],
  ["an end without a line feed", "a\nb\nc", "x\nb\nc", "a\nb\ny", "x\nb\ny"],
  ["an end that gets one", "a\nb\nc", "x\nb\nc", "a\nb\nc\n", "x\nb\nc\n"],
  ["empty lines", "\na\n\n\nb\n", "\nx\n\n\nb\n", "\na\n\n\nb\n\n", "\nx\n\n\nb\n\n"],
  [
    "other line ends",
    "a\r\nb\r\nc\rd\n",
    "x\r\nb\r\nc\rd\n",
    "a\r\nb\r\nc\ry\n",
    "x\r\nb\r\nc\ry\n",
  ],
  [
    "separators",
    "a\u2028\nb\n\u2029c\n",
    "x\u2028\nb\n\u2029c\n",
    "a\u2028\nb\n\u2029y\n",
    "x\u2028\nb\n\u2029y\n",
  ],
  ["all that goes", "a\n", "", "", ""],
])("%s are merged", (_, base, ours, theirs, expected) => {
  expect(merged(base, ours, theirs)).toBe(expected);
});

test.each([
  ["one line that both have changed", "a\n", "b\n", "c\n"],
  ["files that both have made", "", "b\n", "c\n"],
  ["what one has removed", "a\n", "", "b\n"],
  ["what was no UTF-8 before", "\uFFFD\na\nb\nc\n", "x\na\nb\nc\n", "\uFFFD\na\nb\ny\n"],
  ["what is none here", "a\nb\nc\n", "\uFFFD\nb\nc\n", "a\nb\ny\n"],
  ["what is none there", "a\nb\nc\n", "x\nb\nc\n", "a\nb\n\uFFFD\n"],
  ["what is no text", "a\nb\nc\0\n", "x\nb\nc\0\n", "a\nb\ny\n"],
])("%s is a conflict", (_, base, ours, theirs) => {
  expect(merged(base, ours, theirs)).toBeUndefined();
});
