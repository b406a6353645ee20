import { readFile, writeFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { textOf } from "../dial/dial.js";
import type { Trust } from "../node/trust.js";
import { parseNodeId } from "../statement.js";
import { fetchSchemas } from "./fetch.js";
import { generate, parse, type Described } from "./generate.js";

const HELP = `Writes TypeScript types for the operations of a node.

  alknet-types FILE [--output FILE]
  alknet-types --node https://HOST --token-file FILE [--output FILE]

FILE holds a JSON list of what services/schema gives. With --node they are fetched; then how
to know the node by its certificate is one of
  --node-id ID               the node has signed it, as \`alknet id\` prints its id
  --certificate-sha256 HEX   it has this hash
  --ca FILE                  one of these authorities has signed it (PEM)
and otherwise one of the authorities that Node.js knows.

  -o, --output FILE          where to write; otherwise it is printed
  -h, --help                 this text

Example:
  alknet-types --node https://node.example --node-id ed25519:… --token-file token -o src/node.ts
`;

const OPTIONS = {
  node: { type: "string" },
  "node-id": { type: "string" },
  "certificate-sha256": { type: "string" },
  ca: { type: "string" },
  "token-file": { type: "string" },
  output: { type: "string", short: "o" },
  help: { type: "boolean", short: "h" },
} as const;

type Values = ReturnType<typeof read>["values"];

/** What was asked for makes no sense. */
class UsageError extends Error {}

/** The program; its exit code: 0, 1 for a failure, 2 for arguments that make no sense. */
export async function main(args: string[]): Promise<number> {
  try {
    const { values, positionals } = read(args);
    if (values.help) {
      process.stdout.write(HELP);
      return 0;
    }
    const code = await generate(await operations(values, positionals));
    if (values.output === undefined) process.stdout.write(code);
    else await writeFile(values.output, code);
    return 0;
  } catch (error) {
    const usage = error instanceof UsageError;
    const hint = usage ? "\nhint: `alknet-types --help` says how" : "";
    process.stderr.write(`error: ${textOf(error)}${hint}\n`);
    return usage ? 2 : 1;
  }
}

function read(args: string[]) {
  try {
    return parseArgs({ args, options: OPTIONS, allowPositionals: true });
  } catch (error) {
    throw new UsageError(textOf(error));
  }
}

async function operations(values: Values, files: string[]): Promise<Described[]> {
  const { node, "token-file": tokenFile } = values;
  if (node === undefined) {
    const [file, ...more] = files;
    if (file === undefined || more.length > 0) throw new UsageError("one FILE, or --node");
    return parse(JSON.parse(await readFile(file, "utf8")));
  }
  if (files.length > 0) throw new UsageError("--node and a FILE");
  if (tokenFile === undefined) throw new UsageError("--node needs --token-file");
  const token = (await readFile(tokenFile, "utf8")).trim();
  return await fetchSchemas(node, token, await trust(values));
}

async function trust(values: Values): Promise<Trust> {
  const { "node-id": id, "certificate-sha256": certificateSha256, ca } = values;
  const node = id === undefined ? undefined : parseNodeId(id);
  if (id !== undefined && node === undefined) throw new UsageError(`no node id: ${id}`);
  return {
    ...(node === undefined ? {} : { node }),
    ...(certificateSha256 === undefined ? {} : { certificateSha256 }),
    ...(ca === undefined ? {} : { ca: await readFile(ca, "utf8") }),
  };
}
