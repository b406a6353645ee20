import {
  dial as dialNode,
  DialError,
  UnsupportedError,
  type Certificate,
  type Via,
} from "@alknet/client";
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
  try {
    return await dialNode(SERVICE, { certificates, via, trying, ticket: api.ticket });
  } catch (error) {
    throw problemOf(error);
  }
}

/** What dialling failed with, in words. */
export function problemOf(error: unknown): unknown {
  if (error instanceof UnsupportedError) {
    const text = "This browser has none: choose another transport.";
    return new Problem("No WebTransport here", text, { cause: error });
  }
  if (!(error instanceof DialError)) return error;
  const reasons = [...error.failures].map(([carrier, cause]) => `${carrier}: ${textOf(cause)}`);
  return new Problem("The node cannot be reached", "The connection failed.", {
    detail: reasons.join("\n"),
  });
}
