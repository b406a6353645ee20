import { make } from "./dom";
import { choice, field, submitting } from "./list";
import { mirroring } from "./mirror";
import type { Settings, SettingsOf } from "./model";
import { filesOf } from "./route";
import { branchNames, type Context, type Shown } from "./view";

const MEBIBYTE = 1024 * 1024;

/** What whoever administers a repository may change. */
export async function settings(context: Context, shown: Shown): Promise<HTMLElement> {
  const { repository } = shown;
  const set = await context.repositories.show(repository.name, context.signal);
  return make(
    "div",
    { className: "narrow" },
    about(context, shown, set),
    mirroring(context, repository.name, set.mirror),
    renaming(context, repository.name),
    deletion(context, repository.name),
  );
}

/** What the form has to say, with patterns as people write them. */
export type Wanted = Pick<
  SettingsOf,
  "description" | "public" | "default_branch" | "protected" | "quota" | "lfs"
>;

function about(context: Context, shown: Shown, set: SettingsOf): HTMLElement {
  const { repositories } = context;
  const { name } = shown.repository;
  const inputs = inputsOf(shown);
  const said = make("span", { className: "quiet", role: "status" });
  const form = make(
    "form",
    { className: "fields" },
    make("h2", { textContent: "About it" }),
    field("Description", inputs.description),
    shown.refs.branches.length > 0 && field("Default branch", inputs.branch),
    field("Protected branches, which are neither deleted nor rewritten", inputs.patterns),
    field("How large it may grow, in MiB", inputs.quota),
    choice("Large files may be stored beside it (Git LFS)", inputs.lfs),
    choice("Public: whoever reaches this node may read it", inputs.open),
    make(
      "div",
      { className: "row" },
      make("button", { className: "main", textContent: "Save" }),
      said,
    ),
  );
  /** What the node has, and the form had before somebody changed it. */
  let known = wantedOf(set);
  write(inputs, known);
  form.addEventListener("input", () => (said.textContent = ""));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const wanted = read(inputs);
    const changes = changesOf(known, wanted);
    void submitting(form, async () => {
      const answer = await (isNothing(changes)
        ? repositories.show(name)
        : repositories.configure(name, changes));
      // Typed meanwhile, it stays, and goes by what was sent.
      const typed = !isNothing(changesOf(wanted, read(inputs)));
      known = typed ? wanted : wantedOf(answer);
      if (!typed) write(inputs, known);
      said.textContent = "Saved.";
    });
  });
  return form;
}

type Inputs = ReturnType<typeof inputsOf>;

function inputsOf(shown: Shown) {
  const branch = make("select", { id: "set-branch" });
  for (const name of branchNames(shown)) {
    branch.append(make("option", { value: name, textContent: name }));
  }
  return {
    branch,
    description: make("input", { id: "set-description", maxLength: 1000 }),
    patterns: make("input", {
      id: "set-protected",
      placeholder: "main release/*",
      spellcheck: false,
    }),
    quota: make("input", {
      id: "set-quota",
      type: "number",
      min: "0",
      step: "any",
      placeholder: "as for all repositories of this node",
    }),
    lfs: make("input", { id: "set-lfs", type: "checkbox" }),
    open: make("input", { id: "set-public", type: "checkbox" }),
  };
}

function write(inputs: Inputs, wanted: Wanted): void {
  const { description, branch, patterns, quota, lfs, open } = inputs;
  const standard = wanted.default_branch ?? "";
  // It need not be there yet, or was made after the page.
  if (standard !== "" && ![...branch.options].some(({ value }) => value === standard)) {
    branch.append(make("option", { value: standard, textContent: standard }));
  }
  branch.value = standard;
  description.value = wanted.description;
  patterns.value = wanted.protected.join(" ");
  quota.value = wanted.quota === null ? "" : String(wanted.quota / MEBIBYTE);
  lfs.checked = wanted.lfs;
  open.checked = wanted.public;
}

function read({ description, branch, patterns, quota, lfs, open }: Inputs): Wanted {
  return {
    description: description.value,
    default_branch: branch.value === "" ? null : branch.value,
    protected: patterns.value.split(/[\s,]+/).flatMap((word) => (word === "" ? [] : short(word))),
    // None is as much as the node has for all.
    quota: Math.round(Number(quota.value) * MEBIBYTE) || null,
    lfs: lfs.checked,
    public: open.checked,
  };
}

export function wantedOf(set: SettingsOf): Wanted {
  return { ...set, protected: set.protected.map(short) };
}

/** What the node has to be told, and no more: others may have set the rest meanwhile. */
export function changesOf(known: Wanted, wanted: Wanted): Settings {
  const changes: Settings = {};
  if (wanted.description !== known.description) changes.description = wanted.description;
  if (wanted.public !== known.public) changes.public = wanted.public;
  if (wanted.lfs !== known.lfs) changes.lfs = wanted.lfs;
  if (wanted.quota !== known.quota) changes.quota = wanted.quota ?? 0;
  const branch = wanted.default_branch;
  if (branch !== null && branch !== known.default_branch) changes.default_branch = branch;
  const protect = wanted.protected.filter((pattern) => !known.protected.includes(pattern));
  if (protect.length > 0) changes.protect = protect;
  const unprotect = known.protected.filter((pattern) => !wanted.protected.includes(pattern));
  if (unprotect.length > 0) changes.unprotect = unprotect;
  return changes;
}

function isNothing(changes: Settings): boolean {
  return Object.keys(changes).length === 0;
}

/** A pattern as people write it: of branches, if it does not say of what. */
function short(pattern: string): string {
  return pattern.replace(/^refs\/heads\/(?!refs\/)/, "");
}

function renaming(context: Context, name: string): HTMLElement {
  const to = make("input", { id: "set-name", value: name, required: true, spellcheck: false });
  const form = make(
    "form",
    { className: "fields" },
    make("h2", { textContent: "Name" }),
    field("Name", to),
    make("div", { className: "row" }, make("button", { textContent: "Rename" })),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (to.value === name) return;
    void submitting(form, async () => {
      await context.repositories.rename(name, to.value);
      context.go(filesOf(to.value));
    });
  });
  return form;
}

/** Asks for the name, so that nobody does it in passing. */
function deletion(context: Context, name: string): HTMLElement {
  const typed = make("input", { id: "set-delete", autocomplete: "off", spellcheck: false });
  const press = make("button", {
    className: "grave",
    textContent: "Delete for good",
    disabled: true,
  });
  const form = make(
    "form",
    { className: "fields" },
    make("h2", { textContent: "Delete" }),
    make("p", { className: "quiet", textContent: `All of ${name} is lost: there is no way back.` }),
    field(`Type ${name} to delete it`, typed),
    make("div", { className: "row" }, press),
  );
  typed.addEventListener("input", () => (press.disabled = typed.value !== name));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (typed.value !== name) return;
    void submitting(form, async () => {
      await context.repositories.remove(name);
      context.go({ page: "list" });
    });
  });
  return form;
}
