import { Worker } from "node:worker_threads";
import { afterEach, expect, test } from "vitest";
import { Aside, type Thread } from "./aside";

const WORK = `
  const { parentPort } = require("node:worker_threads");
  parentPort.on("message", ({ text }) => {
    if (text === "odd") return parentPort.postMessage({ error: "odd" });
    if (text === "broken") throw new Error("broken");
    parentPort.postMessage({ begun: true });
    while (text === "endless");
    parentPort.postMessage({ text: text.toUpperCase() });
  });
`;

let started: Worker[] = [];

/** A thread of its own, as a page has it. */
function start(): Thread {
  const worker = new Worker(WORK, { eval: true });
  started.push(worker);
  const thread: Thread = {
    onmessage: null,
    onerror: null,
    postMessage: (task) => worker.postMessage(task),
    terminate: () => void worker.terminate(),
  };
  worker.on("message", (data) => thread.onmessage?.({ data }));
  worker.on("error", (error) => thread.onerror?.(error as Error));
  return thread;
}

const task = (text: string) => ({ kind: "markdown" as const, text });

afterEach(async () => {
  await Promise.all(started.map((worker) => worker.terminate()));
  started = [];
});

test("texts are worked on one after the other, by one thread", async () => {
  const aside = new Aside(start);
  const all = ["a", "b", "c"].map((text) => aside.work(task(text)));
  expect(await Promise.all(all)).toEqual(["A", "B", "C"]);
  expect(started).toHaveLength(1);
});

test("what never ends is given up, and those behind it come to their turn", async () => {
  const aside = new Aside(start);
  const [endless, next] = [aside.work(task("endless")), aside.work(task("next"))];
  await expect(endless).rejects.toThrow("too long");
  expect(await next).toBe("NEXT");
  expect(started).toHaveLength(2);
});

test("what fails is told, and nothing is left behind", async () => {
  const aside = new Aside(start);
  await expect(aside.work(task("odd"))).rejects.toThrow("odd");
  await expect(aside.work(task("broken"))).rejects.toThrow("broken");
  expect(await aside.work(task("fine"))).toBe("FINE");
});

test("not any number of texts wait", async () => {
  const aside = new Aside(start);
  const all = Array.from({ length: 100 }, (_, at) => aside.work(task(String(at))));
  const settled = await Promise.allSettled(all);
  expect(settled.filter(({ status }) => status === "fulfilled")).toHaveLength(64);
  expect(await aside.work(task("later"))).toBe("LATER");
});
