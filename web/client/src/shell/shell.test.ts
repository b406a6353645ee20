// A viewer that loses its transport again and again, against a node in the test's hands.
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { concat, type Bytes } from "../bytes.js";
import { Deferred } from "../deferred.js";
import { SignedOutError } from "../dial/node.js";
import type { Viewer } from "./core.js";
import { Shell, type AttachOptions } from "./shell.js";
import { Shells } from "./shells.js";
import { SESSION, ShellNode, WINDOW } from "./testing.js";

let node: ShellNode;
let shell: Shell;
let seen: Bytes;
let events: string[];

const bytes = (text: string): Bytes => new Uint8Array(new TextEncoder().encode(text));
const string = (bytes: Bytes): string => new TextDecoder().decode(bytes);

/** Looks at the node's session. */
function attach(options: Partial<AttachOptions> = {}): Shell {
  const attached = new Shell(node.dial, {
    create: true,
    size: { columns: 80, rows: 24 },
    output: (piece) => void (seen = concat(seen, piece)),
    ...options,
  });
  attached.addEventListener("state", ({ state }) => events.push(state));
  attached.addEventListener("screen", ({ missed }) => events.push(`screen -${missed}`));
  attached.addEventListener("attached", ({ attached: { resumed } }) =>
    events.push(resumed ? "resumed" : "attached"),
  );
  return attached;
}

/** Lets everything through until nothing more comes. */
async function settle(): Promise<void> {
  for (let quiet = 0; quiet < 3; quiet++) {
    await vi.advanceTimersByTimeAsync(0);
    for (const link of node.links) {
      if (link.up.length + link.down.length > 0) quiet = 0;
      link.passUp();
      link.passDown();
    }
  }
}

/** Lets time pass while everything gets through. */
async function pass(ms: number): Promise<void> {
  for (let at = 0; at < ms; at += 50) {
    await vi.advanceTimersByTimeAsync(50);
    await settle();
  }
}

beforeEach(() => {
  vi.useFakeTimers();
  node = new ShellNode();
  seen = new Uint8Array();
  events = [];
});

afterEach(() => {
  shell.close();
  vi.useRealTimers();
});

