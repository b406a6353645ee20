import { count, make } from "./dom";
import { turns } from "./files";
import { piles } from "./marks";
import type { Change, Diff, Hunk } from "./model";
import { hashOf } from "./route";
import "./change.css";

/** A file with more lines of change than this is opened on demand. */
const LARGE = 400;
/** And so are all after this many lines. */
const TOGETHER = 4_000;

/** What has changed, file by file. */
export function changes(repository: string, { to, files, truncated }: Diff): HTMLElement[] {
  const sum = (of: (file: Change) => number) => files.reduce((all, file) => all + of(file), 0);
  const [added, removed] = [sum((file) => file.additions), sum((file) => file.deletions)];
  const summary = make("p", { className: "summary" });
  summary.append(`${count(files.length, "file")} changed`, ...numbers(added, removed));
  let lines = 0;
  const boxes = files.map((file) => {
    const size = file.additions + file.deletions;
    lines += size;
    return box(repository, to, file, size <= LARGE && lines <= TOGETHER);
  });
  const rest = make("p", { className: "quiet", textContent: "There is more than is shown here." });
  return truncated ? [summary, ...boxes, rest] : [summary, ...boxes];
}

function numbers(added: number, removed: number): HTMLElement[] {
  const parts: HTMLElement[] = [];
  if (added > 0) parts.push(make("span", { className: "plus", textContent: `+${added}` }));
  if (removed > 0) parts.push(make("span", { className: "minus", textContent: `−${removed}` }));
  return parts;
}

function box(repository: string, rev: string, file: Change, open: boolean): HTMLElement {
  const { path, old_path, status, additions, deletions } = file;
  const label = make("summary", {});
  label.append(
    make("span", {
      className: "path",
      textContent: old_path === undefined || old_path === path ? path : `${old_path} → ${path}`,
    }),
    make("span", { className: "badge", textContent: status === "type" ? "type changed" : status }),
    ...numbers(additions, deletions),
  );
  const details = make("details", { className: "change", open }, label);
  // Built when it is looked at.
  const fill = () => details.childElementCount === 1 && details.append(...content(file, link()));
  const link = () =>
    status === "deleted"
      ? undefined
      : make("a", {
          href: hashOf({ page: "files", repository, rev, path }),
          textContent: "Show the file",
        });
  if (open) fill();
  details.addEventListener("toggle", fill);
  return details;
}

function content(file: Change, link: HTMLElement | undefined): HTMLElement[] {
  const note = (text: string) => make("p", { className: "quiet note", textContent: text });
  const parts: HTMLElement[] = [];
  if (file.binary) parts.push(note("Binary; it cannot be shown line by line."));
  else if (file.hunks.length > 0) parts.push(table(file.hunks));
  else if (!file.truncated) parts.push(note("The content is the same."));
  if (file.truncated) parts.push(note("There is more than is shown here."));
  if (file.hunks.some(({ lines }) => lines.some(turns))) {
    const text = "Characters in it change the order in which the text is shown.";
    parts.push(make("p", { className: "complaint note", textContent: text }));
  }
  if (file.hunks.some(({ lines }) => lines.some(piles))) {
    const text = "Marks pile up in it: here ◌ carries some, which is not in the file.";
    parts.push(make("p", { className: "complaint note", textContent: text }));
  }
  if (link !== undefined) parts.push(make("p", { className: "note" }, link));
  return parts;
}

function table(hunks: Hunk[]): HTMLElement {
  const body = make("tbody", {});
  for (const hunk of hunks) {
    const { old_start, old_lines, new_start, new_lines } = hunk;
    const range = `@@ −${old_start},${old_lines} +${new_start},${new_lines} @@`;
    const cell = make("td", { colSpan: 3, textContent: range });
    body.append(make("tr", { className: "hunk" }, cell));
    body.append(...rows(hunk));
  }
  const lines = make("table", { className: "diff", "aria-label": "Changed lines" }, body);
  return make("div", { className: "scrolls", tabIndex: 0 }, lines);
}

function rows({ old_start, new_start, lines }: Hunk): HTMLElement[] {
  let [before, after] = [old_start, new_start];
  return lines.map((line) => {
    const sign = line.charAt(0);
    const removed = sign === "-";
    const added = sign === "+";
    const apart = sign === "\\";
    const number = (there: boolean, value: number) =>
      make("td", { className: "number", "data-number": there && !apart ? String(value) : "" });
    const kind = added ? "added" : removed ? "removed" : apart ? "apart" : "";
    const row = make(
      "tr",
      { className: kind },
      number(!added, before),
      number(!removed, after),
      // The sign is copied along, so that what is copied is a patch.
      make("td", { className: "line", textContent: line }),
    );
    if (!added && !apart) before++;
    if (!removed && !apart) after++;
    return row;
  });
}
