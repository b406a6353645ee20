import { describe, expect, test } from "vitest";
import { apart, type Commit } from "./apart";

type History = Map<string, Commit>;

const MOST = 500;

const between = (history: History, ours: string | undefined, theirs: string | undefined) =>
  apart(ours, theirs, MOST, async (id) => history.get(id));

/** Commits `name` 1 to `name` count, one after the other. */
function line(history: History, name: string, count: number, from: string[], time: number): string {
  let parents = from;
  for (let at = 1; at <= count; at++) {
    history.set(`${name}${at}`, { parents, time: time + at });
    parents = [`${name}${at}`];
  }
  return parents[0]!;
}

describe("two branches", () => {
  test.each([
    [1, 0, { ahead: 1, behind: 0, more: false }],
    [0, 1, { ahead: 0, behind: 1, more: false }],
    [0, 0, { ahead: 0, behind: 0, more: false }],
    [3, 499, { ahead: 3, behind: 499, more: false }],
    [500, 0, { ahead: 500, behind: 0, more: false }],
    [501, 0, { ahead: 500, behind: 0, more: true }],
    [0, 700, { ahead: 0, behind: 500, more: true }],
    [700, 700, { ahead: 500, behind: 499, more: true }],
    [5, 700, { ahead: 0, behind: 500, more: true }],
  ])("%i and %i commits apart", async (ahead, behind, expected) => {
    const history: History = new Map();
    const base = line(history, "c", 2000, [], 0);
    const ours = line(history, "o", ahead, [base], 3000);
    const theirs = line(history, "t", behind, [base], 3000);
    expect(await between(history, ours, theirs)).toEqual(expected);
  });

  test("of which one is not there", async () => {
    const history: History = new Map();
    const tip = line(history, "c", 3, [], 0);
    expect(await between(history, tip, undefined)).toEqual({ ahead: 3, behind: 0, more: false });
    expect(await between(history, undefined, tip)).toEqual({ ahead: 0, behind: 3, more: false });
    expect(await between(history, undefined, undefined)).toMatchObject({ ahead: 0, behind: 0 });
  });

  test("of a shallow copy", async () => {
    const history: History = new Map([["c", { parents: ["not here"], time: 1 }]]);
    const ours = line(history, "o", 2, ["c"], 2);
    expect(await between(history, ours, "c")).toEqual({ ahead: 2, behind: 0, more: false });
  });

  test.each([
    ["are all of one second", 0, 0],
    ["were made with a clock that is slow", 100, 0],
    ["were made with a clock that is fast", 0, 100],
  ])("whose commits %s", async (_, common, own) => {
    for (const count of [400, 2000]) {
      const history: History = new Map();
      const base = line(history, "c", count, [], 0);
      const ours = line(history, "o", 3, [base], 0);
      for (const [id, commit] of history) commit.time = id.startsWith("c") ? common : own;
      expect(await between(history, ours, base)).toEqual({ ahead: 3, behind: 0, more: false });
      expect(await between(history, base, ours)).toEqual({ ahead: 0, behind: 3, more: false });
    }
  });

  test("of any shape", async () => {
    let seed = 1;
    const random = (below: number) => {
      seed = (seed * 1103515245 + 12345) % 2 ** 31;
      return Math.floor((seed / 2 ** 31) * below);
    };
    for (let round = 0; round < 300; round++) {
      const history: History = new Map();
      const count = 2 + random(30);
      for (let at = 0; at < count; at++) {
        const parents = [random(at + 1), random(at + 1)].slice(0, random(3));
        const before = parents.filter((parent) => parent < at).map(String);
        history.set(String(at), { parents: [...new Set(before)], time: at });
      }
      const all = (tip: string): Set<string> => {
        const found = new Set([tip]);
        for (const id of found) for (const parent of history.get(id)!.parents) found.add(parent);
        return found;
      };
      const [one, other] = [String(random(count)), String(random(count))];
      const [ours, theirs] = [all(one), all(other)];
      expect(await between(history, one, other)).toEqual({
        ahead: [...ours].filter((id) => !theirs.has(id)).length,
        behind: [...theirs].filter((id) => !ours.has(id)).length,
        more: false,
      });
    }
  });
});
