import { SignedOutError } from "@alknet/client";
import * as api from "./api";
import { SshKey } from "./key";
import { dial, parseVia, type Via } from "./line/dial";
import { NAMES, type Carrier } from "./line/line";
import type { Ending, Live } from "./live";
import { Menu, type Doer } from "./menu";
import { ChangedNode, parseNodeId, Pin, type NodeId } from "./node";
import { SignedOut, textOf } from "./problem";
import type { Pane } from "./repository/pane";
import { parseRoute } from "./repository/route";
import { Screen } from "./screen";
import { Over, shellsOf, ShellSession, type Reach } from "./shell";
import { loadSsh, Session } from "./ssh";
import { verify, type Certificate } from "./statement";
import "./style.css";
import { Tab, type Looking } from "./tab";
import { View, type Action } from "./view";

/** What a shell is: one that keeps running, or SSH's. */
type Kind = "keeps" | "ssh";

/** The node, checked. */
interface Ready {
  session: api.Session;
  certificates: Certificate[];
}

/** The page: from the sign-in to a terminal, and back when it ends. */
class App {
  readonly #view = new View();
  readonly #menu = new Menu(() => this.#focus());
  readonly #screen = new Screen(this.#view.terminal);
  readonly #pin = new Pin(localStorage);
  readonly #tab = new Tab(sessionStorage);
  #live: Live | undefined;
  #running = false;
  /** What is known of the node, once it was asked. */
  #ready: Ready | undefined;
  /** The repositories, while they are looked at. */
  #pane: Pane | undefined;
  /** Whether another session is to follow the present one, without a word in between. */
  #switching = false;
  /** Whether the page is being left: what it looked at is for the next. */
  #left = false;

