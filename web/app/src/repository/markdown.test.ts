import { expect, test } from "vitest";
import { languageNamed, languageOf } from "./highlight";
import { colouring } from "./languages";
import { Album, resolve, slug } from "./markdown";
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

test("every language that a name stands for is there", async () => {
  for (const name of ["rs", "sh", "yml", "h", "tsx", "toml", "md", "gemfile"]) {
    const colour = await colouring(languageNamed(name)!);
    expect(colour!("a < b")).toContain("&lt;");
  }
  expect(await colouring("constructor")).toBeUndefined();
});

test("a text has not any number of pictures", async () => {
  let [fetched, atOnce, most] = [0, 0, 0];
  const album = new Album(async (path) => {
    fetched++;
    most = Math.max(most, ++atOnce);
    await Promise.resolve();
    atOnce--;
    if (path === "3") throw new Error("gone");
    return { address: `data:${path}`, cost: 0 };
  });
  const all = Array.from({ length: 1000 }, (_, at) => album.picture(String(at % 100)));
  const shown = (await Promise.allSettled(all)).map((it) =>
    it.status === "fulfilled" ? it.value?.address : "failed",
  );
  expect(fetched).toBe(50);
  expect(most).toBe(1);
  expect(shown.slice(0, 5)).toEqual(["data:0", "data:1", "data:2", "failed", "data:4"]);
  expect(shown.filter((address) => address?.startsWith("data:"))).toHaveLength(98);

  const large = new Album(async () => ({ address: "x".repeat(20 * 1024 * 1024), cost: 0 }));
  const some = await Promise.all(["a", "b", "c", "a"].map((path) => large.picture(path)));
  expect(some.map((found) => found !== undefined)).toEqual([true, true, false, true]);
});

test("of a text not any number of drawings is drawn unasked", async () => {
  const costs: Record<string, number> = { bomb: Infinity, heavy: 2_400, badge: 6, photo: 0 };
  const album = new Album(async (path) => ({ address: path, cost: costs[path]! }));
  const slow = async (path: string) => (await album.picture(path))!.slow;
  expect(await slow("bomb")).toBe(true);
  for (let i = 0; i < 3; i++) expect(await slow("heavy")).toBe(false);
  for (let i = 0; i < 50; i++) expect(await slow("badge")).toBe(false);
  expect(await slow("badge")).toBe(true);
  expect(await slow("heavy")).toBe(true);
  expect(await slow("photo")).toBe(false);
});
