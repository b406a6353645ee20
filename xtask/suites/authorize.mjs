// Gives every request of a Node.js program the bearer token of the file that
// ALKNET_TOKEN_FILE names: the conformance suite of MCP has no option for one.
//
// `fetch` and the undici package find their dispatcher by this symbol, whoever brought it.

import { readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import { syncBuiltinESMExports } from "node:module";

const authorization = `Bearer ${readFileSync(process.env.ALKNET_TOKEN_FILE, "utf8").trim()}`;
const dispatcher = Symbol.for("undici.globalDispatcher.1");

function withToken(headers) {
  if (!headers) return { authorization };
  if (Array.isArray(headers)) return [...headers, "authorization", authorization];
  if (typeof headers[Symbol.iterator] === "function") return [...headers, ["authorization", authorization]];
  return { ...headers, authorization };
}

// The first use of `fetch` makes the dispatcher.
await fetch("data:,");
globalThis[dispatcher] = globalThis[dispatcher].compose(
  (dispatch) => (options, handler) =>
    dispatch({ ...options, headers: withToken(options.headers) }, handler),
);

// One scenario uses node:http, whatever the scheme is.
http.request = (options, callback) =>
  https.request(
    { ...options, protocol: "https:", headers: { ...options.headers, authorization } },
    callback,
  );
syncBuiltinESMExports();