  start(): void {
    const view = this.#view;
    const { via, kind } = this.#menu;
    const asked = new URLSearchParams(location.search);
    via.value = parseVia(asked.get("via"));
    kind.value = asked.get("shell") === "ssh" ? "ssh" : "keeps";
    via.addEventListener("change", () => this.#changeVia());
    kind.addEventListener("change", () => location.assign(this.#address("shell", kind.value)));
    view.signOut.addEventListener("click", () => void this.#signOut());
    this.#screen.onInput((data) => {
      this.#view.count(0, this.#live ? data.length : 0);
      this.#live?.write(data).catch((error: unknown) => view.status(textOf(error), "bad"));
    });
    this.#screen.onRoom((room) => {
      if (this.#live === undefined) this.#screen.show(room);
      // A session that is just ending has no size to change.
      else this.#live.resize(room).catch(() => undefined);
    });
    addEventListener("pagehide", () => {
      this.#left = true;
      this.#live?.close();
    });
    // What a browser has kept of a page that was left has no connections any more.
    addEventListener("pageshow", ({ persisted }) => persisted && location.reload());
    addEventListener("hashchange", () => this.#moved());
    this.#goTo();
  }

  /** Whether the address leads to repositories. */
  get #browses(): boolean {
    return parseRoute(location.hash) !== undefined;
  }

  /** The address leads elsewhere; what is edited may have to be saved first. */
  #moved(): void {
    if (this.#pane?.mayLeave() === false) return;
    this.#goTo();
    this.#pane?.go();
  }

  /** Goes where the address leads; a terminal that is there goes on behind the repositories. */
  #goTo(): void {
    this.#view.place = this.#browses ? "repositories" : "terminal";
    if (this.#browses) return void this.#browse();
    this.#pane?.close();
    this.#pane = undefined;
    if (this.#live === undefined) void this.#run();
    else this.#focus();
  }

  async #browse(): Promise<void> {
    if (this.#pane !== undefined) return;
    try {
      const ready = this.#ready ?? (await this.#prepare());
      const { Pane } = await import("./repository/pane");
      if (!this.#browses || this.#pane !== undefined) return;
      this.#view.repositories.hidden = false;
      this.#pane = new Pane(this.#view.repositories, ready.session, this.#reach(ready));
      if (!this.#running) this.#view.status(ready.session.identity, "idle");
    } catch (error) {
      this.#fail(error);
    }
  }

  /** One session from its beginning to its end; every way it can fail ends in a card. */
  async #run(): Promise<void> {
    if (this.#running) return;
    this.#running = true;
    try {
      const ready = await this.#prepare();
      if (hasNoTerminal(ready.session)) return location.replace("#/git");
      const { title, text, label } = await this.#converse(ready);
      this.#view.status("Ended", "idle");
      if (!this.#switching) this.#view.panel({ title, text, action: this.#again(label) });
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#live = undefined;
      this.#running = false;
      this.#menu.show(undefined, "Shells");
    }
    if (!this.#switching) return;
    this.#switching = false;
    void this.#run();
  }

  async #converse(ready: Ready): Promise<Ending> {
    const kind = this.#kindFor(ready.session);
    if (kind === "keeps") this.#menu.doer = this.#doer(ready);
    const live = await this.#connect(ready, kind);
    this.#live = live;
    await live.resize(this.#screen.room).catch(() => undefined);
    this.#view.hidePanel();
    this.#focus();
    const ending = await live.ended;
    // What comes after this on the same page is something else.
    if (!this.#left && !this.#switching) this.#tab.forget();
    return ending;
  }

  async #prepare(): Promise<Ready> {
    this.#busy("Asking the node…");
    this.#takeNodeFromLink();
    const session = await api.session();
    if (session === undefined) throw new SignedOut();
    this.#view.signOut.hidden = false;
    const node = this.#pin.node ?? (await this.#confirm(session.node));
    if (session.node !== node) throw new ChangedNode(node, session.node);
    const certificates = await verify(session.statement, session.signature, node);
    this.#view.node(node, session.name);
    this.#view.places = api.covers(session.scopes, "git") && !hasNoTerminal(session);
    this.#ready = { session, certificates };
    return this.#ready;
  }

  /** What was asked for, or what the sign-in is good for. */
  #kindFor({ scopes }: api.Session): Kind {
    if (this.#menu.kind.value === "ssh") return "ssh";
    return !api.covers(scopes, "shell") && api.covers(scopes, "ssh") ? "ssh" : "keeps";
  }

  async #connect(ready: Ready, kind: Kind): Promise<Live> {
    this.#screen.reset();
    this.#screen.readOnly = false;
    this.#view.resetCount();
    if (kind === "ssh") return await this.#connectSsh(ready);
    try {
      return await ShellSession.start(this.#reach(ready), this.#tab, this.#screen, {
        trying: (carrier) => this.#trying(carrier),
        changed: (session) => this.#changed(session),
        received: (bytes) => this.#view.count(bytes, 0),
      });
    } catch (error) {
      // The sign-in is good, so it is the service that is missing.
      const missing = error instanceof SignedOutError;
      if (missing && api.covers(ready.session.scopes, "ssh")) return await this.#connectSsh(ready);
      if (error instanceof Over) this.#tab.forget();
      throw error;
    }
  }

  /** A shell over SSH, checked by the node's key from here to there. */
  async #connectSsh({ session, certificates }: Ready): Promise<Live> {
    this.#menu.doer = undefined;
    const key = await SshKey.load();
    // It was good for the session before this one; where it is good already, this is nothing.
    await api.authoriseKey(key.openssh);
    // Compiles while the connection is made; its failure shows when it is awaited.
    loadSsh().catch(() => undefined);
    const via = this.#menu.via.value as Via;
    const line = await dial(certificates, via, (carrier) => this.#trying(carrier));
    this.#busy("Checking the node's key…");
    const login = { node: session.node, user: session.user, key };
    const live = await Session.start(line, login, this.#screen, (n) => this.#view.count(n, 0));
    const over = `${session.user}, over ${NAMES[line.carrier]}, node verified`;
    const asked = this.#menu.kind.value === "ssh";
    const instead = "SSH, as this sign-in covers no shells that keep running";
    this.#view.status(asked ? over : `${over}; ${instead}`, "live");
    this.#menu.show(undefined, "SSH");
    this.#view.terminal.dataset["carrier"] = line.carrier;
    return live;
  }

  #reach({ session, certificates }: Ready): Reach {
    return { node: session.node, certificates, via: this.#menu.via.value as Via };
  }

  /** What the menu can ask for. */
  #doer(ready: Ready): Doer {
    const shells = () => shellsOf(this.#reach(ready));
    return {
      list: () => shells().list(),
      open: (name, readOnly) => this.#switch({ name, readOnly }),
      end: ({ session }) => shells().end({ session }),
      detach: () => void this.#leave(),
    };
  }

  /** Goes to another shell, and leaves this one running. */
  #switch(looking: Looking): void {
    if (!this.#running) {
      this.#tab.keep(looking);
      return void this.#run();
    }
    if (this.#live === undefined) return;
    this.#switching = true;
    void this.#leave().then(() => this.#tab.keep(looking));
  }

  async #leave(): Promise<void> {
    if (this.#live instanceof ShellSession) await this.#live.leave();
  }

  #changed(session: ShellSession): void {
    this.#screen.readOnly = session.readOnly;
    this.#menu.show({ id: session.id, readOnly: session.readOnly }, session.name);
    if (session.carrier !== undefined) {
      this.#view.terminal.dataset["carrier"] = session.carrier;
    }
    if (session.away) this.#view.status("Reconnecting…", "away");
    else this.#view.status(session.status, "live");
  }

  #trying(carrier: Carrier): void {
    if (this.#live === undefined) this.#busy(`Connecting over ${NAMES[carrier]}…`);
  }

  /** Typing goes to the terminal, unless a card has something to ask. */
  #focus(): void {
    if (this.#live !== undefined && !this.#browses) this.#screen.focus();
  }

  /** The sign-in link ends in the node's id; it does not stay in the address bar. */
  #takeNodeFromLink(): void {
    const node = parseNodeId(location.hash.slice(1));
    if (node === undefined) return;
    this.#pin.keep(node);
    history.replaceState(null, "", location.pathname + location.search);
  }

  /** Without a link there is nothing to compare with but a person's knowledge. */
  #confirm(node: NodeId): Promise<NodeId> {
    this.#view.status("Waiting for you", "idle");
    return new Promise((resolve) => {
      const run = () => {
        this.#pin.keep(node);
        resolve(node);
      };
      this.#view.panel({
        title: "Is this your node?",
        text: "This browser has not met it yet. Compare its key with what `alknet id` prints there.",
        detail: node,
        action: { label: "Yes, trust it", run, grave: true },
      });
    });
  }

