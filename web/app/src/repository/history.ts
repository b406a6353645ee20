import { ago, make } from "./dom";
import { crumbs, subject } from "./files";
import { revisions } from "./head";
import { carried } from "./marks";
import type { Commit } from "./model";
import { hashOf, shortRev, type Route } from "./route";
import { revOf, type Context, type Shown } from "./view";
import "./change.css";

const PAGE = 50;

type HistoryRoute = Route & { page: "history" };

/** The commits that have led to a revision, or that have changed a path. */
export async function history(
  context: Context,
  shown: Shown,
  route: HistoryRoute,
): Promise<HTMLElement> {
  const { repository, rev, path, skip } = route;
  const to = (rev: string | undefined): Route => ({ ...route, rev, skip: 0 });
  const bar = make(
    "div",
    { className: "bar" },
    revisions(context, shown, rev, to),
    crumbs({ page: "files", repository, rev, path }),
  );
  if (shown.refs.branches.length === 0 && rev === undefined) {
    return make("div", {}, bar, make("p", { className: "quiet", textContent: "No commits yet." }));
  }
  const place = { repository, rev: revOf(shown, rev), path };
  const log = await context.repositories.log(place, skip, PAGE, context.signal);
  const box = make("div", {}, bar, ...days(repository, log.commits));
  if (log.commits.length === 0) {
    box.append(make("p", { className: "quiet", textContent: "There are none." }));
  }
  if (log.truncated) {
    const text = "The search took too long; older commits may be missing.";
    box.append(make("p", { className: "quiet", textContent: text }));
  }
  const page = (label: string, skip: number) =>
    make("a", { className: "button", href: hashOf({ ...route, skip }), textContent: label });
  const pages = make("nav", { className: "pages", "aria-label": "Pages" });
  if (skip > 0) pages.append(page("Newer", Math.max(0, skip - PAGE)));
  if (log.more) pages.append(page("Older", skip + log.commits.length));
  box.append(pages);
  return box;
}

function days(repository: string, commits: Commit[]): HTMLElement[] {
  const groups: { day: string; list: HTMLElement }[] = [];
  for (const commit of commits) {
    const day = new Date(commit.committer.time * 1000).toLocaleDateString("en", {
      dateStyle: "long",
    });
    if (groups.at(-1)?.day !== day) {
      groups.push({ day, list: make("ul", { className: "commits", "aria-label": day }) });
    }
    groups.at(-1)!.list.append(row(repository, commit));
  }
  return groups.flatMap(({ day, list }) => [
    make("h2", { className: "of", textContent: day }),
    list,
  ]);
}

function row(repository: string, commit: Commit): HTMLElement {
  const href = hashOf({ page: "commit", repository, id: commit.id });
  const by = make("p", { className: "facts" });
  by.append(carried(commit.author.name), " ", ago(commit.committer.time));
  if (commit.parents.length > 1) by.append(" · merge");
  return make(
    "li",
    {},
    make("div", {}, make("a", { href, textContent: subject(commit) }), by),
    make("a", { href, className: "id", textContent: shortRev(commit.id) }),
  );
}
