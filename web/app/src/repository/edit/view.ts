// The working copy of a repository, on the page.
import { button, complaint, make } from "../dom";
import { choice, field } from "../list";
import type { Route } from "../route";
import { branchNames, defaultBranch, type Context, type Shown } from "../view";
import { allowed, Copies, type Home } from "./copies";
import { alone, loaded, WorkingCopy, type Progress } from "./copy";
import { desk } from "./desk";

type EditRoute = Route & { page: "edit" };

/** The working copy, or the way to one. */
export async function edit(context: Context, shown: Shown, route: EditRoute): Promise<HTMLElement> {
  const copies = new Copies(context.session.identity);
  const { name } = shown.repository;
  const home = await copies.find(name);
  if (home === undefined) return start(context, shown, copies);
  if (!(await allowed(home, false))) return asking(context, home, copies, name);
  let copy: WorkingCopy | undefined;
  try {
    copy = await WorkingCopy.open(home.root, context.reach, name);
  } catch (error) {
    return failed(context, home, copies, name, error);
  }
  // What was begun and not brought to an end is of no use, unless another page is at it.
  if (copy === undefined) return start(context, shown, copies);
  return await desk(context, shown, route, { copy, copies, home });
}

/** A copy that cannot be opened may hold what is nowhere else, so it stays. */
function failed(
  context: Context,
  home: Home,
  copies: Copies,
  name: string,
  error: unknown,
): HTMLElement {
  const again = button("Try again", () => context.refresh(), { className: "main" });
  return make(
    "section",
    { className: "empty" },
    make("h2", { textContent: "The working copy cannot be opened" }),
    make("p", { textContent: "It is still there, with everything that was committed to it." }),
    complaint(error),
    make("div", { className: "row" }, again),
    removal(context, home, copies, name),
  );
}

/** The way to be rid of a copy that is of no use, which is asked twice. */
export function removal(context: Context, home: Home, copies: Copies, name: string): HTMLElement {
  const row = make("div", { className: "row" });
  const lose = button(
    home.kind === "browser" ? "Remove it and what was not pushed" : "Forget the folder",
    async () => {
      try {
        await alone(name, () => copies.forget(name, home));
        context.refresh();
      } catch (error) {
        row.append(complaint(error));
      }
    },
    { className: "grave" },
  );
  row.append(button("Remove", () => row.replaceChildren(lose)));
  return row;
}

/** The browser asks again on each visit whether a page may use a folder. */
function asking(context: Context, home: Home, copies: Copies, name: string): HTMLElement {
  const text = `The working copy is in your folder ${home.root.name}.`;
  const box = make("section", { className: "empty" }, make("p", { textContent: text }));
  const attempt = (work: () => Promise<boolean>) => async () => {
    try {
      if (await work()) context.refresh();
    } catch (error) {
      box.append(complaint(error));
    }
  };
  const open = button(
    "Open the folder",
    attempt(() => allowed(home, true)),
    { className: "main" },
  );
  const forget = button(
    "Forget it",
    attempt(async () => {
      await copies.forget(name, home);
      return true;
    }),
  );
  box.append(make("div", { className: "row" }, open, forget));
  return box;
}

function start(context: Context, shown: Shown, copies: Copies): HTMLElement {
  const names = branchNames(shown);
  const branch = make("select", { id: "clone-branch" });
  for (const name of names) {
    branch.append(make("option", { value: name, textContent: name }));
  }
  branch.value = defaultBranch(shown)?.name ?? "";
  const shallow = make("input", { id: "clone-shallow", type: "checkbox" });
  const box = make("section", { className: "empty" });
  const empty = names.length === 0;
  const clone = (picks: boolean) => () =>
    cloning(context, shown, copies, box, {
      branch: empty ? undefined : branch.value,
      shallow: shallow.checked,
      picks,
    });
  const here = button("Clone into this browser", clone(false), { className: "main" });
  box.append(
    make("h2", { textContent: "Work on it here" }),
    make("p", {
      className: "quiet",
      textContent:
        "Edit, commit and push from this page. The copy stays in this browser when you sign out.",
    }),
  );
  if (!empty) {
    box.append(field("Branch", branch), choice("Only the latest commit, without history", shallow));
  }
  const buttons = make("div", { className: "row" }, here);
  if (Copies.picks) {
    buttons.append(button("Clone into a folder…", clone(true)));
  }
  box.append(buttons);
  return box;
}

/** Clones, and says how far it is. */
async function cloning(
  context: Context,
  shown: Shown,
  copies: Copies,
  box: HTMLElement,
  { picks, ...options }: { branch: string | undefined; shallow: boolean; picks: boolean },
): Promise<void> {
  box.querySelector(".complaint")?.remove();
  const { name } = shown.repository;
  const leaving = new AbortController();
  const { signal } = leaving;
  const bar = new Bar(() => leaving.abort(new Error("cancelled")));
  try {
    const picked = picks ? await copies.pick(name) : undefined;
    if (picks && picked === undefined) return;
    box.append(bar.element);
    const work = async () => {
      await loaded(signal);
      // Another page may have made one since this one was opened.
      if (await isThere(copies, context, name)) return;
      await whole(copies, name, picked ?? (await copies.make(name)), async ({ root }) => {
        await WorkingCopy.clone(root, context.reach, {
          repository: name,
          first: shown.refs.head.branch ?? "main",
          progress: (progress) => bar.show(progress),
          signal,
          ...options,
        });
      });
    };
    await alone(name, work, signal);
    context.refresh();
  } catch (error) {
    if (!signal.aborted) box.append(complaint(error));
  } finally {
    bar.element.remove();
  }
}

/** Whether there is a copy already, or a folder that nobody has allowed to look into. */
export async function isThere(copies: Copies, context: Context, name: string): Promise<boolean> {
  const home = await copies.find(name);
  if (home === undefined) return false;
  if (!(await allowed(home, false))) return true;
  return (await WorkingCopy.open(home.root, context.reach, name)) !== undefined;
}

/** Keeps what is made in a folder, or removes it if it is not brought to an end. */
async function whole(
  copies: Copies,
  name: string,
  home: Home,
  work: (home: Home) => Promise<void>,
): Promise<void> {
  try {
    await work(home);
    await copies.keep(name, home);
  } catch (error) {
    if (home.kind === "browser") await copies.forget(name, home).catch(() => undefined);
    throw error;
  }
}

/** How far something is, and the way out of it. */
export class Bar {
  readonly element: HTMLElement;
  readonly #text = make("span", { className: "quiet", role: "status" });
  readonly #bar = make("progress", { max: 1, "aria-label": "Progress" });

  constructor(cancel: () => void) {
    const stop = button("Cancel", cancel);
    this.#text.textContent = "Connecting…";
    this.element = make("div", { className: "progress" }, this.#text, this.#bar, stop);
  }

  show({ phase, loaded, total }: Progress): void {
    const many = total === undefined ? loaded.toLocaleString("en") : "";
    this.#text.textContent = `${phase} ${many}`.trim();
    if (total === undefined) this.#bar.removeAttribute("value");
    else this.#bar.value = loaded / total;
  }
}
