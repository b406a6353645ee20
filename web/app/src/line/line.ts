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
  /** Cuts the connection. */
  close(): void;
}

/** What marks a ticket among the offered protocols. The node selects the first of the list. */
export const TICKET = "ticket.";
