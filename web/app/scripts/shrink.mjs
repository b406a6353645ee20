// Shrinks the WebAssembly module that `cargo xtask` left in src/wasm, unless it has been
// shrunk already.
import { execFileSync } from "node:child_process";
import { existsSync, renameSync, statSync } from "node:fs";
import { fileURLToPath } from "node:url";

const file = (path) => fileURLToPath(new URL(`../${path}`, import.meta.url));
const input = file("src/wasm/alknet_wasm_bg.wasm");
const output = file("src/wasm/alknet_wasm.opt.wasm");

// What rustc's output uses. Browsers refuse the module if wasm-opt is allowed more.
const FEATURES = [
  "bulk-memory",
  "bulk-memory-opt",
  "multivalue",
  "mutable-globals",
  "nontrapping-float-to-int",
  "reference-types",
  "sign-ext",
];

if (!existsSync(input)) {
  console.error(`error: no ${input}\nhint: \`cargo xtask web\` builds it`);
  process.exit(1);
}
const fresh = existsSync(output) && statSync(output).mtimeMs > statSync(input).mtimeMs;
if (!fresh) {
  const enable = FEATURES.map((feature) => `--enable-${feature}`);
  const args = [file("node_modules/binaryen/bin/wasm-opt"), "-Os", ...enable];
  execFileSync(process.execPath, [...args, input, "-o", `${output}.new`], { stdio: "inherit" });
  renameSync(`${output}.new`, output);
}
