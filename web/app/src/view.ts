import { shortId, type NodeId } from "./node";
import { Problem, SignedOut, textOf } from "./problem";

/** What a person can do about it. */
export interface Action {
  label: string;
  run: () => void;
  /** Not to be done in passing: the Enter key alone does not do it. */
  grave?: boolean;
}

export interface Panel {
  title: string;
  text: string;
  detail?: string | undefined;
  bad?: boolean;
  action?: Action;
}

/** The page around the terminal: the bar on top and the card in the middle. */
export class View {
  readonly terminal = element("terminal");
  readonly repositories = element("repositories");
  readonly signOut = element<HTMLButtonElement>("sign-out");
  readonly #status = element("status");
  readonly #traffic = element<HTMLOutputElement>("traffic");
  readonly #panel = element("panel");
  #received = 0;
  #sent = 0;
  #drawing = false;
  #act: (() => void) | undefined;

  constructor() {
    element("panel-action").addEventListener("click", () => this.#act?.());
  }

  status(text: string, kind: "busy" | "idle" | "live" | "away" | "bad" = "busy"): void {
    this.#status.textContent = text;
    this.#status.title = text;
    this.#status.dataset["kind"] = kind;
  }

  node(node: NodeId, name: string): void {
    element("node-name").textContent = name;
    const id = element("node-id");
    id.textContent = shortId(node);
    id.title = node;
    element("node").hidden = false;
  }

  /** Shows a card over the terminal, its button ready for the Enter key unless it is grave. */
  panel({ title, text, detail, bad, action }: Panel): void {
    element("panel-title").textContent = title;
    element("panel-text").textContent = text;
    const pre = element("panel-detail");
    pre.textContent = detail ?? "";
    pre.hidden = detail === undefined;
    this.#panel.dataset["kind"] = bad ? "bad" : "plain";
    this.#act = action?.run;
    const button = element("panel-action");
    button.textContent = action?.label ?? "";
    button.hidden = action === undefined;
    this.#panel.hidden = false;
    button.dataset["kind"] = action?.grave ? "grave" : "plain";
    if (action !== undefined && !action.grave) button.focus();
  }

  problem(error: unknown, action: Action): void {
    const known = error instanceof Problem;
    const title = known ? error.title : "That did not work";
    const bad = !(error instanceof SignedOut);
    this.status(title, bad ? "bad" : "idle");
    const detail = known ? error.detail : undefined;
    this.panel({ title, text: textOf(error), detail, bad, action });
  }

  /** The places that there are to go to, once that is known. */
  set places(several: boolean) {
    element("places").hidden = !several;
  }

  /** Goes to the terminal or to the repositories. */
  set place(place: "terminal" | "repositories") {
    const terminal = place === "terminal";
    for (const name of ["terminal", "repositories"]) {
      const link = element(`to-${name}`);
      if (name === place) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    // What lies behind something else is not reached by the keyboard either.
    this.terminal.inert = !terminal;
    if (terminal) this.repositories.hidden = true;
  }

  hidePanel(): void {
    this.#panel.hidden = true;
  }

  /** Counts bytes of the terminal's session. */
  count(received: number, sent: number): void {
    this.#received += received;
    this.#sent += sent;
    if (this.#drawing) return;
    this.#drawing = true;
    requestAnimationFrame(() => this.#drawTraffic());
  }

  resetCount(): void {
    this.#received = this.#sent = 0;
    this.count(0, 0);
  }

  #drawTraffic(): void {
    this.#drawing = false;
    this.#traffic.hidden = false;
    this.#traffic.textContent = `↓ ${amount(this.#received)}  ↑ ${amount(this.#sent)}`;
    this.#traffic.dataset["received"] = String(this.#received);
  }
}

/** An element that the page has. */
export function element<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no #${id}`);
  return found as T;
}

/** Bytes in a unit that keeps the number short. */
export function amount(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  const units = ["kB", "MB", "GB", "TB"];
  let value = bytes / 1000;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${value < 9.95 ? value.toFixed(1) : value.toFixed(0)} ${units[unit]}`;
}
