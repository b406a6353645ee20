import type { Bytes } from "../bytes";

/** The service this page talks to, and its path inside HTTPS. */
export const SERVICE = "alknet/ssh";

export type Carrier = "webtransport" | "websocket";

export const NAMES: Record<Carrier, string> = {
  webtransport: "WebTransport",
  websocket: "WebSocket",
};

/** One stream of bytes to the node. */
export interface Line {
  readonly carrier: Carrier;
  readonly readable: ReadableStream<Bytes>;
  readonly writable: WritableStream<Bytes>;
  /** The node's code for the end of the connection, once it is over, if it gave one. */
  readonly closed: Promise<number | undefined>;
  /** Cuts the connection. */
  close(): void;
}

/** The code with which a node ends a session whose credential it has withdrawn. */
export const REVOKED = 7;

/** What marks a ticket among the offered protocols. The node selects the first of the list. */
export const TICKET = "ticket.";
