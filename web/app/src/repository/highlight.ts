import type { HLJSApi, LanguageFn } from "highlight.js";

/** Larger texts are shown as they are: colours are not worth the wait. */
const MAX_CHARS = 400_000;

type Loader = () => Promise<{ default: LanguageFn }>;

const LANGUAGES: Record<string, Loader> = {
  bash: () => import("highlight.js/lib/languages/bash"),
  c: () => import("highlight.js/lib/languages/c"),
  cmake: () => import("highlight.js/lib/languages/cmake"),
  cpp: () => import("highlight.js/lib/languages/cpp"),
  csharp: () => import("highlight.js/lib/languages/csharp"),
  css: () => import("highlight.js/lib/languages/css"),
  diff: () => import("highlight.js/lib/languages/diff"),
  dockerfile: () => import("highlight.js/lib/languages/dockerfile"),
  elixir: () => import("highlight.js/lib/languages/elixir"),
  erlang: () => import("highlight.js/lib/languages/erlang"),
  go: () => import("highlight.js/lib/languages/go"),
  haskell: () => import("highlight.js/lib/languages/haskell"),
  ini: () => import("highlight.js/lib/languages/ini"),
  java: () => import("highlight.js/lib/languages/java"),
  javascript: () => import("highlight.js/lib/languages/javascript"),
  json: () => import("highlight.js/lib/languages/json"),
  kotlin: () => import("highlight.js/lib/languages/kotlin"),
  latex: () => import("highlight.js/lib/languages/latex"),
  less: () => import("highlight.js/lib/languages/less"),
  lua: () => import("highlight.js/lib/languages/lua"),
  makefile: () => import("highlight.js/lib/languages/makefile"),
  markdown: () => import("highlight.js/lib/languages/markdown"),
  nix: () => import("highlight.js/lib/languages/nix"),
  ocaml: () => import("highlight.js/lib/languages/ocaml"),
  perl: () => import("highlight.js/lib/languages/perl"),
  php: () => import("highlight.js/lib/languages/php"),
  protobuf: () => import("highlight.js/lib/languages/protobuf"),
  python: () => import("highlight.js/lib/languages/python"),
  r: () => import("highlight.js/lib/languages/r"),
  ruby: () => import("highlight.js/lib/languages/ruby"),
  rust: () => import("highlight.js/lib/languages/rust"),
  scala: () => import("highlight.js/lib/languages/scala"),
  scss: () => import("highlight.js/lib/languages/scss"),
  sql: () => import("highlight.js/lib/languages/sql"),
  swift: () => import("highlight.js/lib/languages/swift"),
  typescript: () => import("highlight.js/lib/languages/typescript"),
  xml: () => import("highlight.js/lib/languages/xml"),
  yaml: () => import("highlight.js/lib/languages/yaml"),
};

const ENDINGS: Record<string, string> = {
  bash: "sh bash zsh ksh profile bashrc",
  c: "c h",
  cmake: "cmake cmakelists.txt",
  cpp: "cc cpp cxx hh hpp hxx ino",
  csharp: "cs",
  css: "css",
  diff: "diff patch",
  dockerfile: "dockerfile containerfile",
  elixir: "ex exs",
  erlang: "erl hrl",
  go: "go",
  haskell: "hs",
  ini: "ini toml cfg conf service socket gitconfig gitmodules editorconfig cargo.lock",
  java: "java",
  javascript: "js mjs cjs jsx",
  json: "json jsonl webmanifest",
  kotlin: "kt kts",
  latex: "tex sty",
  less: "less",
  lua: "lua",
  makefile: "makefile mk gnumakefile",
  markdown: "md markdown",
  nix: "nix",
  ocaml: "ml mli",
  perl: "pl pm",
  php: "php",
  protobuf: "proto",
  python: "py pyi",
  r: "r",
  ruby: "rb gemfile rakefile",
  rust: "rs",
  scala: "scala",
  scss: "scss",
  sql: "sql",
  swift: "swift",
  typescript: "ts mts cts tsx",
  xml: "xml html htm svg xhtml vue plist",
  yaml: "yaml yml",
};

const BY_ENDING = new Map(
  Object.entries(ENDINGS).flatMap(([language, endings]) =>
    endings.split(" ").map((ending) => [ending, language] as const),
  ),
);

/** The language of a file, by its name. */
export function languageOf(path: string): string | undefined {
  const name = path.slice(path.lastIndexOf("/") + 1).toLowerCase();
  const ending = name.slice(name.lastIndexOf(".") + 1);
  return BY_ENDING.get(name) ?? BY_ENDING.get(ending);
}

let core: Promise<HLJSApi> | undefined;

/** Colours a text in place, once the language is here; a text in none stays as it is. */
export async function highlight(code: HTMLElement, language: string | undefined): Promise<void> {
  const load = language === undefined ? undefined : LANGUAGES[language];
  const text = code.textContent;
  if (language === undefined || load === undefined || text.length > MAX_CHARS) return;
  core ??= import("highlight.js/lib/core").then((module) => module.default);
  const [hljs, module] = await Promise.all([core, load()]);
  if (hljs.getLanguage(language) === undefined) hljs.registerLanguage(language, module.default);
  const { value } = hljs.highlight(text, { language, ignoreIllegals: true });
  // Made of the text, escaped, and of spans with class names.
  code.innerHTML = value;
}

/** A language as it is called behind three backticks. */
export function languageNamed(name: string): string | undefined {
  return Object.hasOwn(LANGUAGES, name) ? name : BY_ENDING.get(name.toLowerCase());
}
