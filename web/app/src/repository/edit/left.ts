// A working copy whose repository is called something else now, is gone, or is out of sight.
import { button, complaint, make } from "../dom";
import { field } from "../list";
import { hashOf } from "../route";
import type { Context } from "../view";
import { allowed, Copies, type Home } from "./copies";
import { alone, WorkingCopy } from "./copy";
import { isThere, removal } from "./view";

/** The way out for what was committed to it; undefined if there is no copy. */
export async function left(context: Context, name: string): Promise<HTMLElement | undefined> {
  const copies = new Copies(context.session.identity);
  const home = await copies.find(name);
  if (home === undefined) return undefined;
  const { repositories } = await context.repositories.list(context.signal);
  const others = repositories.filter(({ rights }) => rights.push);
  const select = make("select", { id: "left-for" });
  for (const { name } of others) select.append(make("option", { value: name, textContent: name }));
  const box = make(
    "section",
    { className: "empty" },
    make("h1", { textContent: "There is no such repository", tabIndex: -1 }),
    make("p", {
      textContent:
        `There is no repository ${name}, or it is not yours to see any more. Its working copy is ` +
        "still here, with what was committed to it.",
    }),
  );
  const take = button(
    "It is this one now",
    async () => {
      try {
        await taken(context, copies, name, select.value, home);
        context.go({ page: "edit", repository: select.value, path: "" });
      } catch (error) {
        box.append(complaint(error));
      }
    },
    { className: "main" },
  );
  if (others.length > 0) {
    box.append(
      field("A repository to push it to", select),
      make("div", { className: "row" }, take),
    );
  }
  box.append(removal(context, home, copies, name));
  return make("div", { className: "page" }, box);
}

/** Has the copy be one of another repository, unless that has one. */
async function taken(
  context: Context,
  copies: Copies,
  name: string,
  to: string,
  home: Home,
): Promise<void> {
  const work = async () => {
    if (await isThere(copies, context, to)) throw new Error(`there is a working copy of ${to}`);
    if (!(await allowed(home, true))) throw new Error("the folder may not be used");
    const copy = await WorkingCopy.open(home.root, context.reach, name);
    if (copy === undefined) throw new Error("the working copy was never whole");
    await copy.lead(to);
    await copies.move(name, to, home);
  };
  await alone(name, () => alone(to, work));
}

/** Links to working copies of what is not among these repositories. */
export async function leftover(context: Context, known: Set<string>): Promise<HTMLElement[]> {
  const names = await new Copies(context.session.identity).names();
  const others = names.filter((name) => !known.has(name));
  if (others.length === 0) return [];
  const links = others.map((repository) =>
    make(
      "li",
      {},
      make("a", { href: hashOf({ page: "edit", repository, path: "" }), textContent: repository }),
    ),
  );
  return [
    make("h2", { className: "of", textContent: "Working copies without a repository" }),
    make("ul", { className: "entries", "aria-label": "Working copies" }, ...links),
  ];
}
