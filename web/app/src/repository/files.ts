import { textOf } from "../problem";
import { amount } from "../view";
import { ago, button, complaint, count, icon, make, save, type Icon } from "./dom";
import { MAX_COST } from "./drawing";
import { revisions, ways } from "./head";
import { highlight, languageOf } from "./highlight";
import { carried, piles } from "./marks";
import type { Blob, Commit, Entry, Kind, Place } from "./model";
import { MAX_PICTURE, pictureOf, pictureType, withheld } from "./picture";
import { hashOf, shortRev, split, type Route } from "./route";
import { revOf, type Context, type Shown } from "./view";
import "./files.css";

/** How much of a file is shown. */
const MOST = 1024 * 1024;

type FilesRoute = Route & { page: "files" };

/** A folder or a file of a repository. */
export async function files(
  context: Context,
  shown: Shown,
  route: FilesRoute,
): Promise<HTMLElement> {
  if (shown.refs.branches.length === 0 && route.rev === undefined) return empty(shown);
  const place: Place = { ...route, rev: revOf(shown, route.rev) };
  const content = await within(context, shown, route, place);
  const to = (rev: string | undefined): Route => ({ ...route, rev });
  const bar = make(
    "div",
    { className: "bar" },
    revisions(context, shown, route.rev, to),
    crumbs(route),
  );
  return make("div", {}, bar, latest(context, place), ...content);
}

/** What a path leads to: a folder, or else a file. */
async function within(
  context: Context,
  shown: Shown,
  route: FilesRoute,
  place: Place,
): Promise<HTMLElement[]> {
  const { repositories, signal } = context;
  const tree = await repositories.tree(place, signal).catch((error: unknown) => {
    if (isNoFolder(error)) return undefined;
    throw error;
  });
  if (tree === undefined) return [await file(context, shown, route, place)];
  const entries = tree.entries.toSorted(foldersFirst);
  return [folder(route, entries, tree.more), ...(await readme(context, route, place, entries))];
}

function isNoFolder(error: unknown): boolean {
  const cause = error instanceof Error ? error.cause : undefined;
  return typeof cause === "object" && cause !== null && "code" in cause
    ? cause.code === "NOT_A_FOLDER"
    : false;
}

function foldersFirst(one: Entry, other: Entry): number {
  const rank = ({ kind }: Entry) => (kind === "tree" ? 0 : 1);
  return rank(one) - rank(other) || (one.name < other.name ? -1 : 1);
}

/** The way to a path, each folder of it to be gone to. */
export function crumbs(route: FilesRoute): HTMLElement {
  const words = split(route.path);
  const name = route.repository.slice(route.repository.lastIndexOf("/") + 1);
  const path = make("nav", { className: "crumbs", "aria-label": "Path" });
  const add = (label: string, to: string, last: boolean) => {
    const href = hashOf({ ...route, path: to });
    if (path.childElementCount > 0) path.append(make("span", { textContent: "/" }));
    path.append(
      last && words.length > 0
        ? make("strong", { textContent: label, "aria-current": "page" })
        : make("a", { href, textContent: label }),
    );
  };
  add(name, "", words.length === 0);
  words.forEach((word, at) => {
    add(word, words.slice(0, at + 1).join("/"), at === words.length - 1);
  });
  return path;
}

/** The last commit that has changed what is shown, which the node may have to look for. */
function latest({ repositories, signal }: Context, place: Place): HTMLElement {
  const row = make("p", { className: "latest" }, make("span", { className: "subject" }, "…"));
  const fill = (commit: Commit) => {
    const { repository } = place;
    const href = hashOf({ page: "commit", repository, id: commit.id });
    row.replaceChildren(
      make("strong", { textContent: commit.author.name }),
      make("a", { href, className: "subject", textContent: subject(commit) }),
      make("a", { href, className: "id", textContent: shortRev(commit.id) }),
      ago(commit.committer.time),
    );
  };
  repositories.log(place, 0, 1, signal).then(
    ({ commits }) => commits[0] && fill(commits[0]),
    (error: unknown) => (row.textContent = carried(textOf(error))),
  );
  return row;
}

/** The first line of a commit's message. */
export function subject({ message }: Commit): string {
  return message.split("\n", 1)[0]!.trim() || "(no message)";
}

const ICON: Record<Kind, Icon> = {
  tree: "folder",
  blob: "file",
  executable: "file",
  link: "link",
  commit: "module",
};

