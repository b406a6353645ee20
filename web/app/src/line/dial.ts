import { dial as dialNode, DialError, type Certificate, type Via } from "@alknet/client";
import * as api from "../api";
import { Problem, textOf } from "../problem";
import { SERVICE, type Carrier, type Line } from "./line";

export type { Via };

export function parseVia(text: string | null): Via {
  return text === "webtransport" || text === "websocket" ? text : "auto";
}

/** Reaches the node: as `via` says, or over whatever works. */
export async function dial(
  certificates: Certificate[],
  via: Via,
  trying: (carrier: Carrier) => void,
): Promise<Line> {
  if (via === "webtransport" && !("WebTransport" in globalThis)) {
    throw new Problem("No WebTransport here", "This browser has none: choose another transport.");
  }
  try {
    return await dialNode(SERVICE, { certificates, via, trying, ticket: api.ticket });
  } catch (error) {
    if (!(error instanceof DialError)) throw error;
    const reasons = [...error.failures].map(([carrier, cause]) => `${carrier}: ${textOf(cause)}`);
    throw new Problem("The node cannot be reached", "The connection failed.", {
      detail: reasons.join("\n"),
    });
  }
}
