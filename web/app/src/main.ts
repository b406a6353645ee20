import * as api from "./api";
import { SshKey } from "./key";
import { dial, parseVia, type Via } from "./line/dial";
import { NAMES, type Carrier } from "./line/line";
import { ChangedNode, parseNodeId, Pin, type NodeId } from "./node";
import { SignedOut, textOf } from "./problem";
import { Screen } from "./screen";
import { loadSsh, Session } from "./shell";
import { verify, type Certificate } from "./statement";
import "./style.css";
import { View, type Action } from "./view";

/** The node, checked, and what it takes to log in. */
interface Ready {
  session: api.Session;
  certificates: Certificate[];
  key: SshKey;
}

/** The page: from the sign-in to a terminal, and back when it ends. */
class App {
  readonly #view = new View();
  readonly #screen = new Screen(this.#view.terminal);
  readonly #pin = new Pin(localStorage);
  #live: Session | undefined;
  #running = false;

  start(): void {
    const view = this.#view;
    view.via.value = parseVia(new URLSearchParams(location.search).get("via"));
    view.via.addEventListener("change", () => this.#changeVia());
    view.signOut.addEventListener("click", () => void this.#signOut());
    this.#screen.onInput((data) => {
      this.#view.count(0, this.#live ? data.length : 0);
      this.#live?.write(data).catch((error: unknown) => view.status(textOf(error), "bad"));
    });
    this.#screen.onResize(({ cols, rows }) => {
      // A session that is just ending has no size to change.
      this.#live?.resize(cols, rows).catch(() => undefined);
    });
    addEventListener("pagehide", () => this.#live?.close());
    void this.#run();
  }

  /** One session from its beginning to its end; every way it can fail ends in a card. */
  async #run(): Promise<void> {
    if (this.#running) return;
    this.#running = true;
    try {
      const text = await this.#converse();
      this.#view.status("Ended", "idle");
      this.#view.panel({ title: "Session ended", text, action: this.#again("Reconnect") });
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#live = undefined;
      this.#running = false;
    }
  }

  async #converse(): Promise<string> {
    const ready = await this.#prepare();
    const live = await this.#connect(ready);
    this.#live = live;
    const { cols, rows } = this.#screen.size;
    await live.resize(cols, rows).catch(() => undefined);
    this.#view.hidePanel();
    this.#screen.focus();
    return live.ended;
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
    const key = await SshKey.load();
    // It was good for the session before this one; where it is good already, this is nothing.
    await api.authoriseKey(key.openssh);
    return { session, certificates, key };
  }

  async #connect({ session, certificates, key }: Ready): Promise<Session> {
    // Compiles while the connection is made; its failure shows when it is awaited.
    loadSsh().catch(() => undefined);
    const trying = (carrier: Carrier) => this.#busy(`Connecting over ${NAMES[carrier]}…`);
    const line = await dial(certificates, this.#view.via.value as Via, trying);
    this.#busy("Checking the node's key…");
    this.#screen.reset();
    this.#view.resetCount();
    const login = { node: session.node, user: session.user, key };
    const live = await Session.start(line, login, this.#screen, (n) => this.#view.count(n, 0));
    this.#view.status(`${session.user}, over ${NAMES[line.carrier]}, node verified`, "live");
    this.#view.terminal.dataset["carrier"] = line.carrier;
    return live;
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
    return { label, run: () => void this.#run() };
  }

  #forget(): void {
    this.#pin.forget();
    location.replace(location.pathname + location.search);
  }

  #changeVia(): void {
    const url = new URL(location.href);
    url.searchParams.set("via", this.#view.via.value);
    history.replaceState(null, "", url);
    if (this.#live === undefined) void this.#run();
    else this.#screen.focus();
  }

  async #signOut(): Promise<void> {
    await api.signOut().catch(() => undefined);
    location.reload();
  }
}

new App().start();
