// A working copy that there is: its files, an editor, what has changed, and the way to the node.
import type { Bytes } from "../../bytes";
import { sentence, textOf } from "../../problem";
import { amount } from "../../view";
import { button, complaint, count, icon, make } from "../dom";
import { carried } from "../marks";
import { hashOf, split, type Route } from "../route";
import type { Context, Shown } from "../view";
import { Copies, type Home } from "./copies";
import { alone, type Changed, type Position, type WorkingCopy } from "./copy";
import { editor, type Editor } from "./editor";
import { BehindError, conflicts } from "./errors";
import { CommitForm } from "./message";
import { Bar } from "./view";
import "../files.css";
import "./desk.css";

type EditRoute = Route & { page: "edit" };

/** A working copy and where it is. */
export interface Held {
  copy: WorkingCopy;
  copies: Copies;
  home: Home;
}

export async function desk(
  context: Context,
  shown: Shown,
  route: EditRoute,
  held: Held,
): Promise<HTMLElement> {
  const made = new Desk(context, shown, route, held);
  await made.fill();
  if (held.home.kind === "browser" && !(await Copies.areKept())) {
    const text = "This browser may remove the copy when it runs out of room: push what is to last.";
    made.element.append(make("p", { className: "quiet", textContent: text }));
  }
  return made.element;
}

class Desk {
  readonly element = make("div", { className: "desk" });
  readonly #context: Context;
  readonly #shown: Shown;
  readonly #route: EditRoute;
  readonly #held: Held;
  readonly #bar = make("div", { className: "row deskbar" });
  readonly #said = make("div", { className: "said", role: "status" });
  readonly #main = make("div", { className: "content" });
  readonly #side = make("aside", { "aria-label": "Changes" });
  readonly #commit: CommitForm;
  #changed: Changed[] = [];
  /** Files that somebody has taken out of the next commit. */
  readonly #left = new Set<string>();
  #looks = 0;
  /** What the editor holds and the file does not. */
  #unsaved: () => boolean = () => false;