const KIND: Record<Kind, string> = {
  tree: "folder",
  blob: "file",
  executable: "executable file",
  link: "symbolic link",
  commit: "submodule",
};

function folder(route: FilesRoute, entries: Entry[], more: boolean): HTMLElement {
  const rows = entries.map((entry) => {
    const path = [...split(route.path), entry.name].join("/");
    // A name that is no UTF-8 cannot be said to the node.
    const there = entry.kind !== "commit" && !entry.lossy;
    const name = there
      ? make("a", { href: hashOf({ ...route, path }), textContent: entry.name })
      : make("span", { textContent: entry.name });
    const note = { commit: shortRev(entry.id), executable: "executable", link: "link" };
    const kind = entry.kind in note ? note[entry.kind as keyof typeof note] : "";
    const sign = icon(ICON[entry.kind]);
    sign.setAttribute("aria-hidden", "false");
    sign.setAttribute("role", "img");
    sign.setAttribute("aria-label", KIND[entry.kind]);
    return make(
      "li",
      {},
      sign,
      name,
      make("span", { className: "quiet", textContent: kind }),
      make("span", {
        className: "quiet size",
        textContent: entry.size === undefined ? "" : amount(entry.size),
      }),
    );
  });
  const list = make("ul", { className: "entries", "aria-label": "Files" }, ...rows);
  if (more) list.append(make("li", { className: "quiet", textContent: "…and others" }));
  return list;
}

/** The text that a folder opens with, if it has one. */
async function readme(
  context: Context,
  route: FilesRoute,
  place: Place,
  entries: Entry[],
): Promise<HTMLElement[]> {
  const names = /^readme(\.(md|markdown|txt))?$/i;
  const found = entries.find(({ name, kind, lossy }) => {
    return (kind === "blob" || kind === "executable") && !lossy && names.test(name);
  });
  if (found === undefined) return [];
  const path = [...split(route.path), found.name].join("/");
  const blob = await context.repositories.blob({ ...place, path }, MOST, context.signal);
  const shown = await rendered(context, { ...route, path }, place, blob);
  if (shown === undefined) return [];
  const title = make("h2", { className: "of", textContent: found.name });
  return [make("section", { className: "readme", "aria-label": found.name }, title, shown)];
}

/** A text as a page, if it is meant as one. */
async function rendered(
  context: Context,
  route: FilesRoute,
  place: Place,
  blob: Blob,
): Promise<HTMLElement | undefined> {
  if (blob.text === undefined) return undefined;
  const { markdown, MAX_MARKDOWN, resolve } = await import("./markdown");
  if (!/\.(md|markdown)$/i.test(route.path) || blob.size > MAX_MARKDOWN) {
    return make("pre", { className: "plain", textContent: blob.text });
  }
  const folder = split(route.path).slice(0, -1).join("/");
  const links = {
    file: (to: string) => hashOf({ ...route, path: resolve(folder, to) ?? "" }),
    picture: async (to: string) => {
      const path = resolve(folder, to);
      if (path === undefined) return undefined;
      return await pictureOf(context.repositories, { ...place, path }, context.signal);
    },
  };
  try {
    return await markdown(blob.text, links);
  } catch (error) {
    const why = `It is shown as it is: ${textOf(error)}.`;
    const note = make("p", { className: "quiet", textContent: why });
    return make("div", {}, note, make("pre", { className: "plain", textContent: blob.text }));
  }
}

async function file(
  context: Context,
  shown: Shown,
  route: FilesRoute,
  place: Place,
): Promise<HTMLElement> {
  const { repositories, signal } = context;
  const { repository, rev, path } = route;
  const blob = await repositories.blob(place, MOST, signal);
  const name = path.slice(path.lastIndexOf("/") + 1);
  const lines = blob.text?.replace(/\n$/, "").split("\n").length;
  const facts = [lines === undefined ? "binary" : count(lines, "line"), amount(blob.size)];
  if (blob.kind !== "blob") facts.unshift(KIND[blob.kind]);
  const said = make("span", { role: "status" });
  const load = async () => {
    try {
      save(await repositories.bytes(place), name);
      said.replaceChildren();
    } catch (error) {
      said.replaceChildren(complaint(error));
    }
  };
  const bar = make(
    "div",
    { className: "row filebar" },
    make("span", { className: "quiet", textContent: facts.join(" · ") }),
    said,
    button("Download", load),
    make("a", {
      className: "button",
      href: hashOf({ page: "history", repository, rev, path, skip: 0 }),
      textContent: "History",
    }),
    shown.repository.rights.push &&
      make("a", {
        className: "button",
        href: hashOf({ page: "edit", repository, path }),
        textContent: "Edit",
      }),
  );
  const content = await contentOf(context, route, place, blob, bar);
  return make("section", { className: "file", "aria-label": name }, bar, content);
}

