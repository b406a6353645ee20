import { CALL, CallError, Client, dialSoon } from "@alknet/client";
import type { Session } from "../api";
import { Problem, textOf } from "../problem";
import type { Reach } from "../shell";
import { button, make } from "./dom";
import { head } from "./head";
import { creation, list } from "./list";
import { Missing, Repositories, type GitEvent } from "./model";
import "./repository.css";
import { filesOf, hashOf, parseRoute, type Route } from "./route";
import type { Context, Shown } from "./view";

/** How long something may take before the page says that it does. */
const SOON_MS = 200;
/** How long to wait before listening again. */
const PAUSE_MS = 5_000;

/** The repositories of the node, in their part of the page. */
export class Pane {
  readonly #element: HTMLElement;
  readonly #session: Session;
  readonly #reach: Reach;
  readonly #client: Client;
  readonly #repositories: Repositories;
  readonly #leaving = new AbortController();
  #showing = new AbortController();
  #shown: Route | undefined;
  /** What has to be left in good order before something else is shown. */
  #unsaved: (() => boolean) | undefined;

  constructor(element: HTMLElement, session: Session, reach: Reach) {
    this.#element = element;
    this.#session = session;
    this.#reach = reach;
    this.#client = new Client(async (signal) => {
      const { node, via } = reach;
      return await dialSoon(CALL, { node, via, signal });
    });
    this.#repositories = new Repositories(this.#client);
    this.#client.addEventListener("state", ({ state }) => {
      if (state === "closed" && !this.#leaving.signal.aborted) this.#over();
    });
    addEventListener("beforeunload", this.#left);
    void this.#listen();
    this.go();
  }

  /** Shows what the address leads to; {@link mayLeave} comes first. */
  go(): void {
    const route = parseRoute(location.hash);
    if (route !== undefined) void this.#show(route, true);
  }

  /** Whether what is shown may go. If not, the address is again that of what is shown. */
  mayLeave(): boolean {
    if (this.#shown === undefined || !this.#unsaved?.()) return true;
    if (confirm("Leave without saving what was edited?")) return true;
    history.replaceState(null, "", hashOf(this.#shown));
    return false;
  }

  /** Nobody looks any more. */
  close(): void {
    removeEventListener("beforeunload", this.#left);
    this.#leaving.abort(new Error("the page shows something else"));
    this.#showing.abort();
    this.#client.close();
  }

  /** The browser asks before the page goes with what was not saved. */
  readonly #left = (event: BeforeUnloadEvent) => {
    if (this.#unsaved?.()) event.preventDefault();
  };

  /**
   * Shows a route; what was shown before stays until there is something to show, and for good
   * if nobody has moved and it is edited by then.
   */
  async #show(route: Route, moved: boolean): Promise<void> {
    this.#showing.abort();
    const showing = new AbortController();
    this.#showing = showing;
    const { signal } = showing;
    this.#element.setAttribute("aria-busy", "true");
    const slow = setTimeout(() => (this.#element.dataset["slow"] = ""), SOON_MS);
    let content: HTMLElement;
    let unsaved: (() => boolean) | undefined;
    try {
      const context = this.#context(route, signal, (it) => (unsaved = it));
      content = await this.#content(context, route);
    } catch (error) {
      content = this.#problem(error, route);
    }
    clearTimeout(slow);
    if (signal.aborted) return;
    this.#element.removeAttribute("aria-busy");
    delete this.#element.dataset["slow"];
    if (!moved && this.#unsaved?.()) return this.#over();
    const { scrollTop } = this.#element;
    const held = moved ? undefined : focused(this.#element);
    this.#element.replaceChildren(content);
    this.#shown = route;
    this.#unsaved = unsaved;
    document.title = `${titleOf(route)} · alknet`;
    this.#element.scrollTop = moved ? 0 : scrollTop;
    // Who reads with their ears learns where they are.
    if (moved) content.querySelector<HTMLElement>("h1")?.focus({ preventScroll: true });
    else if (held !== undefined) focus(content, held);
  }

  async #content(context: Context, route: Route): Promise<HTMLElement> {
    switch (route.page) {
      case "list":
        return await list(context);
      case "new":
        return creation(context);
      default: {
        const { repository } = route;
        const shown = await this.#find(repository, context.signal).catch(async (error) => {
          if (!(error instanceof Missing) || route.page !== "edit") throw error;
          const found = await (await import("./edit/left")).left(context, repository);
          if (found === undefined) throw error;
          return found;
        });
        if (shown instanceof HTMLElement) return shown;
        const part = await this.#part(context, shown, route);
        return make("div", { className: "page" }, head(context, shown, route), part);
      }
    }
  }

  async #part(
    context: Context,
    shown: Shown,
    route: Exclude<Route, { page: "list" | "new" }>,
  ): Promise<HTMLElement> {
    switch (route.page) {
      case "files":
        return await (await import("./files")).files(context, shown, route);
      case "history":
        return await (await import("./history")).history(context, shown, route);
      case "commit":
        return await (await import("./commit")).commit(context, route);
      case "edit":
        return await (await import("./edit/view")).edit(context, shown, route);
      case "settings":
        return await (await import("./settings")).settings(context, shown);
    }
  }

  async #find(name: string, signal: AbortSignal): Promise<Shown> {
    const [repository, refs] = await Promise.all([
      this.#repositories.find(name, signal),
      this.#repositories.refs(name, signal),
    ]);
    return { repository, refs };
  }

  #context(route: Route, signal: AbortSignal, guard: (unsaved: () => boolean) => void): Context {
    return {
      repositories: this.#repositories,
      session: this.#session,
      reach: this.#reach,
      signal,
      go: (to) => {
        this.#unsaved = undefined;
        if (hashOf(to) === location.hash) void this.#show(to, true);
        else location.hash = hashOf(to);
      },
      refresh: () => void this.#show(route, false),
      guard,
    };
  }

  #problem(error: unknown, route: Route): HTMLElement {
    const title = error instanceof Problem ? error.title : "That did not work";
    const up: Route =
      "repository" in route &&
      !(error instanceof Missing && route.page === "files" && route.path === "")
        ? filesOf(route.repository)
        : { page: "list" };
    const again = button("Try again", () => void this.#show(route, false));
    const back = make("a", { className: "button", href: hashOf(up), textContent: "Go back" });
    return make(
      "div",
      { className: "page" },
      make("h1", { textContent: title, tabIndex: -1 }),
      make("p", { className: "quiet", role: "alert", textContent: textOf(error) }),
      make("div", { className: "row" }, again, back),
    );
  }

  /** Hears of what changes at the node, for as long as somebody looks. */
  async #listen(): Promise<void> {
    const { signal } = this.#leaving;
    for (let again = false; !signal.aborted; again = true) {
      try {
        // What happened while nobody listened is not told.
        if (again) this.#renew();
        for await (const event of this.#repositories.events(signal)) this.#heard(event);
      } catch (error) {
        // It was cut off, unless there is nothing for this sign-in to listen to.
        if (error instanceof CallError && !error.retryable && error.code !== "UNAVAILABLE") return;
      }
      if (this.#client.state === "closed") return;
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }

  #heard({ event, repository }: GitEvent): void {
    this.#repositories.forget();
    const shown = this.#shown;
    if (shown === undefined || shown.page === "new") return;
    const concerned =
      shown.page === "list" || event === "missed" || shown.repository === repository;
    if (!concerned) return;
    this.#renew();
  }

  /** The node does not know this browser any more: whatever is shown now says so. */
  #over(): void {
    const shown = this.#shown;
    if (this.#client.state !== "closed" || shown === undefined) return;
    if (!this.#unsaved?.()) return void this.#show(shown, false);
    const text = "You are not signed in any more. What is edited here can still be saved.";
    const said = make("p", { className: "complaint", role: "alert", textContent: text });
    this.#element.firstElementChild?.prepend(said);
  }

  /** Shows what is shown as it is now, unless somebody works on it. */
  #renew(): void {
    const shown = this.#shown;
    const busy = shown?.page === "edit" || shown?.page === "settings" || shown?.page === "new";
    if (shown !== undefined && !busy) void this.#show(shown, false);
  }
}

/** What has the focus, as it is found again in what is shown instead. */
function focused(element: HTMLElement): string | undefined {
  const { activeElement } = document;
  if (activeElement === null || !element.contains(activeElement)) return undefined;
  return nameOf(activeElement);
}

function focus(content: HTMLElement, name: string): void {
  const all = content.querySelectorAll<HTMLElement>("a, button, select, summary, h1, [tabindex]");
  [...all].find((it) => nameOf(it) === name)?.focus({ preventScroll: true });
}

function nameOf(element: Element): string {
  const name = element.getAttribute("aria-label") ?? element.textContent;
  return [element.localName, element.getAttribute("href"), name].join("\n");
}

function titleOf(route: Route): string {
  switch (route.page) {
    case "list":
      return "Repositories";
    case "new":
      return "New repository";
    case "commit":
      return `${route.repository} ${route.id.slice(0, 8)}`;
    case "settings":
      return `Settings of ${route.repository}`;
    default:
      return route.path === "" ? route.repository : `${route.path} · ${route.repository}`;
  }
}
