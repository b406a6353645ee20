import { expect, test } from "vitest";
import { fromHex } from "./bytes";
import { opensshLine } from "./key";

test("a public key is written as ssh-keygen writes it", () => {
  const raw = fromHex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
  expect(opensshLine(raw)).toBe(
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea",
  );
});
