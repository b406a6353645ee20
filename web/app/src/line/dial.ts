import * as api from "../api";
import { Problem, textOf } from "../problem";
import type { Certificate } from "../statement";
import type { Carrier, Line } from "./line";
import { overWebSocket } from "./websocket";
import { overWebTransport } from "./webtransport";
import { SERVICE } from "./line";

export type Via = "auto" | Carrier;

export function parseVia(text: string | null): Via {
  return text === "webtransport" || text === "websocket" ? text : "auto";
}

/**
 * Reaches the node: over WebTransport, and where that is missing or fails over WebSocket,
 * unless `via` says which. Each try has a ticket of its own.
 */
export async function dial(
  certificates: Certificate[],
  via: Via,
  trying: (carrier: Carrier) => void,
): Promise<Line> {
  const reasons: string[] = [];
  for (const carrier of order(via)) {
    trying(carrier);
    const ticket = await api.ticket(SERVICE);
    try {
      return carrier === "webtransport"
        ? await overWebTransport(location.host, ticket, certificates)
        : await overWebSocket(location.host, ticket);
    } catch (error) {
      reasons.push(`${carrier}: ${textOf(error)}`);
    }
  }
  throw new Problem("The node cannot be reached", "The connection failed.", {
    detail: reasons.join("\n"),
  });
}

function order(via: Via): Carrier[] {
  const supported = "WebTransport" in globalThis;
  if (via === "webtransport" && !supported) {
    throw new Problem("No WebTransport here", "This browser has none: choose another transport.");
  }
  if (via !== "auto") return [via];
  return supported ? ["webtransport", "websocket"] : ["websocket"];
}
