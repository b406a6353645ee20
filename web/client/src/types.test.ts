// What the compiler knows of operations: checked by `npm run check`.
import { expectTypeOf, test } from "vitest";
import type { Client } from "./client.js";
import type { Subscription } from "./subscription.js";

interface Operations {
  "math/add": { type: "query"; input: { a: number; b?: number }; output: number };
  "node/stop": { type: "mutation"; input: { [k: string]: unknown }; output: null };
  "audit/tail": { type: "subscription"; input: { all?: boolean }; output: { event: string } };
}

declare const typed: Client<Operations>;
declare const plain: Client;

test("types are those of the operations", () => {
  const uses = async () => {
    expectTypeOf(await typed.call("math/add", { a: 1 })).toEqualTypeOf<number>();
    expectTypeOf(await typed.call("node/stop")).toEqualTypeOf<null>();
    expectTypeOf(typed.subscribe("audit/tail")).toEqualTypeOf<Subscription<{ event: string }>>();
    // @ts-expect-error: an input is needed
    await typed.call("math/add");
    // @ts-expect-error: it is of another type
    await typed.call("math/add", { a: "1" });
    // @ts-expect-error: there is no such operation
    await typed.call("math/sub");
    // @ts-expect-error: a subscription is not called
    await typed.call("audit/tail");
    // @ts-expect-error: a query is not subscribed to
    typed.subscribe("math/add", { a: 1 });
  };
  expectTypeOf(uses).toBeFunction();
});

test("without types anything goes", () => {
  const uses = async () => {
    expectTypeOf(await plain.call("any/thing", { a: 1 }, { timeoutMs: 1 })).toBeAny();
    for await (const item of plain.subscribe("any/thing")) expectTypeOf(item).toBeAny();
  };
  expectTypeOf(uses).toBeFunction();
});
