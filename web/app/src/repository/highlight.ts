import { aside } from "./aside";

/** Larger texts are shown as they are: colours are not worth the wait. */
const MAX_CHARS = 400_000;
/** What is made of a text that is almost nothing but colours. */
const MAX_COLOURED = 4_000_000;

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

/**
 * Colours a text in place, once the language is here; a text in none stays as it is. Throws if
 * that takes too long.
 */
export async function highlight(code: HTMLElement, language: string | undefined): Promise<void> {
  const text = code.textContent;
  if (language === undefined || text.length > MAX_CHARS) return;
  const coloured = await aside().work({ kind: "colours", text, language });
  // Made of the text, escaped, and of spans with class names.
  if (coloured.length <= MAX_COLOURED) code.innerHTML = coloured;
}

/** A language as it is called behind three backticks. */
export function languageNamed(name: string): string | undefined {
  return Object.hasOwn(ENDINGS, name) ? name : BY_ENDING.get(name.toLowerCase());
}
