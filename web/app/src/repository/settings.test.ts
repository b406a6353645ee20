import { expect, test } from "vitest";
import type { SettingsOf } from "./model";
import { changesOf, wantedOf } from "./settings";

const set: SettingsOf = {
  description: "Notes",
  public: true,
  default_branch: "main",
  protected: ["refs/heads/main", "refs/tags/*"],
  quota: null,
  lfs: true,
  mirror: null,
};
const known = wantedOf(set);

test("only what somebody has changed is told to the node", () => {
  expect(known.protected).toEqual(["main", "refs/tags/*"]);
  expect(changesOf(known, known)).toEqual({});
  // Whatever else was set meanwhile.
  expect(changesOf(known, { ...known, description: "What we noted" })).toEqual({
    description: "What we noted",
  });
  expect(changesOf(known, { ...known, public: false, lfs: false })).toEqual({
    public: false,
    lfs: false,
  });
  expect(changesOf(known, { ...known, protected: ["refs/tags/*", "release/*"] })).toEqual({
    protect: ["release/*"],
    unprotect: ["main"],
  });
});

test("what was set is set back", () => {
  const dev = { ...known, default_branch: "dev", quota: 1024 };
  expect(changesOf(known, dev)).toEqual({ default_branch: "dev", quota: 1024 });
  expect(changesOf(dev, known)).toEqual({ default_branch: "main", quota: 0 });
  // Nothing is chosen where there is nothing to choose from.
  expect(changesOf(known, { ...known, default_branch: null })).toEqual({});
});