  #busy(text: string): void {
    this.#view.status(text);
    this.#view.panel({ title: text, text: "" });
  }

  #fail(error: unknown): void {
    const forget = { label: "Forget the known node", run: () => this.#forget(), grave: true };
    const changed = error instanceof ChangedNode;
    this.#view.problem(error, changed ? forget : this.#again("Try again"));
  }

  #again(label: string): Action {
    return { label, run: () => this.#goTo() };
  }

  #forget(): void {
    this.#pin.forget();
    location.replace(location.pathname + location.search);
  }

  #changeVia(): void {
    history.replaceState(null, "", this.#address("via", this.#menu.via.value));
    if (this.#live === undefined) this.#goTo();
  }

  /** The page's address with another choice in it. */
  #address(name: string, value: string): URL {
    const url = new URL(location.href);
    url.searchParams.set(name, value);
    return url;
  }

  async #signOut(): Promise<void> {
    // Shells that only this sign-in holds end with it.
    this.#tab.forget();
    this.#left = true;
    await api.signOut().catch(() => undefined);
    location.reload();
  }
}

/** Whether a sign-in is for repositories and not for shells. */
function hasNoTerminal({ scopes }: api.Session): boolean {
  return !["shell", "ssh"].some((it) => api.covers(scopes, it)) && api.covers(scopes, "git");
}

new App().start();
