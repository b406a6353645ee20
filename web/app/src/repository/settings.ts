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

function about(context: Context, shown: Shown, set: SettingsOf): HTMLElement {
  const { repository, refs } = shown;
  let protection = set.protected;
  const description = make("input", {
    id: "set-description",
    value: repository.description,
    maxLength: 1000,
  });
  const branch = make("select", { id: "set-branch" });
  for (const name of branchNames(shown)) {
    branch.append(make("option", { value: name, textContent: name }));
  }
  const standard = refs.head.branch ?? "";
  branch.value = standard;
  const open = make("input", { id: "set-public", type: "checkbox", checked: repository.public });
  const patterns = make("input", {
    id: "set-protected",
    value: protection.map(short).join(" "),
    placeholder: "main release/*",
    spellcheck: false,
  });
  const sizeOf = ({ quota }: SettingsOf) => (quota === null ? "" : String(quota / MEBIBYTE));
  const quota = make("input", {
    id: "set-quota",
    type: "number",
    min: "0",
    step: "any",
    value: sizeOf(set),
    placeholder: "as for all repositories of this node",
  });
  const lfs = make("input", { id: "set-lfs", type: "checkbox", checked: set.lfs });
  const said = make("span", { className: "quiet", role: "status" });
  const form = make(
    "form",
    { className: "fields" },
    make("h2", { textContent: "About it" }),
    field("Description", description),
    refs.branches.length > 0 && field("Default branch", branch),
    field("Protected branches, which are neither deleted nor rewritten", patterns),
    field("How large it may grow, in MiB", quota),
    choice("Large files may be stored beside it (Git LFS)", lfs),
    choice("Public: whoever reaches this node may read it", open),
    make(
      "div",
      { className: "row" },
      make("button", { className: "main", textContent: "Save" }),
      said,
    ),
  );
  form.addEventListener("input", () => (said.textContent = ""));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const changed: Settings = { description: description.value, public: open.checked };
    if (branch.value !== "" && branch.value !== standard) changed.default_branch = branch.value;
    if (quota.value !== sizeOf(set)) changed.quota = Math.round(Number(quota.value) * MEBIBYTE);
    if (lfs.checked !== set.lfs) changed.lfs = lfs.checked;
    const wanted = patterns.value.split(/[\s,]+/).filter((word) => word !== "");
    const known = protection.map(short);
    changed.protect = wanted.filter((word) => !known.includes(word));
    changed.unprotect = protection.filter((pattern) => !wanted.includes(short(pattern)));
    void submitting(form, async () => {
      await context.repositories.configure(repository.name, changed);
      set = await context.repositories.show(repository.name);
      protection = set.protected;
      said.textContent = "Saved.";
    });
  });
  return form;
}

/** A pattern as people write it: of branches, if it does not say of what. */
function short(pattern: string): string {
  return pattern.replace(/^refs\/heads\//, "");
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
