import { isObject } from "../call/frame.js";
import { ask } from "../node/https.js";
import { Trusted, type Trust } from "../node/trust.js";
import { parse, type Described } from "./generate.js";

const LIST = "/alknet/api/services/list";
const SCHEMA = "/alknet/api/services/schema";

/** What a node says of the operations that the holder of a token may use. */
export async function fetchSchemas(
  origin: string,
  token: string,
  trust: Trust,
): Promise<Described[]> {
  const trusted = new Trusted(origin, trust);
  const call = async (path: string, body: unknown) => {
    const socket = await trusted.open(token);
    return await ask(socket, trusted.origin, { path, authorization: `Bearer ${token}`, body });
  };
  const listing = await call(LIST, {});
  const operations = isObject(listing) ? listing["operations"] : undefined;
  const schemas: unknown[] = [];
  for (const { name } of parse(operations)) schemas.push(await call(SCHEMA, { name }));
  return parse(schemas);
}
