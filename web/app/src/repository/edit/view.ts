// The working copy of a repository, on the page.
import { button, complaint, make } from "../dom";
import { choice, field } from "../list";
import type { Route } from "../route";
import { defaultBranch, type Context, type Shown } from "../view";
import { allowed, Copies, type Home } from "./copies";
import { WorkingCopy, type Progress } from "./copy";
import { desk } from "./desk";

type EditRoute = Route & { page: "edit" };

/** The working copy, or the way to one. */
export async function edit(context: Context, shown: Shown, route: EditRoute): Promise<HTMLElement> {
  const copies = new Copies(context.session.identity);
  const { name } = shown.repository;
  const home = await copies.find(name);
  if (home === undefined) return start(context, shown, copies);
  if (!(await allowed(home, false))) return asking(context, home, copies, name);
  const copy = await WorkingCopy.open(home.root, context.reach, name).catch(() => undefined);
  if (copy === undefined) {
    // What was begun and not brought to an end is of no use.
    await copies.forget(name, home).catch(() => undefined);
    return start(context, shown, copies);
  }
  return await desk(context, shown, route, { copy, copies, home });
}

/** The browser asks again on each visit whether a page may use a folder. */
function asking(context: Context, home: Home, copies: Copies, name: string): HTMLElement {
  const text = `The working copy is in your folder ${home.root.name}.`;
  const open = button(
    "Open the folder",
    async () => {
      if (await allowed(home, true)) context.refresh();
    },
    { className: "main" },
  );
  const forget = button("Forget it", async () => {
    await copies.forget(name, home);
    context.refresh();
  });
  return make(
    "section",
    { className: "empty" },
    make("p", { textContent: text }),
    make("div", { className: "row" }, open, forget),
  );
}

function start(context: Context, shown: Shown, copies: Copies): HTMLElement {
  const { refs } = shown;
  const branch = make("select", { id: "clone-branch" });
  for (const { name } of refs.branches) {
    branch.append(make("option", { value: name, textContent: name }));
  }
  branch.value = defaultBranch(shown)?.name ?? "";
  const shallow = make("input", { id: "clone-shallow", type: "checkbox" });
  const box = make("section", { className: "empty" });
  const empty = refs.branches.length === 0;
  const clone = (make: () => Promise<Home | undefined>) => () =>
    cloning(context, shown, copies, box, make, {
      branch: empty ? undefined : branch.value,
      shallow: shallow.checked,
    });
  const { name } = shown.repository;
  const here = button(
    "Clone into this browser",
    clone(() => copies.make(name)),
    {
      className: "main",
    },
  );
  box.append(
    make("h2", { textContent: "Work on it here" }),
    make("p", {
      className: "quiet",
      textContent:
        "Edit, commit and push from this page. The copy stays in this browser until you remove " +
        "it, also when you sign out.",
    }),
  );
  if (!empty) {
    box.append(field("Branch", branch), choice("Only the latest commit, without history", shallow));
  }
  const buttons = make("div", { className: "row" }, here);
  if (Copies.picks) {
    buttons.append(
      button(
        "Clone into a folder…",
        clone(() => copies.pick(name)),
      ),
    );
  }
  box.append(buttons);
  return box;
}

/** Clones, and says how far it is; what was begun is removed if it is not brought to an end. */
async function cloning(
  context: Context,
  shown: Shown,
  copies: Copies,
  box: HTMLElement,
  place: () => Promise<Home | undefined>,
  options: { branch: string | undefined; shallow: boolean },
): Promise<void> {
  box.querySelector(".complaint")?.remove();
  const { name } = shown.repository;
  const leaving = new AbortController();
  let home: Home | undefined;
  const bar = new Bar(() => leaving.abort(new Error("cancelled")));
  try {
    home = await place();
    if (home === undefined) return;
    box.append(bar.element);
    await WorkingCopy.clone(home.root, context.reach, {
      repository: name,
      first: shown.refs.head.branch ?? "main",
      progress: (progress) => bar.show(progress),
      signal: leaving.signal,
      ...options,
    });
    await copies.keep(name, home);
    context.refresh();
  } catch (error) {
    if (home?.kind === "browser") await copies.forget(name, home).catch(() => undefined);
    if (!leaving.signal.aborted) box.append(complaint(error));
  } finally {
    bar.element.remove();
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
