import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { transformWithOxc } from "vite";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { generate, parse, type Described } from "./generate.js";
import { main } from "./main.js";

const ADD: Described = {
  name: "math/add",
  type: "query",
  description: "Adds.",
  input: {
    type: "object",
    properties: { a: { type: "integer" }, b: { $ref: "#/$defs/Value" } },
    required: ["a"],
    $defs: { Value: { type: "integer" } },
  },
  output: { type: "integer" },
  errors: [{ code: "OVERFLOW" }],
};

/** The code for one schema, in one line. */
async function codeOf(input: unknown): Promise<string> {
  const code = await generate([{ name: "a/b", type: "query", input }]);
  return code.replaceAll(/\s+/g, " ").replace(/^.*namespace Input \{ (.*?) \} export .*$/, "$1");
}

describe("types", () => {
  test("tell kind, input, output and errors of each operation", async () => {
    const code = await generate([ADD]);
    expect(code).toMatchInlineSnapshot(`
      "// Made by alknet-types from a node's schemas: not to be edited.
      /* eslint-disable */

      /** The node's operations, for \`connect<Operations>(…)\`. */
      export interface Operations {
        /** Adds. */
        "math/add": {
          type: "query";
          input: MathAdd.Input.Value;
          output: MathAdd.Output.Value;
          errors: "OVERFLOW";
        };
      }

      export namespace MathAdd {
        export namespace Input {
          export type Value1 = number;

          export interface Value {
            a: number;
            b?: Value1;
            [k: string]: unknown;
          }
        }

        export namespace Output {
          export type Value = number;
        }
      }
      "
    `);
  });

  test("of two names that would be one identifier are kept apart", async () => {
    const names = ["a-b/c", "a/b-c", "a/b_c"];
    const code = await generate(names.map((name) => ({ name, type: "query" })));
    expect(code.match(/^export namespace \w+/gm)).toEqual([
      "export namespace ABC",
      "export namespace ABC_2",
      "export namespace ABC_3",
    ]);
  });

  test.each([
    [true, "export type Value = unknown;"],
    [{}, "export type Value = unknown;"],
    [{ type: ["string", "null"] }, "export type Value = string | null;"],
    [{ enum: ["a", 1] }, 'export type Value = "a" | 1;'],
    [{ const: { $ref: "x" } }, 'export type Value = {$ref: "x"};'],
    [
      { type: "array", prefixItems: [{ type: "string" }], minItems: 1, items: false },
      expect.stringContaining("export type Value = [string];"),
    ],
    [
      { $ref: "#/$defs/A", $defs: { A: { type: "string" } } },
      expect.stringContaining("export type Value = string;"),
    ],
  ])("of the schema %j", async (schema, code) => {
    expect(await codeOf(schema)).toEqual(code);
  });
});

describe("a schema that would do harm", () => {
  test.each(["file:///etc/passwd", "http://localhost/", "other.json", 7])(
    "by a reference to %s is refused",
    async ($ref) => {
      await expect(codeOf({ type: "object", properties: { a: { $ref } } })).rejects.toThrow(
        "refers to",
      );
    },
  );

  test("brings no code of its own", async () => {
    const evil = "*/ evil(); /*";
    const schema = {
      type: "object",
      title: evil,
      description: evil,
      tsType: "evil",
      properties: {
        a: { type: "string", description: evil, tsType: "evil" },
        [`"; ${evil}`]: { enum: [`"; ${evil}`], tsEnumNames: [evil] },
      },
      $defs: { [evil]: { title: evil, tsType: evil } },
    };
    const description = evil;
    const code = await generate([
      { name: "a/b", type: "query", description, input: schema, errors: [{ code: evil }] },
    ]);
    expect(code).toContain("evil");
    expect(code).toMatch(/a\?: string;/);
    // Without its types and comments, nothing is left.
    const plain = await transformWithOxc(code, "a.ts");
    expect(plain.code.replaceAll(/\/\*.*?\*\//gs, "").trim()).toBe("export {};");
  });

  test("keeps properties that are called like keywords of the generator", async () => {
    const properties = { tsType: { type: "string" }, $ref: { type: "number" } };
    const code = await codeOf({ type: "object", properties });
    expect(code).toContain("tsType?: string;");
    expect(code).toContain("$ref?: number;");
  });

  test("by its depth is refused", async () => {
    let schema: object = { type: "string" };
    for (let n = 0; n < 1_000; n++) schema = { type: "array", items: schema };
    await expect(codeOf(schema)).rejects.toThrow("too deep");
  });
});

test.each([
  [{}],
  [[null]],
  [[{ type: "query" }]],
  [[{ name: 'a/b"; evil', type: "query" }]],
  [[{ name: "a/b", type: "other" }]],
  [[{ name: "a/b", type: "query", errors: [7] }]],
])("%j is no list of operations", (document) => {
  expect(() => parse(document)).toThrow(TypeError);
});

describe("the program", () => {
  let folder: string;
  let printed: string;
  let complaints: string;

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "alknet-types-"));
    [printed, complaints] = ["", ""];
    vi.spyOn(process.stdout, "write").mockImplementation((text) => ((printed += text), true));
    vi.spyOn(process.stderr, "write").mockImplementation((text) => ((complaints += text), true));
  });

  afterEach(() => {
    vi.restoreAllMocks();
    rmSync(folder, { recursive: true });
  });

  test("reads a file, and prints or writes", async () => {
    const [input, output] = [join(folder, "in.json"), join(folder, "out.ts")];
    writeFileSync(input, JSON.stringify([ADD]));
    expect(await main([input])).toBe(0);
    expect(printed).toContain("export interface Operations {");
    expect(await main([input, "-o", output])).toBe(0);
    expect(readFileSync(output, "utf8")).toBe(printed);
  });

  test("helps", async () => {
    expect(await main(["--help"])).toBe(0);
    expect(printed).toContain("Example:");
  });

  test.each([
    [[]],
    [["a", "b"]],
    [["--no-such"]],
    [["--node", "https://localhost"]],
    [["a", "--node", "https://localhost", "--token-file", "b"]],
  ])("with %j says what is wrong", async (args) => {
    expect(await main(args)).toBe(2);
    expect(complaints).toMatch(/^error: .*\nhint: /);
  });

  test("fails without the file", async () => {
    expect(await main([join(folder, "none")])).toBe(1);
    expect(complaints).toMatch(/^error: ENOENT/);
  });
});
