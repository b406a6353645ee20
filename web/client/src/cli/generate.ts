import { compile, type JSONSchema } from "json-schema-to-typescript";
import { isObject } from "../call/frame.js";
import { prepare } from "./schema.js";

/** What `services/schema` says of an operation, as far as types are made of it. */
export interface Described {
  name: string;
  type: "query" | "mutation" | "subscription";
  description?: string;
  input?: unknown;
  output?: unknown;
  errors?: { code: string }[];
}

const TYPES: readonly unknown[] = ["query", "mutation", "subscription"];

/** Keywords that say something of a value's type. */
const SHAPES = [
  "type",
  "properties",
  "items",
  "enum",
  "const",
  "$ref",
  "allOf",
  "anyOf",
  "oneOf",
  "patternProperties",
  "additionalProperties",
];

const BANNER = `// Made by alknet-types from a node's schemas: not to be edited.
/* eslint-disable */
`;

/** Checks that a JSON document is a list of what `services/schema` gives. */
export function parse(document: unknown): Described[] {
  if (!Array.isArray(document)) throw new TypeError("not a list of operations");
  for (const operation of document) {
    const { name, type, errors = [] } = isObject(operation) ? operation : {};
    // The name becomes code.
    if (typeof name !== "string" || !/^[a-z0-9_-]+\/[a-z0-9_-]+$/.test(name)) {
      throw new TypeError(`not an operation's name: ${JSON.stringify(name)}`);
    }
    if (!TYPES.includes(type)) throw new TypeError(`${name} is no kind of operation`);
    if (!Array.isArray(errors) || !errors.every((error) => typeof error?.code === "string")) {
      throw new TypeError(`${name} has errors without codes`);
    }
  }
  return document as Described[];
}

/** TypeScript with an `Operations` interface for `connect` and `Client`. */
export async function generate(operations: readonly Described[]): Promise<string> {
  const sorted = [...operations].sort((a, b) => (a.name < b.name ? -1 : 1));
  const namespaces: string[] = [];
  const members: string[] = [];
  const taken = new Set<string>();
  for (const { name, type, description, input, output, errors = [] } of sorted) {
    const scope = identifier(name, taken);
    const [inputs, outputs] = [await types(input, "Input"), await types(output, "Output")];
    namespaces.push(`export namespace ${scope} {\n${indent(`${inputs}\n${outputs}`)}}\n`);
    const codes = errors.map(({ code }) => JSON.stringify(code)).join(" | ") || "never";
    members.push(
      `${comment(description)}  ${JSON.stringify(name)}: {\n` +
        `    type: "${type}";\n    input: ${scope}.Input.Value;\n` +
        `    output: ${scope}.Output.Value;\n    errors: ${codes};\n  };\n`,
    );
  }
  const table = `/** The node's operations, for \`connect<Operations>(…)\`. */\nexport interface Operations {\n${members.join("")}}\n`;
  return [BANNER, table, ...namespaces].join("\n");
}

/** A namespace with the type `Value` of a schema, and whatever that is made of. */
async function types(schema: unknown, scope: string): Promise<string> {
  const prepared = isObject(schema) ? prepare(schema) : {};
  const named = { ...(prepared as JSONSchema), title: "Value" };
  const code = SHAPES.some((keyword) => keyword in named)
    ? await compile(named, "Value", {
        bannerComment: "",
        additionalProperties: true,
        // A node's schema has no business with this machine's files or its network.
        $refOptions: { resolve: { external: false, file: false, http: false } },
        unknownAny: true,
      })
    : "export type Value = unknown;\n";
  return `export namespace ${scope} {\n${indent(code)}}\n`;
}

/** An operation's name as an identifier that is not among those taken, to which it is added. */
function identifier(name: string, taken: Set<string>): string {
  const words = name
    .split(/[^a-z0-9]+/)
    .map((word) => word.charAt(0).toUpperCase() + word.slice(1));
  const base = words.join("").replace(/^(?=\d|$)/, "_");
  let free = base;
  for (let n = 2; taken.has(free); n++) free = `${base}_${n}`;
  taken.add(free);
  return free;
}

function comment(text: string | undefined): string {
  if (text === undefined || text === "") return "";
  const lines = text.replaceAll("*/", "* /").split(/\r?\n/);
  if (lines.length === 1) return `  /** ${lines[0]} */\n`;
  return `  /**\n${lines.map((line) => `   * ${line}\n`).join("")}   */\n`;
}

function indent(code: string): string {
  return code.replace(/^(?=.)/gm, "  ");
}