  constructor(context: Context, shown: Shown, route: EditRoute, held: Held) {
    this.#context = context;
    this.#shown = shown;
    this.#route = route;
    this.#held = held;
    this.#commit = new CommitForm(context, route.repository, (push) => this.#commitAll(push));
    context.guard(() => this.#unsaved());
    const columns = make("div", { className: "columns" }, this.#main, this.#side);
    this.#side.append(make("p", { className: "quiet", textContent: "Looking for changes…" }));
    this.element.append(this.#bar, this.#said, columns);
  }

  /** Shows the files. What has changed among many takes a while, and follows. */
  async fill(): Promise<void> {
    await this.#open();
    this.#lookLater();
  }

  #lookLater(): void {
    this.#look().catch((error: unknown) => this.#said.replaceChildren(complaint(error)));
  }

  /** What has changed, and how far the copy is from the node. */
  async #look(): Promise<void> {
    const { copy } = this.#held;
    const look = ++this.#looks;
    const [branch, branches, position, changed] = await Promise.all([
      copy.branch(),
      copy.branches(),
      copy.position(),
      copy.status(),
    ]);
    // Somebody else has looked later.
    if (look !== this.#looks) return;
    this.#changed = changed;
    this.#head(branch, branches, position);
    this.#changes();
  }

  #head(branch: string, branches: string[], position: Position): void {
    const { home } = this.#held;
    const where = home.kind === "browser" ? "in this browser" : `in the folder ${home.root.name}`;
    const select = make("select", { "aria-label": "Branch" });
    for (const name of new Set([branch, ...branches])) {
      select.append(make("option", { value: name, textContent: name }));
    }
    select.value = branch;
    select.addEventListener("change", () => void this.#go(select.value, branch, select));
    const push = button("Push", () => this.#push(), {
      className: position.ahead > 0 ? "main" : "",
    });
    push.hidden = !this.#shown.repository.rights.push;
    this.#bar.replaceChildren(
      select,
      make("span", { className: "quiet grow", textContent: `${words(position)} · ${where}` }),
      make(
        "div",
        { className: "row" },
        button("Pull", () => this.#pull()),
        push,
        button("Remove", () => this.#confirmRemoval()),
      ),
    );
  }

  #changes(): void {
    const changed = this.#changed;
    const title = make("h2", { className: "of", textContent: "Changes" });
    if (changed.length === 0) {
      const none = make("p", { className: "quiet", textContent: "Nothing has changed here." });
      return this.#side.replaceChildren(title, none);
    }
    const list = make("ul", { className: "changed" }, ...changed.map((it) => this.#row(it)));
    const all = button("Discard all", () => this.#confirmDiscarding());
    const several = changed.length > 1 ? [make("div", { className: "row" }, all)] : [];
    this.#side.replaceChildren(title, list, ...several, this.#commit.element);
  }

  #row(change: Changed): HTMLElement {
    const { path, how } = change;
    const checked = !this.#left.has(path);
    const tick = make("input", { type: "checkbox", checked, "aria-label": `Commit ${path}` });
    tick.dataset["path"] = path;
    tick.addEventListener("change", () => {
      if (tick.checked) this.#left.delete(path);
      else this.#left.add(path);
    });
    const href = hashOf({ ...this.#route, path });
    const discard = button("Discard", () => this.#ask(row, change), {
      "aria-label": `Discard the changes of ${path}`,
    });
    const row = make(
      "li",
      {},
      tick,
      make("a", { href, textContent: path }),
      make("span", { className: `badge ${how}`, textContent: how }),
      discard,
    );
    return row;
  }

  /** Asks in the row itself whether it is meant. */
  #ask(row: HTMLElement, change: Changed): void {
    const question = make("span", {
      className: "grow",
      textContent: `Lose what is in ${change.path}?`,
    });
    const keep = button("Keep", () => this.#changes());
    const lose = button(
      "Discard",
      () =>
        this.#attempt(async () => {
          await this.#held.copy.discard(change);
          if (this.#route.path === change.path) this.#unsaved = () => false;
          await this.#open();
          await this.#look();
        }),
      { className: "grave" },
    );
    row.replaceChildren(question, keep, lose);
    keep.focus();
  }

  /** Shows what the path leads to, but nothing in place of what is edited and not saved. */
  async #open(): Promise<void> {
    const { copy } = this.#held;
    const { path } = this.#route;
    const entries = await copy.list(path);
    const isFolder = entries !== undefined && (path === "" || entries.length > 0);
    const content = isFolder ? undefined : await copy.read(path);
    // From here on nothing waits, so that nobody writes meanwhile.
    if (this.#unsaved()) return;
    if (isFolder) {
      this.#unsaved = () => false;
      this.#main.replaceChildren(this.#crumbs(), this.#folder(entries), this.#newFile());
    } else {
      const edited = this.#editor(content);
      this.#unsaved = edited.unsaved;
      this.#main.replaceChildren(this.#crumbs(), edited.element);
    }
  }

  #editor(content: Bytes | undefined): Editor {
    const { copy } = this.#held;
    const { path } = this.#route;
    return editor(path, content, {
      save: async (bytes, known) => {
        await copy.write(path, bytes, known);
        await this.#look();
      },
      remove: async () => {
        await copy.remove(path);
        this.#unsaved = () => false;
        const folder = split(path).slice(0, -1).join("/");
        this.#context.go({ ...this.#route, path: folder });
      },
    });
  }

  #crumbs(): HTMLElement {
    const words = split(this.#route.path);
    const path = make("nav", { className: "crumbs", "aria-label": "Path" });
    const link = (textContent: string, to: string) =>
      make("a", { href: hashOf({ ...this.#route, path: to }), textContent });
    path.append(link("Working copy", ""));
    words.forEach((word, at) => {
      path.append(
        make("span", { textContent: "/" }),
        at === words.length - 1
          ? make("strong", { textContent: word, "aria-current": "page" })
          : link(word, words.slice(0, at + 1).join("/")),
      );
    });
    return path;
  }

  #folder(entries: { name: string; folder: boolean; size: number }[]): HTMLElement {
    const { path } = this.#route;
    const sorted = entries.toSorted(
      (one, other) => Number(other.folder) - Number(one.folder) || (one.name < other.name ? -1 : 1),
    );
    const rows = sorted.map(({ name, folder, size }) => {
      const to = [...split(path), name].join("/");
      return make(
        "li",
        {},
        icon(folder ? "folder" : "file"),
        make("a", { href: hashOf({ ...this.#route, path: to }), textContent: name }),
        make("span", { className: "quiet size", textContent: folder ? "" : amount(size) }),
      );
    });
    return make("ul", { className: "entries", "aria-label": "Files" }, ...rows);
  }

  #newFile(): HTMLElement {
    const { path } = this.#route;
    const name = make("input", {
      placeholder: "name of a new file",
      "aria-label": "Name of a new file",
      required: true,
      spellcheck: false,
      autocomplete: "off",
    });
    const form = make(
      "form",
      { className: "row" },
      name,
      make("button", { textContent: "New file" }),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const to = [...split(path), ...split(name.value)].join("/");
      this.#context.go({ ...this.#route, path: to });
    });
    return form;
  }

  async #commitAll(push: boolean): Promise<void> {
    const { copy } = this.#held;
    const ticked = new Set(
      [...this.#side.querySelectorAll<HTMLInputElement>("input[data-path]:checked")].map(
        ({ dataset }) => dataset["path"],
      ),
    );
    const chosen = this.#changed.filter(({ path }) => ticked.has(path));
    if (chosen.length === 0) throw new Error("nothing is chosen to be committed");
    if (this.#unsaved()) throw new Error("save the file that is being edited first");
    const id = await copy.commit(chosen, this.#commit.message, this.#commit.author);
    this.#commit.taken();
    await this.#look();
    this.#say(`Committed ${count(chosen.length, "file")} as ${id.slice(0, 8)}.`);
    if (push) await this.#push();
  }

  async #push(as?: string): Promise<void> {
    await this.#online(async (signal, bar) => {
      await this.#held.copy.push(signal, (progress) => bar.show(progress), as);
      this.#say(as === undefined ? "Pushed." : `Pushed as ${as}.`);
    });
  }

  async #pull(): Promise<void> {
    if (this.#unsaved()) return this.#say("Save the file that is being edited first.");
    const done = await this.#online(async (signal, bar) => {
      const { copy } = this.#held;
      await copy.pull(signal, (progress) => bar.show(progress), this.#commit.author);
    });
    if (!done) return;
    await this.#open();
    this.#say("Up to date with the node.");
  }

  async #go(branch: string, before: string, select: HTMLSelectElement): Promise<void> {
    if (this.#changed.length > 0 || this.#unsaved()) {
      select.value = before;
      return this.#say("Commit or discard the changes first.");
    }
    await this.#attempt(async () => {
      try {
        await this.#held.copy.change(branch);
        await this.#open();
      } finally {
        // Also of what was cut off it shows where it is now.
        this.#lookLater();
      }
    });
  }

  /** Discards what there is then, which may be more than was seen. */
  async #confirmDiscarding(): Promise<void> {
    await this.#attempt(async () => {
      await this.#look();
      const many = count(this.#changed.length, "file");
      const text = `Lose what has changed in ${many} since the last commit? New files are removed.`;
      this.#question(text, "Discard them", async () => {
        await this.#held.copy.discardAll();
        await this.#open();
        await this.#look();
      });
    });
  }

  #confirmRemoval(): void {
    const { home, copies } = this.#held;
    const browser = home.kind === "browser";
    const text = browser
      ? "Remove the copy from this browser? What was not pushed is lost."
      : "Forget the folder? Its files stay where they are.";
    this.#question(text, browser ? "Remove it" : "Forget it", async () => {
      const { name } = this.#shown.repository;
      await alone(name, () => copies.forget(name, home));
      this.#unsaved = () => false;
      this.#context.go({ ...this.#route, path: "" });
    });
  }

  #confirmReset(): void {
    const text =
      "Have the branch as the node has it? Commits that were not pushed, and changes that were " +
      "not committed, are lost.";
    this.#question(text, "Drop mine", async () => {
      await this.#held.copy.reset();
      this.#unsaved = () => false;
      await this.fill();
    });
  }

  /** Asks whether it is meant. */
  #question(text: string, label: string, work: () => Promise<void>): void {
    const keep = button("Keep it", () => this.#said.replaceChildren());
    const run = button(label, () => this.#attempt(work), { className: "grave" });
    this.#said.replaceChildren(make("div", { className: "row ask" }, text, keep, run));
    keep.focus();
  }

  /** Does something with the node, and explains what to do when it does not work. */
  async #online(work: (signal: AbortSignal, bar: Bar) => Promise<void>): Promise<boolean> {
    const leaving = new AbortController();
    const bar = new Bar(() => leaving.abort(new Error("cancelled")));
    this.#said.replaceChildren(bar.element);
    try {
      await work(leaving.signal, bar);
      return true;
    } catch (error) {
      if (leaving.signal.aborted) this.#say("Cancelled.");
      else this.#explain(error);
      return false;
    } finally {
      await this.#look().catch(() => undefined);
    }
  }

  #explain(error: unknown): void {
    const both = conflicts(error);
    if (error instanceof BehindError) {
      const text =
        "The branch has moved on at the node. Pull, which merges what came meanwhile, and push again.";
      return this.#offer(
        text,
        button("Pull", () => this.#pull(), { className: "main" }),
      );
    }
    if (both === undefined) return this.#said.replaceChildren(complaint(error));
    const what =
      both.length > 0
        ? `Here and at the node the same lines have changed: ${both.join(", ")}.`
        : "What is here and what is at the node cannot be merged in this page.";
    this.#offer(
      `${what} Nothing was merged. ` +
        "Push yours under another name, and merge it with a git that has an editor for that.",
      this.#elsewhere(),
      button("Drop mine", () => this.#confirmReset()),
    );
  }

  /** The way out of a conflict: a branch of one's own. */
  #elsewhere(): HTMLElement {
    const day = new Date().toISOString().slice(0, 10);
    const name = make("input", {
      value: `${this.#commit.author.name.toLowerCase().replace(/[^a-z0-9]+/g, "-")}-${day}`,
      "aria-label": "Name of the branch",
      required: true,
      spellcheck: false,
    });
    const form = make(
      "form",
      { className: "row" },
      name,
      make("button", { textContent: "Push as a branch" }),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#push(name.value);
    });
    return form;
  }

  #offer(text: string, ...acts: HTMLElement[]): void {
    const said = make("p", { className: "complaint", textContent: text });
    this.#said.replaceChildren(make("div", { className: "offer", role: "alert" }, said, ...acts));
  }

  async #attempt(work: () => Promise<void>): Promise<void> {
    try {
      this.#said.replaceChildren();
      await work();
    } catch (error) {
      this.#say(sentence(textOf(error)));
    }
  }

  #say(text: string): void {
    this.#said.textContent = carried(text);
  }
}

function words({ ahead, behind, more }: Position): string {
  const about = (number: number) => `${number}${more && number > 0 ? " or more" : ""}`;
  const parts = [];
  if (ahead > 0) parts.push(`${about(ahead)} to push`);
  if (behind > 0) parts.push(`${about(behind)} to pull`);
  return parts.length > 0 ? parts.join(", ") : "as it was at the node";
}
