// JSON Schemas of a stranger, made fit for a generator of code.
import { isObject } from "../call/frame.js";

/** Keywords whose members are names, each with a schema. */
const MAPS = new Set([
  "properties",
  "patternProperties",
  "$defs",
  "definitions",
  "dependentSchemas",
]);

/** Keywords that hold values, not schemas. */
const VALUES = new Set(["const", "enum", "default", "examples", "required", "dependentRequired"]);

/** Keywords of the generator itself: they are written into the code as they are. */
const INJECTED = new Set(["tsType", "tsEnumNames"]);

/** How deep schemas may be nested. */
const MAX_DEPTH = 100;

/**
 * A schema of draft 2020-12 as the generator knows it: tuples in the older spelling, nothing
 * that the generator takes for code, no reference to somewhere else.
 */
export function prepare(schema: unknown, depth = 0): unknown {
  if (depth > MAX_DEPTH) throw new TypeError("a schema that is nested too deep");
  if (Array.isArray(schema)) return schema.map((part) => prepare(part, depth + 1));
  if (!isObject(schema)) return schema;
  const { prefixItems, items, ...rest } = schema;
  const all: Record<string, unknown> =
    prefixItems === undefined
      ? schema
      : { ...rest, items: prefixItems, additionalItems: items ?? true };
  const entries = Object.entries(all).filter(([name]) => !INJECTED.has(name));
  return Object.fromEntries(entries.map(([name, value]) => [name, member(name, value, depth)]));
}

function member(name: string, value: unknown, depth: number): unknown {
  if (name === "$ref" && !(typeof value === "string" && value.startsWith("#"))) {
    throw new TypeError(`a schema that refers to ${JSON.stringify(value)}`);
  }
  if (name === "description" || name === "title") return String(value).replaceAll("*/", "* /");
  if (VALUES.has(name)) return value;
  if (!MAPS.has(name) || !isObject(value)) return prepare(value, depth + 1);
  return Object.fromEntries(
    Object.entries(value).map(([name, schema]) => [name, prepare(schema, depth + 1)]),
  );
}
