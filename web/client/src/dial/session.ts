import type { Bytes } from "../bytes.js";

/** What carries the streams. */
export type Carrier = "webtransport" | "websocket";

/** One stream of bytes in each direction. */
export interface Duplex {
  readonly readable: ReadableStream<Bytes>;
  readonly writable: WritableStream<Bytes>;
}

/** An open connection to one service of a node. */
export interface Session {
  readonly carrier: Carrier;
  /** Whether there can be more than one stream. */
  readonly multiplexed: boolean;
  /** The streams that the node opens. */
  readonly incoming: ReadableStream<Duplex>;
  /** The node's code for the end of the connection, once it is over, if it gave one. */
  readonly closed: Promise<number | undefined>;
  /** Opens a stream. A WebSocket has but one: the first caller gets it, the others fail. */
  open(): Promise<Duplex>;
  /** Cuts the connection, with a code for the node. */
  close(code?: number): void;
}

/** A connection with its only stream. */
export interface Line extends Duplex {
  readonly carrier: Carrier;
  /** The node's code for the end of the connection, once it is over, if it gave one. */
  readonly closed: Promise<number | undefined>;
  /** Cuts the connection. */
  close(): void;
}

/** The codes with which connections end: those of the node's `Code`. */
export const Code = {
  NORMAL: 0,
  INTERNAL: 1,
  SHUTTING_DOWN: 2,
  REFUSED: 3,
  LIMIT: 4,
  TIMEOUT: 5,
  PROTOCOL: 6,
  /** The credential behind the connection has been withdrawn. */
  REVOKED: 7,
  UNSUPPORTED: 8,
  CANCELLED: 9,
} as const;

/** What marks a ticket among the offered protocols. The node selects the first of the list. */
export const TICKET = "ticket.";