describe("a viewer", () => {
  test("attaches, types, is told of sizes, and is shown the output", async () => {
    shell = attach({ name: "main", term: "xterm", env: { LANG: "C.UTF-8" }, history: 7 });
    await settle();
    expect(node.attaches[0]).toMatchObject({
      type: "attach",
      attempt: 1,
      name: "main",
      create: true,
      terminal: { term: "xterm", columns: 80, rows: 24 },
      env: { LANG: "C.UTF-8" },
      history: 7,
    });
    node.write("$ ");
    const typed = shell.write(bytes("ls\n"));
    shell.resize({ columns: 100, rows: 30 });
    await settle();
    await typed;
    expect(string(seen)).toBe("$ ");
    const [viewer] = node.viewers.values();
    expect(string(viewer!.input)).toBe("ls\n");
    expect(node.sizes).toEqual([{ columns: 100, rows: 30, width: 0, height: 0 }]);
    expect(events).toEqual(["open", "attached"]);
  });

  test("goes on where it was when its transport is gone, with what was typed meanwhile", async () => {
    shell = attach();
    await settle();
    await pass(1_000);
    node.write("before ");
    await settle();
    node.link.cut();
    node.write("meanwhile ");
    void shell.write(bytes("typed"));
    await pass(500);
    node.write("after");
    await settle();
    expect(string(seen)).toBe("before meanwhile after");
    expect(string([...node.viewers.values()][0]!.input)).toBe("typed");
    expect(events).toEqual(["open", "attached", "away", "open", "resumed"]);
    expect(node.attaches[1]).toMatchObject({ session: SESSION, output: 7, attempt: 2 });
    expect(node.attaches[1]).not.toHaveProperty("create");
  });

  test("is shown a screen where the node has thrown away what it missed", async () => {
    shell = attach();
    node.write("one");
    await settle();
    await pass(1_000);
    node.forgets = true;
    node.link.cut();
    node.write(" two");
    await pass(500);
    expect(string(seen)).toBe("one\x1bc<screen 7>");
    node.write(" three");
    await settle();
    expect(string(seen)).toBe("one\x1bc<screen 7> three");
    expect(events.slice(2)).toEqual(["away", "open", "attached", "screen -4"]);
  });

  test("that is cut off within a screen asks for another", async () => {
    shell = attach();
    await settle();
    await pass(1_000);
    const viewer = [...node.viewers.values()][0]!;
    node.write("lost in the screen");
    await settle();
    node.paint(viewer, 0);
    const { length } = node.link.down;
    node.link.passDown(length - 3);
    await vi.advanceTimersByTimeAsync(0);
    node.link.cut();
    await pass(500);
    expect(node.attaches[1]).not.toHaveProperty("output");
    expect(string(seen)).toMatch(/\x1bc<screen 18>$/);
  });

  test("goes on after a reload by what was remembered", async () => {
    let remembered: Viewer | undefined;
    shell = attach({ remember: (viewer) => (remembered = viewer) });
    node.write("$ ");
    await settle();
    void shell.write(bytes("abc"));
    await settle();
    expect(remembered).toMatchObject({ attempt: 1, session: SESSION });
    shell.close();
    seen = new Uint8Array();
    shell = attach({ viewer: remembered! });
    void shell.write(bytes("def"));
    await settle();
    expect(string(seen)).toBe("\x1bc<screen 2>");
    expect(node.viewers.size).toBe(1);
    expect(string([...node.viewers.values()][0]!.input)).toBe("abcdef");
  });

  test("remembers an attempt before the node hears of it", async () => {
    const attempts: number[] = [];
    shell = attach({ remember: ({ attempt }) => attempts.push(attempt) });
    await vi.advanceTimersByTimeAsync(0);
    expect(attempts).toEqual([1]);
    expect(node.attaches).toEqual([]);
  });

  test("that is read-only types nothing", async () => {
    shell = attach({ readOnly: true });
    await settle();
    await shell.write(bytes("rm -rf /\n"));
    await settle();
    expect([...node.viewers.values()][0]!.input).toHaveLength(0);
  });

  test("takes leave, and is forgotten", async () => {
    shell = attach();
    await settle();
    const leaving = shell.detach();
    await settle();
    await leaving;
    expect(await shell.ended).toEqual({ reason: "detached" });
    expect(node.viewers.size).toBe(0);
    expect(node.links).toHaveLength(1);
  });
});

test("input that the node has and the program has not taken still counts", async () => {
  shell = attach();
  await settle();
  await pass(1_000);
  node.busy = true;
  void shell.write(new Uint8Array(1_000)).catch(() => undefined);
  await settle();
  const [viewer] = node.viewers.values();
  expect(viewer!.input).toHaveLength(WINDOW.input);
  node.link.cut();
  await pass(500);
  expect(shell.state).toBe("open");
  expect(viewer!.input).toHaveLength(WINDOW.input);
});

test("a viewer that the node has forgotten begins anew", async () => {
  shell = attach();
  node.write("one");
  await settle();
  await pass(1_000);
  node.gone = "viewers";
  node.link.cut();
  await pass(1_000);
  expect(shell.state).toBe("open");
  expect(node.viewers.size).toBe(2);
  expect(node.attaches.at(-1)).not.toHaveProperty("output");
});

