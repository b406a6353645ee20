import { repositoryUrl } from "@alknet/client";
import { button, complaint, copy, make, save } from "./dom";
import { filesOf, hashOf, shortRev, type Route } from "./route";
import { branchNames, defaultBranch, revOf, type Context, type Shown } from "./view";

/** What stands above every part of a repository: its name, its parts, and how to clone it. */
export function head(context: Context, shown: Shown, route: Route): HTMLElement {
  const { repository } = shown;
  const { name, description, rights } = repository;
  const tab = (label: string, to: Route, pages: Route["page"][]) => {
    const link = make("a", { href: hashOf(to), textContent: label });
    if (pages.includes(route.page)) link.setAttribute("aria-current", "page");
    return link;
  };
  const history: Route = { page: "history", repository: name, path: "", skip: 0 };
  const title = make(
    "h1",
    { tabIndex: -1 },
    make("a", { className: "up", href: hashOf({ page: "list" }), textContent: "Repositories" }),
    make("span", { className: "slash", textContent: "/", "aria-hidden": "true" }),
    make("a", { href: hashOf(filesOf(name)), textContent: name }),
    make("span", { className: "badge", textContent: repository.public ? "public" : "private" }),
  );
  return make(
    "div",
    { className: "head" },
    make("div", { className: "row" }, title, cloning(context, shown, route)),
    description !== "" && make("p", { className: "quiet", textContent: description }),
    make(
      "nav",
      { className: "tabs", "aria-label": "Parts of the repository" },
      tab("Files", filesOf(name), ["files"]),
      tab("History", history, ["history", "commit"]),
      tab("Working copy", { page: "edit", repository: name, path: "" }, ["edit"]),
      rights.admin && tab("Settings", { page: "settings", repository: name }, ["settings"]),
    ),
  );
}

/** A way to address a repository, and what it takes. */
interface Way {
  label: string;
  line: string;
  note: string;
}

/** How a repository is cloned, by every way in. */
export function ways(name: string): [Way, ...Way[]] {
  const { hostname, port } = location;
  const address = `${hostname}:${port === "" ? 443 : port}`;
  const proxy = `ssh -o ProxyCommand="alknet dial ${address} ssh"`;
  return [
    {
      label: "alknet",
      line: `git clone alknet://${address}/${name}`,
      note: "Checks the node's key. Once before: alknet git install-helper",
    },
    {
      label: "SSH",
      line: `git -c core.sshCommand='${proxy}' clone git@${hostname}:${name}`,
      note: "A host entry in ~/.ssh/config makes the line short.",
    },
    {
      label: "HTTPS",
      line: `git clone ${repositoryUrl(name)}`,
      note: "The password is a token: alknet token create --scope git",
    },
  ];
}

function cloning(context: Context, shown: Shown, route: Route): HTMLElement {
  const { name } = shown.repository;
  const popover = make("div", { id: "clone", className: "menu clone", popover: "auto" });
  popover.setAttribute("role", "dialog");
  popover.setAttribute("aria-label", "Clone");
  for (const { label, line, note } of ways(name)) {
    const pressed = button("Copy", () => copy(line, pressed));
    pressed.setAttribute("aria-label", `Copy the line for ${label}`);
    popover.append(
      make(
        "section",
        {},
        make("h2", { textContent: label }),
        make("div", { className: "copyable" }, make("code", { textContent: line }), pressed),
        make("p", { textContent: note }),
      ),
    );
  }
  if (shown.refs.branches.length > 0) popover.append(archives(context, shown, route));
  const opener = make("button", { type: "button", className: "main", textContent: "Clone" });
  opener.popoverTargetElement = popover;
  opener.setAttribute("aria-haspopup", "dialog");
  popover.addEventListener("beforetoggle", () => {
    const { bottom, right } = opener.getBoundingClientRect();
    popover.style.top = `${bottom + 8}px`;
    popover.style.right = `${document.documentElement.clientWidth - right}px`;
  });
  return make("div", {}, opener, popover);
}

/** The files of a revision, in one file. */
function archives({ repositories }: Context, shown: Shown, route: Route): HTMLElement {
  const rev = revOf(shown, "rev" in route ? route.rev : undefined);
  const place = { repository: shown.repository.name, rev };
  const row = make("div", { className: "row" });
  const said = make("p", { role: "status" });
  for (const format of ["zip", "tar.gz"] as const) {
    const load = async () => {
      try {
        const { parts, name } = await repositories.archive(place, format);
        save(parts, name);
      } catch (error) {
        said.replaceChildren(complaint(error));
      }
    };
    row.append(button(`.${format}`, load, { "aria-label": `Download as ${format}` }));
  }
  const title = make("h2", { textContent: `Files of ${shortRev(rev)}` });
  return make("section", {}, title, row, said);
}

/** The choice of a branch or a tag; `to` is where one leads. */
export function revisions(
  context: Context,
  shown: Shown,
  rev: string | undefined,
  to: (rev: string | undefined) => Route,
): HTMLElement {
  const { tags } = shown.refs;
  const branches = branchNames(shown);
  const standard = defaultBranch(shown);
  const select = make("select", { className: "revisions", "aria-label": "Branch or tag" });
  const option = (value: string, text: string) => make("option", { value, textContent: text });
  const of = (kind: "heads" | "tags", names: string[]) =>
    names.map((name) => option(`refs/${kind}/${name}`, name));
  if (branches.length > 0) {
    select.append(make("optgroup", { label: "Branches" }, ...of("heads", branches)));
  }
  const known = tags.filter(({ lossy }) => !lossy).map(({ name }) => name);
  if (known.length > 0) select.append(make("optgroup", { label: "Tags" }, ...of("tags", known)));
  const current = rev ?? (standard && `refs/heads/${standard.name}`);
  if (current !== undefined) {
    if (![...select.options].some(({ value }) => value === current)) {
      select.prepend(option(current, shortRev(current)));
    }
    select.value = current;
  }
  select.addEventListener("change", () => {
    const usual = standard !== undefined && select.value === `refs/heads/${standard.name}`;
    context.go(to(usual ? undefined : select.value));
  });
  return select;
}
