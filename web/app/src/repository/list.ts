import { covers } from "../api";
import { amount } from "../view";
import { ago, complaint, make } from "./dom";
import { ways } from "./head";
import type { Repository } from "./model";
import { filesOf, hashOf } from "./route";
import type { Context } from "./view";

/** The repositories that there are to be seen. */
export async function list(context: Context): Promise<HTMLElement> {
  const { repositories, truncated } = await context.repositories.list(context.signal);
  const create = mayCreate(context);
  const head = make(
    "div",
    { className: "row" },
    make("h1", { textContent: "Repositories", tabIndex: -1 }),
    create && make("a", { className: "button", href: hashOf({ page: "new" }), textContent: "New" }),
  );
  if (repositories.length > 0) {
    const known = new Set(repositories.map(({ name }) => name));
    const left = truncated ? [] : await copiesLeft(context, known);
    const cards = make("ul", { className: "cards" }, ...repositories.map(row));
    const rest = "There are more, which are found by their addresses.";
    return make(
      "div",
      { className: "page" },
      head,
      cards,
      truncated && make("p", { className: "quiet", textContent: rest }),
      ...left,
    );
  }
  const how = create
    ? "Make one here, or push to a name that is not taken yet."
    : "There is none that this sign-in may see.";
  const text = make("p", { className: "quiet", textContent: how });
  const left = await copiesLeft(context, new Set());
  return make("div", { className: "page" }, head, text, create && pushing(), ...left);
}

/** Working copies that nobody finds by their repositories; none where that cannot be said. */
async function copiesLeft(context: Context, known: Set<string>): Promise<HTMLElement[]> {
  try {
    return await (await import("./edit/left")).leftover(context, known);
  } catch {
    return [];
  }
}

/** How the first push makes a repository. */
function pushing(): HTMLElement {
  const [{ line }] = ways("notes");
  const url = line.replace("git clone ", "");
  return make("pre", {
    className: "lines",
    textContent: `git remote add origin ${url}\ngit push -u origin main`,
  });
}

function row(repository: Repository): HTMLElement {
  const { name, description, empty, size, updated } = repository;
  const link = make("a", { href: hashOf(filesOf(name)), textContent: name });
  const facts = make("p", { className: "facts" });
  facts.append(repository.public ? "Public" : "Private", ` · ${empty ? "empty" : amount(size)}`);
  if (updated !== null) facts.append(" · changed ", ago(updated));
  return make(
    "li",
    {},
    make("h2", {}, link),
    description !== "" && make("p", { textContent: description }),
    facts,
  );
}

/** Whether there is some name that a new repository may have. */
export function mayCreate({ session }: Context): boolean {
  return covers(session.scopes, "git") && session.scopes.some(creates);
}

function creates(scope: string): boolean {
  const [service, action] = scope.split(":");
  return service === "*" || action === undefined || action === "*" || action === "create";
}

/** The form for a new one. */
export function creation(context: Context): HTMLElement {
  const name = make("input", {
    id: "repository-name",
    required: true,
    maxLength: 200,
    pattern: "[a-z0-9_][a-z0-9._\\-]*(/[a-z0-9_][a-z0-9._\\-]*){0,5}",
    title: "lower-case letters, digits, '.', '_' and '-', with slashes between words",
    placeholder: "team/notes",
    autocomplete: "off",
    spellcheck: false,
    autocapitalize: "none",
  });
  const description = make("input", { id: "repository-description", maxLength: 200 });
  const branch = make("input", { id: "repository-branch", placeholder: "main", maxLength: 200 });
  const open = make("input", { id: "repository-public", type: "checkbox" });
  const form = make(
    "form",
    { className: "fields" },
    field("Name", name),
    field("Description", description),
    field("Default branch", branch),
    choice("Public: whoever reaches this node may read it", open),
    make("div", { className: "row" }, make("button", { className: "main", textContent: "Create" })),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    void submitting(form, async () => {
      await context.repositories.create(name.value, {
        ...(description.value === "" ? {} : { description: description.value }),
        ...(branch.value === "" ? {} : { default_branch: branch.value }),
        public: open.checked,
      });
      context.go(filesOf(name.value));
    });
  });
  const title = make("h1", { textContent: "New repository", tabIndex: -1 });
  return make("div", { className: "page narrow" }, title, form);
}

/** Runs what a form is for, with its button out of reach, and says below what went wrong. */
export async function submitting(form: HTMLFormElement, run: () => Promise<void>): Promise<void> {
  const buttons = [...form.querySelectorAll("button")];
  form.querySelector(".complaint")?.remove();
  buttons.forEach((it) => (it.disabled = true));
  try {
    await run();
  } catch (error) {
    form.append(complaint(error));
  } finally {
    buttons.forEach((it) => (it.disabled = false));
  }
}

/** An input with its label above. */
export function field(label: string, input: HTMLElement): HTMLElement {
  return make("div", { className: "field" }, make("label", { htmlFor: input.id }, label), input);
}

/** A box with its label behind. */
export function choice(label: string, input: HTMLElement): HTMLElement {
  return make("div", { className: "tick" }, input, make("label", { htmlFor: input.id }, label));
}
