import { Code, type Carrier } from "@alknet/client";

export type { Carrier, Line } from "@alknet/client";

/** The service this page talks to, and its path inside HTTPS. */
export const SERVICE = "alknet/ssh";

export const NAMES: Record<Carrier, string> = {
  webtransport: "WebTransport",
  websocket: "WebSocket",
};

/** The code with which a node ends a session whose credential it has withdrawn. */
export const REVOKED = Code.REVOKED;