async function contentOf(
  context: Context,
  route: FilesRoute,
  place: Place,
  blob: Blob,
  bar: HTMLElement,
): Promise<HTMLElement> {
  const { path } = route;
  if (pictureType(path) !== undefined && blob.size <= MAX_PICTURE) {
    const picture = await pictureOf(context.repositories, place, context.signal);
    if (picture !== undefined) {
      const { address, cost } = picture;
      const name = path.slice(path.lastIndexOf("/") + 1);
      const shown =
        cost > MAX_COST
          ? withheld(make("img", { alt: path }), address, name)
          : make("img", { src: address, alt: path });
      return make("div", { className: "picture" }, shown);
    }
  }
  if (blob.text === undefined) {
    return make("p", { className: "quiet", textContent: "This is no text. It can be downloaded." });
  }
  const code = source(path, blob);
  if (!/\.(md|markdown)$/i.test(path)) return code;
  const page = await rendered(context, route, place, blob);
  return page === undefined ? code : either(page, code, bar);
}

/** A page and its text, one of them in sight. */
function either(page: HTMLElement, code: HTMLElement, bar: HTMLElement): HTMLElement {
  code.hidden = true;
  const swap = button("Show the text", () => {
    page.hidden = !page.hidden;
    code.hidden = !page.hidden;
    swap.textContent = page.hidden ? "Show the page" : "Show the text";
  });
  bar.firstElementChild?.after(swap);
  return make("div", { className: "readme" }, page, code);
}

/** A text with numbered lines. */
export function source(path: string, blob: Pick<Blob, "text" | "truncated">): HTMLElement {
  const text = blob.text ?? "";
  const lines = text.replace(/\n$/, "").split("\n").length;
  const numbers = Array.from({ length: lines }, (_, at) => at + 1).join("\n");
  const code = make("code", { textContent: text });
  highlight(code, languageOf(path)).catch(() => undefined);
  return make(
    "div",
    {},
    make(
      "div",
      { className: "source", tabIndex: 0 },
      make("pre", { className: "numbers", textContent: numbers, "aria-hidden": "true" }),
      make("pre", {}, code),
    ),
    blob.truncated &&
      make("p", { className: "quiet", textContent: "The file goes on; download it to see all." }),
    turns(text) &&
      make("p", {
        className: "complaint",
        textContent: "Characters in it change the order in which the text is shown.",
      }),
    piles(text) &&
      make("p", {
        className: "complaint",
        textContent: "Marks pile up in it: here ◌ carries some, which is not in the file.",
      }),
  );
}

/** Whether a text is shown in another order than it is read in by programs. */
export function turns(text: string): boolean {
  return /[\u202a-\u202e\u2066-\u2069]/.test(text);
}

/** How something gets into a repository that has nothing yet. */
function empty({ repository, refs }: Shown): HTMLElement {
  const { name, rights } = repository;
  const branch = refs.head.branch ?? "main";
  const [first] = ways(name);
  const url = first.line.replace("git clone ", "");
  const folder = name.slice(name.lastIndexOf("/") + 1);
  const box = make("section", { className: "empty" });
  box.append(make("h2", { textContent: "Nothing here yet" }));
  if (!rights.push) {
    box.append(make("p", { className: "quiet", textContent: "Nobody has pushed to it." }));
    return box;
  }
  const lines = [
    `git init -b ${branch} ${folder} && cd ${folder}`,
    `echo "# ${folder}" > README.md`,
    'git add README.md && git commit -m "Begin"',
    `git remote add origin ${url}`,
    `git push -u origin ${branch}`,
  ];
  const existing = [`git remote add origin ${url}`, `git push -u origin ${branch}`];
  const work = hashOf({ page: "edit", repository: name, path: "" });
  box.append(
    make("p", { textContent: "Push the first commit from a new folder:" }),
    make("pre", { className: "lines", textContent: lines.join("\n") }),
    make("p", { textContent: "or from a repository that you have:" }),
    make("pre", { className: "lines", textContent: existing.join("\n") }),
    make(
      "p",
      {},
      "or write the first file ",
      make("a", { href: work, textContent: "in this browser" }),
      ".",
    ),
  );
  return box;
}
