import { expect, test } from "vitest";
import { hashOf, parseRoute, shortRev, type Route } from "./route";

const repository = "team/notes";

test.each<[Route, string]>([
  [{ page: "list" }, "#/git"],
  [{ page: "new" }, "#/git/-"],
  [{ page: "files", repository, rev: undefined, path: "" }, "#/git/team%2Fnotes"],
  [
    { page: "files", repository, rev: undefined, path: "src/a b?#%.rs" },
    "#/git/team%2Fnotes/files/-/src/a%20b%3F%23%25.rs",
  ],
  [
    { page: "files", repository, rev: "refs/heads/feature/x", path: "src" },
    "#/git/team%2Fnotes/files/refs%2Fheads%2Ffeature%2Fx/src",
  ],
  [
    { page: "history", repository, rev: "refs/tags/v1", path: "", skip: 50 },
    "#/git/team%2Fnotes/history/refs%2Ftags%2Fv1?skip=50",
  ],
  [
    { page: "commit", repository, id: "ab".repeat(20) },
    `#/git/team%2Fnotes/commit/${"ab".repeat(20)}`,
  ],
  [{ page: "edit", repository, path: "src/lib.rs" }, "#/git/team%2Fnotes/edit/src/lib.rs"],
  [{ page: "settings", repository }, "#/git/team%2Fnotes/settings"],
])("a route survives the address: %j", (route, hash) => {
  expect(hashOf(route)).toBe(hash);
  const parsed = parseRoute(hash);
  expect(JSON.parse(JSON.stringify(parsed))).toEqual(JSON.parse(JSON.stringify(route)));
});

test("other fragments are none of ours", () => {
  for (const hash of ["", "#", "#ed25519:abc", "#/gitx", "#/other"]) {
    expect(parseRoute(hash)).toBeUndefined();
  }
});

test("what makes no sense leads somewhere that does", () => {
  expect(parseRoute("#/git/%zz")).toEqual({ page: "list" });
  expect(parseRoute("#/git/")).toEqual({ page: "list" });
  expect(parseRoute("#/git/notes/commit")).toMatchObject({ page: "files", repository: "notes" });
  expect(parseRoute("#/git/notes/nonsense/x")).toMatchObject({ page: "files", path: "" });
  expect(parseRoute("#/git/notes/history/-?skip=-5")).toMatchObject({ skip: 0 });
});

test("revisions in few letters", () => {
  expect(shortRev("refs/heads/feature/x")).toBe("feature/x");
  expect(shortRev("refs/tags/v1")).toBe("v1");
  expect(shortRev("0123456789".repeat(4))).toBe("01234567");
});
