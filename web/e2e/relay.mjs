// A network between the browser and a node, to be cut: TCP and UDP by the same port.
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { connect, createServer } from "node:net";
import { cleanUp } from "./cleanup.mjs";

/** Starts a relay, whose `target` is to be set before anybody comes. */
export async function startRelay(test) {
  const relay = new Relay();
  cleanUp(test, () => relay.close());
  await relay.start();
  return relay;
}

class Relay {
  /** The node's port. */
  target = 0;
  #up = true;
  #tcp = createServer({ allowHalfOpen: true }, (client) => this.#join(client));
  #udp = createSocket("udp4");
  /** Pairs of sockets, and a socket towards the node for each of UDP's clients. */
  #pairs = new Set();
  #flows = new Map();

  async start() {
    this.#tcp.listen(0, "127.0.0.1");
    await once(this.#tcp, "listening");
    const { port } = this.#tcp.address();
    this.#udp.on("message", (datagram, { port }) => this.#pass(datagram, port));
    this.#udp.bind(port, "127.0.0.1");
    await once(this.#udp, "listening");
    this.port = port;
    this.origin = `https://127.0.0.1:${port}`;
  }

  /** Lets nothing through any more, and tells nobody. */
  cut() {
    this.#up = false;
    for (const sockets of this.#pairs) sockets.forEach((socket) => socket.pause());
  }

  /**
   * Lets everything through again. What was open before the cut goes on, unless the network
   * has `forgotten` it: then what was under way is lost, and nobody is told by UDP.
   */
  restore({ forgotten = false } = {}) {
    this.#up = true;
    if (!forgotten) {
      for (const sockets of this.#pairs) sockets.forEach((socket) => socket.resume());
      return;
    }
    for (const sockets of this.#pairs) sockets.forEach((socket) => socket.resetAndDestroy());
    for (const flow of this.#flows.values()) flow.forgotten = true;
  }

  close() {
    this.#tcp.close();
    this.#udp.close();
    for (const sockets of this.#pairs) sockets.forEach((socket) => socket.destroy());
    for (const { socket } of this.#flows.values()) socket.close();
  }

  #join(client) {
    const node = connect({ port: this.target, host: "127.0.0.1", allowHalfOpen: true });
    const sockets = [client, node];
    this.#pairs.add(sockets);
    for (const [from, to] of [sockets, [node, client]]) {
      from.on("error", () => to.destroy());
      from.on("close", () => {
        to.destroy();
        this.#pairs.delete(sockets);
      });
      from.pipe(to);
      if (!this.#up) from.pause();
    }
  }

  #pass(datagram, port) {
    const flow = this.#flows.get(port) ?? this.#flow(port);
    if (this.#up && !flow.forgotten) flow.socket.send(datagram, this.target, "127.0.0.1");
  }

  #flow(port) {
    const flow = { socket: createSocket("udp4"), forgotten: false };
    flow.socket.on("message", (datagram) => {
      if (this.#up && !flow.forgotten) this.#udp.send(datagram, port, "127.0.0.1");
    });
    // A node that is not there any more.
    flow.socket.on("error", () => undefined);
    this.#flows.set(port, flow);
    return flow;
  }
}
