import { ago, button, copy, make } from "./dom";
import { changes } from "./diff";
import { subject } from "./files";
import { carried } from "./marks";
import type { Commit } from "./model";
import { hashOf, shortRev, type Route } from "./route";
import type { Context } from "./view";

type CommitRoute = Route & { page: "commit" };

/** One commit: who, why, and what has changed. */
export async function commit(context: Context, route: CommitRoute): Promise<HTMLElement> {
  const { repository, id } = route;
  const { repositories, signal } = context;
  const [log, diff] = await Promise.all([
    repositories.log({ repository, rev: id }, 0, 1, signal),
    repositories.diff(repository, id, signal),
  ]);
  const found = log.commits[0];
  if (found === undefined) throw new Error("the node has not said what the commit is");
  const box = make("div", {}, about(repository, found));
  if (found.parents.length > 1) {
    const text = "A merge: this is what it has changed on its first parent.";
    box.append(make("p", { className: "quiet", textContent: text }));
  }
  box.append(...changes(repository, diff));
  return box;
}

function about(repository: string, commit: Commit): HTMLElement {
  const { id, parents, author, committer } = commit;
  const body = commit.message.split("\n").slice(1).join("\n").trim();
  const copied = button("Copy", () => copy(id, copied), { "aria-label": "Copy the commit's id" });
  const people = make("p", { className: "facts" });
  people.append(make("strong", { textContent: author.name }), " ", ago(author.time));
  if (committer.name !== author.name) people.append(carried(` · committed by ${committer.name}`));
  const ids = make("p", { className: "facts" });
  ids.append(make("code", { textContent: shortRev(id), title: id }), " ", copied);
  if (parents.length > 0) ids.append(` ${parents.length === 1 ? "parent" : "parents"} `);
  for (const parent of parents) {
    const href = hashOf({ page: "commit", repository, id: parent });
    ids.append(make("a", { className: "id", href, textContent: shortRev(parent) }), " ");
  }
  const files = hashOf({ page: "files", repository, rev: id, path: "" });
  return make(
    "section",
    { className: "about-commit" },
    make(
      "div",
      { className: "row" },
      make("h2", { textContent: subject(commit) }),
      make("a", { className: "button", href: files, textContent: "Files" }),
    ),
    body !== "" && make("pre", { className: "message", textContent: body }),
    people,
    ids,
  );
}
