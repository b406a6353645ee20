import { expect, test } from "vitest";
import { Tab } from "./tab";

const viewer = { viewer: "9f".repeat(16), attempt: 3, session: "5c".repeat(16) };

function store(text?: string) {
  const items = new Map(text === undefined ? [] : [["alknet.shell", text]]);
  return {
    getItem: (name: string) => items.get(name) ?? null,
    setItem: (name: string, value: string) => void items.set(name, value),
    removeItem: (name: string) => void items.delete(name),
  };
}

test("a tab knows after a reload what it looked at", () => {
  const tab = new Tab(store());
  expect(tab.looking).toEqual({ readOnly: false });
  const looking = { name: "build", readOnly: true, viewer };
  tab.keep(looking);
  expect(tab.looking).toEqual(looking);
  tab.forget();
  expect(tab.looking).toEqual({ readOnly: false });
});

test.each([
  ["{", {}],
  ["7", {}],
  ["null", {}],
  ['{"name":7,"readOnly":"yes","viewer":{"viewer":"9f","attempt":1}}', {}],
  [`{"viewer":{"viewer":"${viewer.viewer}","attempt":"1"}}`, {}],
  [
    `{"viewer":{"viewer":"${viewer.viewer}","attempt":1,"session":"main"}}`,
    { viewer: { viewer: viewer.viewer, attempt: 1 } },
  ],
])("of what makes no sense nothing is taken: %s", (text, expected) => {
  expect(new Tab(store(text)).looking).toEqual({ readOnly: false, ...expected });
});
