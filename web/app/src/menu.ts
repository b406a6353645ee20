import { sentence, textOf } from "./problem";
import type { RunningShell } from "./shell";
import { element } from "./view";

/** What the menu can ask for. */
export interface Doer {
  list(): Promise<RunningShell[]>;
  open(name: string, readOnly: boolean): void;
  end(shell: RunningShell): Promise<void>;
  detach(): void;
}

/** What of it is on the screen. */
export interface Shown {
  id: string;
  readOnly: boolean;
}

/** The menu of the shells that run, and of how to reach them. */
export class Menu {
  readonly via = element<HTMLSelectElement>("via");
  readonly kind = element<HTMLSelectElement>("kind");
  readonly #button = element<HTMLButtonElement>("menu-button");
  readonly #menu = element("menu");
  readonly #shells = element("shells");
  readonly #text = element("menu-text");
  readonly #list = element("shell-list");
  readonly #form = element<HTMLFormElement>("new-shell");
  readonly #name = element<HTMLInputElement>("new-name");
  readonly #leaving = element("leaving");
  readonly #closed: () => void;
  #doer: Doer | undefined;
  #shown: Shown | undefined;

  /** `closed` hears of it when somebody has closed it. */
  constructor(closed: () => void) {
    this.#closed = closed;
    this.#menu.addEventListener("beforetoggle", ({ newState }) => this.#toggling(newState));
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      const name = this.#name.value;
      this.#name.value = "";
      this.#leave(() => this.#doer?.open(name, false));
    });
    element("detach").addEventListener("click", () => this.#leave(() => this.#doer?.detach()));
  }

  /** What can be asked for; without it there are no shells to choose from. */
  set doer(doer: Doer | undefined) {
    this.#doer = doer;
    this.#shells.hidden = doer === undefined;
    this.#button.hidden = false;
  }

  /** What is on the screen, by its name. */
  show(shown: Shown | undefined, name: string): void {
    this.#shown = shown;
    this.#leaving.hidden = shown === undefined;
    const label = element("menu-name");
    label.textContent = name;
    this.#button.title = shown === undefined ? "Shells and connection" : `Shell ${name}; others`;
  }

  close(): void {
    if (this.#menu.matches(":popover-open")) this.#menu.hidePopover();
  }

  #toggling(state: string): void {
    this.#button.setAttribute("aria-expanded", String(state === "open"));
    if (state === "open") void this.#refresh();
    // Behind the browser, which gives the focus back to the button.
    else queueMicrotask(this.#closed);
  }

  #leave(then: () => void): void {
    this.close();
    then();
  }

  async #refresh(): Promise<void> {
    if (this.#doer === undefined) return;
    if (this.#list.childElementCount === 0) this.#say("Asking the node…");
    try {
      const shells = await this.#doer.list();
      this.#say(shells.length === 0 ? "None runs." : "");
      this.#list.replaceChildren(...shells.map((shell) => this.#row(shell)));
    } catch (error) {
      this.#list.replaceChildren();
      this.#say(sentence(textOf(error)));
    }
  }

  #say(text: string): void {
    this.#text.textContent = text;
    this.#text.hidden = text === "";
  }

  #row(shell: RunningShell): HTMLElement {
    const here = shell.session === this.#shown?.id;
    const row = make("li", { className: "shell" });
    if (here) row.setAttribute("aria-current", "true");
    const about = make("div", { className: "about" });
    about.append(
      make("strong", { textContent: shell.name }),
      make("small", { textContent: describe(shell) }),
    );
    row.append(about, ...this.#acts(shell, row, here));
    return row;
  }

  #acts(shell: RunningShell, row: HTMLElement, here: boolean): HTMLElement[] {
    const { name } = shell;
    const open = (readOnly: boolean) => this.#leave(() => this.#doer?.open(name, readOnly));
    const acts: HTMLElement[] = [];
    const act = (text: string, label: string, run: () => void) => {
      const button = make("button", { type: "button", textContent: text, onclick: run });
      button.setAttribute("aria-label", label);
      acts.push(button);
    };
    if (!here || this.#shown?.readOnly) act("Open", `Open ${name}`, () => open(false));
    if (!here || !this.#shown?.readOnly) act("Watch", `Watch ${name}`, () => open(true));
    act("End", `End ${name}`, () => this.#confirm(shell, row));
    return acts;
  }

  /** Asks in the row itself whether it is meant. */
  #confirm(shell: RunningShell, row: HTMLElement): void {
    const question = make("p", { textContent: `End ${shell.name} and all that runs in it?` });
    const keep = make("button", { type: "button", textContent: "Keep it" });
    const end = make("button", { type: "button", textContent: "End it", className: "grave" });
    keep.onclick = () => void this.#refresh();
    end.onclick = () => {
      end.disabled = keep.disabled = true;
      this.#end(shell).catch(() => undefined);
    };
    row.replaceChildren(question, keep, end);
    keep.focus();
  }

  async #end(shell: RunningShell): Promise<void> {
    try {
      await this.#doer?.end(shell);
      await this.#refresh();
    } catch (error) {
      this.#say(sentence(textOf(error)));
    }
  }
}

/** What it is, since when, and who looks. */
function describe({ created, viewers, command }: RunningShell): string {
  const there = viewers.filter(({ away }) => !away);
  const watching = there.filter(({ readOnly }) => readOnly).length;
  const parts = [`since ${when(created)}`];
  if (command !== undefined) parts.unshift(command);
  if (there.length > 0) parts.push(there.length === 1 ? "1 viewer" : `${there.length} viewers`);
  if (watching > 0) parts.push(`${watching} read-only`);
  return parts.join(" · ");
}

/** The time of today, or the day as well. */
function when(seconds: number): string {
  const then = new Date(seconds * 1000);
  const time = then.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  if (then.toDateString() === new Date().toDateString()) return time;
  return `${then.toLocaleDateString([], { day: "numeric", month: "short" })}, ${time}`;
}

function make<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  properties: Partial<HTMLElementTagNameMap[Tag]>,
): HTMLElementTagNameMap[Tag] {
  return Object.assign(document.createElement(tag), properties);
}