describe("a silent transport", () => {
  /** Lets time pass while nothing gets through. */
  const stall = (ms: number) => vi.advanceTimersByTimeAsync(ms);

  test("is asked after a second, and replaced after another one and a half", async () => {
    shell = attach();
    await settle();
    await stall(1_000);
    expect(node.link.up.length).toBe(13);
    await stall(1_499);
    expect(shell.state).toBe("open");
    await stall(1);
    expect(shell.state).toBe("away");
    await settle();
    expect(shell.state).toBe("open");
    expect(node.links).toHaveLength(2);
    expect(node.links[0]!.alive).toBe(false);
  });

  test("that comes back before another is there is kept", async () => {
    shell = attach();
    await settle();
    node.held = new Deferred();
    await stall(2_500);
    expect(shell.state).toBe("away");
    node.write("here");
    await settle();
    expect(shell.state).toBe("open");
    expect(string(seen)).toBe("here");
    node.held.resolve();
    await pass(3_000);
    expect(node.attaches).toHaveLength(1);
    expect(node.links[0]!.alive).toBe(true);
    expect(node.links.slice(1).every(({ alive }) => !alive)).toBe(true);
  });

  test("that answers is left alone", async () => {
    shell = attach();
    await settle();
    await pass(60_000);
    expect(node.links).toHaveLength(1);
    expect(events).toEqual(["open", "attached"]);
  });

  test("that never answers the first frame is given up, too", async () => {
    shell = attach();
    await stall(2_500);
    await settle();
    expect(shell.state).toBe("open");
    expect(node.attaches.at(-1)).toMatchObject({ attempt: 2 });
  });
});

describe("it ends", () => {
  const say = async (control: Record<string, unknown>) => {
    node.link.say(control);
    node.link.finish();
    await pass(3_000);
  };

  test("with the program, behind its output", async () => {
    const held = new Deferred<void>();
    shell = attach({
      output: async (piece) => {
        await held.promise;
        seen = concat(seen, piece);
      },
    });
    await settle();
    node.write("bye");
    await say({ type: "exited", status: 3 });
    expect(shell.state).not.toBe("ended");
    held.resolve();
    expect(await shell.ended).toEqual({ reason: "exited", exit: { status: 3 } });
    expect(string(seen)).toBe("bye");
    expect(node.links).toHaveLength(1);
  });

  test.each(["ended", "limit", "shutting-down", "not-found", "a-later-code"])(
    "with the node's word: %s",
    async (code) => {
      shell = attach();
      await settle();
      await say({ type: "error", code, message: "no more" });
      expect(await shell.ended).toMatchObject({ reason: "refused", error: { code } });
      expect(node.links).toHaveLength(1);
      await expect(shell.write(bytes("x"))).rejects.toThrow("not attached");
    },
  );

  test("when the session is gone, also for a new viewer", async () => {
    shell = attach();
    await settle();
    node.write("$ ");
    await pass(1_000);
    node.gone = "session";
    node.link.cut();
    await pass(3_000);
    expect(node.attaches).toHaveLength(3);
    expect(await shell.ended).toMatchObject({ reason: "refused", error: { code: "gone" } });
  });

  test("not because the node is busy", async () => {
    shell = attach();
    await settle();
    await say({ type: "error", code: "busy", message: "too much" });
    expect(shell.state).toBe("open");
    expect(node.attaches).toHaveLength(2);
  });

  test("with a credential that is withdrawn", async () => {
    shell = attach();
    await settle();
    node.unreachable = new Error("no route");
    node.link.cut(7);
    expect(await shell.ended).toEqual({ reason: "revoked" });
  });

  test("when the node does not know the caller any more", async () => {
    shell = attach();
    await settle();
    const waiting = expect(shell.write(bytes("x"))).rejects.toThrow("not attached");
    node.unreachable = new SignedOutError();
    node.link.cut();
    await pass(1_000);
    expect(await shell.ended).toMatchObject({ reason: "failed", error: node.unreachable });
    await waiting;
  });

  test("when the consumer fails", async () => {
    const error = new Error("no terminal");
    shell = attach({ output: () => Promise.reject(error) });
    node.write("x");
    await settle();
    expect(await shell.ended).toEqual({ reason: "failed", error });
  });
});

