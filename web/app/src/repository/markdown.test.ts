import { expect, test } from "vitest";
import { languageNamed, languageOf } from "./highlight";
import { resolve, slug } from "./markdown";
import { pictureType } from "./picture";

test("a path in a text leads to a file of the repository, or nowhere", () => {
  expect(resolve("docs", "guide.md")).toBe("docs/guide.md");
  expect(resolve("docs", "../README.md")).toBe("README.md");
  expect(resolve("docs/a", "./b/../c.md")).toBe("docs/a/c.md");
  expect(resolve("docs", "/src/lib.rs")).toBe("src/lib.rs");
  expect(resolve("docs", "../../etc/passwd")).toBeUndefined();
});

test("headings are linked to as elsewhere", () => {
  expect(slug(" How it's made: 2 ways ")).toBe("how-its-made-2-ways");
});

test("languages by names of files and of blocks", () => {
  expect(languageOf("src/main.rs")).toBe("rust");
  expect(languageOf("Dockerfile")).toBe("dockerfile");
  expect(languageOf("a/Makefile")).toBe("makefile");
  expect(languageOf("LICENSE")).toBeUndefined();
  expect(languageNamed("TS")).toBe("typescript");
  expect(languageNamed("constructor")).toBeUndefined();
});

test("pictures by their endings alone", () => {
  expect(pictureType("logo.SVG")).toBe("image/svg+xml");
  expect(pictureType("x.html")).toBeUndefined();
  expect(pictureType("x.constructor")).toBeUndefined();
});