describe("a copy of a viewer", () => {
  test("leaves each with a viewer of its own", async () => {
    let copied: Viewer | undefined;
    shell = attach({ remember: (viewer) => (copied ??= viewer) });
    await settle();
    await pass(1_000);
    const copy = attach({ viewer: { ...copied!, session: SESSION } });
    await pass(60_000);
    expect([shell.state, copy.state]).toEqual(["open", "open"]);
    expect(node.viewers.size).toBe(2);
    expect(node.attaches).toHaveLength(3);
    node.write("both");
    await settle();
    expect(string(seen).match(/both/g)).toHaveLength(2);
    copy.close();
  });

  test("does not type again what the first may have typed", async () => {
    let first: Viewer | undefined;
    shell = attach({ remember: (viewer) => (first ??= viewer) });
    await settle();
    const doubtful = expect(shell.write(bytes("rm x\n"))).rejects.toThrow("another window");
    await vi.advanceTimersByTimeAsync(0);
    const copy = attach({ viewer: { ...first!, session: SESSION } });
    await vi.advanceTimersByTimeAsync(0);
    node.link.passUp();
    await pass(1_000);
    await doubtful;
    const typed = [...node.viewers.values()].map(({ input }) => string(input));
    expect(typed.join("").length).toBeLessThanOrEqual(5);
    copy.close();
  });

  test("finds out by itself that it is late", async () => {
    shell = attach({ viewer: { viewer: "ab".repeat(16), attempt: 5 } });
    await settle();
    const copy = attach({ viewer: { viewer: "ab".repeat(16), attempt: 3 } });
    await pass(1_000);
    expect([shell.state, copy.state]).toEqual(["open", "open"]);
    expect(node.viewers.size).toBe(2);
    copy.close();
  });
});

describe("a hostile node", () => {
  const ends = async (send: () => void, message: RegExp) => {
    shell = attach();
    await settle();
    send();
    await pass(100);
    const end = await shell.ended;
    expect(end).toMatchObject({ reason: "failed", error: { name: "ShellProtocolError" } });
    expect(String((end as { error: Error }).error.message)).toMatch(message);
  };
  const output = (offset: number, length = 1) =>
    node.link.send({ kind: "output", offset, bytes: new Uint8Array(length) });
  const screen = (bytes: number, output = 0) =>
    node.link.say({ type: "screen", bytes, output, missed: 0 });

  test("cannot leave out or repeat output", async () => {
    await ends(() => output(1), /gap/);
    await ends(() => (output(0), output(0)), /repeat/);
  });

  test("cannot send more than there is room for", async () => {
    await ends(() => output(0, WINDOW.output + 1), /room/);
  });

  test("cannot acknowledge what was not sent", async () => {
    await ends(() => node.link.send({ kind: "ack", offset: 1 }), /ACK/);
  });

  test("cannot paint more than it has announced, or endlessly", async () => {
    await ends(() => node.link.send({ kind: "screen", bytes: bytes("x") }), /announced/);
    await ends(() => (screen(1), node.link.send({ kind: "screen", bytes: bytes("xx") })), /more/);
    await ends(() => (screen(2), output(0)), /gap/);
    await ends(() => (screen(2), screen(2)), /screen/);
    await ends(() => screen(1 << 30), /bytes/);
  });

  test("cannot attach twice, or to another session", async () => {
    const attached = { type: "attached", name: "x", created: false, resumed: false };
    const rest = { read_only: false, input: 0, output: 0, input_window: 1, output_window: 1 };
    const size = { columns: 80, rows: 24, viewers: 1, account: "ann" };
    const say = (session: string) => node.link.say({ ...attached, ...rest, ...size, session });
    await ends(() => say(SESSION), /twice/);
    await ends(() => say("main"), /id/);
    await ends(() => node.link.say({ type: "attached" }), /session/);
  });

  test("cannot ask without end", async () => {
    shell = attach();
    await settle();
    for (let token = 0n; token < 100n; token++) node.link.send({ kind: "ping", token });
    node.link.passDown();
    await vi.advanceTimersByTimeAsync(0);
    expect(await shell.ended).toMatchObject({ reason: "failed" });
  });

  test("cannot go on after the end", async () => {
    await ends(() => {
      node.link.say({ type: "error", code: "busy", message: "" });
      output(0);
    }, /after/);
  });

  test("may say what later versions know", async () => {
    shell = attach();
    await settle();
    node.link.say({ type: "weather", sun: true });
    node.write("fine");
    await settle();
    expect(string(seen)).toBe("fine");
  });
});

describe("flow control", () => {
  test("acknowledges what the consumer has done with, and no more", async () => {
    const held: (() => void)[] = [];
    shell = attach({
      output: (piece) => {
        seen = concat(seen, piece);
        return new Promise((done) => held.push(done));
      },
    });
    await settle();
    node.write("x".repeat(10_000));
    await pass(10_000);
    expect(seen.length).toBeLessThanOrEqual(WINDOW.output);
    const [viewer] = node.viewers.values();
    expect(viewer!.acked).toBe(0);
    while (seen.length < 10_000) {
      held.splice(0).forEach((done) => done());
      await pass(1_000);
    }
    expect(shell.state).toBe("open");
  });

  test("input beyond the window waits, and beyond 8 MiB is refused", async () => {
    shell = attach();
    await settle();
    void shell.write(new Uint8Array(5_000));
    await vi.advanceTimersByTimeAsync(0);
    expect(node.link.up.length).toBeLessThan(WINDOW.input + 64);
    await settle();
    expect([...node.viewers.values()][0]!.input).toHaveLength(5_000);
    await expect(shell.write(new Uint8Array(9 * 1024 * 1024))).rejects.toThrow(RangeError);
  });
});

test.each(Array.from({ length: 60 }, (_, seed) => seed + 1))(
  "nothing is lost or doubled, wherever the transport is cut (%i)",
  async (seed) => {
    let state = seed * 7_919;
    const random = (below: number) => (state = (state * 48_271) % 0x7fff_ffff) % below;
    const held: (() => void)[] = [];
    shell = attach({
      output: async (piece) => {
        if (random(2) === 0) await new Promise<void>((done) => held.push(done));
        seen = concat(seen, piece);
      },
    });
    let typed = "";
    for (let step = 0; step < 400; step++) {
      const { link } = node;
      const does = random(20);
      if (random(30) === 0) held.splice(0).forEach((done) => done());
      if (does < 4) node.write(`[${step}]`.repeat(1 + random(9)));
      else if (does < 7) {
        const text = `<${step}>`.repeat(1 + random(9));
        typed += text;
        void shell.write(bytes(text));
      } else if (does === 7 && random(3) === 0) link?.cut();
      else if (does === 8) await vi.advanceTimersByTimeAsync(random(3_000));
      else if (does < 14) link?.passUp(1 + random(40));
      else link?.passDown(1 + random(60));
      await vi.advanceTimersByTimeAsync(0);
    }
    for (let quiet = 0; quiet < 100; quiet++) {
      held.splice(0).forEach((done) => done());
      await pass(100);
    }
    const output = string(node.output);
    const [viewer] = node.viewers.values();
    expect(node.viewers.size).toBe(1);
    expect(string(viewer!.input)).toBe(typed);
    // Where it was cut off before the first output, a screen stands for what came before.
    const [, covered, rest] = /^(?:(?:\x1bc(?:<[^>]*)?)*\x1bc<screen (\d+)>)?([^]*)$/.exec(
      string(seen),
    )!;
    expect(rest).toBe(output.slice(Number(covered ?? 0)));
  },
);

describe("requests", () => {
  test("lists and ends", async () => {
    shell = attach();
    const shells = new Shells(node.dial);
    const list = shells.list();
    await settle();
    expect(await list).toEqual([]);
    const ended = expect(shells.end({ name: "x" })).rejects.toMatchObject({ code: "not-found" });
    await settle();
    await ended;
    expect(node.links.filter(({ alive }) => alive)).toHaveLength(1);
  });
});
