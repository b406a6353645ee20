// Drawings of strangers, in SVG: which of them are drawn in a moment. Of a kilobyte there can be
// more to draw than a browser is done with in a year, and meanwhile the page does not answer.

/** How much is drawn in a moment. */
export const MAX_COST = 2_500;

/** Larger attributes make paths that take a time which grows with the square of their length. */
const MAX_VALUE = 32 * 1024;
/** What is drawn wherever something is hidden or coloured by it. */
const MAX_HIDING = 1024;
const MAX_STOPS = 100;
/** Rules of a style times elements is what a browser compares. */
const MAX_STYLE = 8 * 1024;
const MAX_DEPTH = 50;
/** So much of the file weighs as much as an element does, as does each letter that is written. */
const CHARS = 64;
/** What is drawn on its own before it becomes a part of the whole weighs as much as so many. */
const LAYER = 20;
/** Gradients go back to others. */
const GRADIENT = 5;

const SVG = "http://www.w3.org/2000/svg";
const RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#";

const words = (text: string): Set<string> => new Set(text.split(/\s+/));

const SHAPES = words("path rect circle ellipse line polyline polygon");
/** Each with what it stands for alone: nothing here is drawn more than once, or by and by. */
const ELEMENTS = words(`
  ${[...SHAPES].join(" ")} svg g a defs switch text tspan title desc metadata style
  linearGradient radialGradient stop clipPath mask`);
/** What hides parts of others, by one shape. */
const HIDING = words("clipPath mask");

/** Attributes that say nothing of how much is drawn, whatever their values are. */
const ATTRIBUTES = words(`
  id class lang role tabindex focusable version baseProfile type media href target rel title
  zoomAndPan contentScriptType contentStyleType
  x y x1 y1 x2 y2 cx cy r rx ry fx fy fr dx dy width height d points offset rotate
  viewBox preserveAspectRatio transform gradientTransform gradientUnits spreadMethod
  clipPathUnits maskUnits maskContentUnits textLength lengthAdjust`);
const OWN = /^(data|aria)-/;

/** What may be said of how something looks, as an attribute or in a style. */
const PROPERTIES = words(`
  fill fill-rule fill-opacity stroke stroke-width stroke-opacity stroke-linecap stroke-linejoin
  stroke-miterlimit stroke-dashoffset stop-color stop-opacity color opacity display visibility
  overflow clip-rule paint-order vector-effect mask-type
  line-height letter-spacing word-spacing white-space writing-mode direction unicode-bidi
  text-anchor text-align text-indent text-transform text-rendering text-orientation
  text-decoration text-decoration-line text-decoration-style text-decoration-color
  dominant-baseline alignment-baseline baseline-shift
  color-interpolation color-interpolation-filters color-rendering color-scheme
  shape-rendering image-rendering flood-color flood-opacity lighting-color
  solid-color solid-opacity shape-padding shape-margin inline-size enable-background background-color
  x y width height max-width pointer-events user-select`);
const FONT = /^(font|-inkscape)(-[a-z-]+)?$/;
/** What leads to something that hides; it is not said in rules, which hold for many. */
const HIDDEN = words("clip-path mask");
/** As if nothing were said. */
const NOTHING = words("none normal auto");

/** A value that is made of words, numbers, colours and a place in the same file. */
const FUNCTIONS = /\b(?:rgba?|hsla?)\([\w\s%.,+/-]*\)|\burl\(\s*(["']?)#[\w.:-]+\1\s*\)/g;
const ODD = /[^\p{L}\p{N}_\s#%.,+'"!/-]/u;

/** XML as it is commonly written: of what is not, nobody can tell what a browser makes of it. */
const S = "[ \\t\\r\\n]";
const NAME = "[A-Za-z_][\\w.-]*(?::[A-Za-z_][\\w.-]*)?";
const QUOTED = `(?:"[^"<]*"|'[^'<]*')`;
const PROLOG = new RegExp(`<\\?xml(${S}[^?<>]*)\\?>`, "y");
const DOCTYPE = new RegExp(
  `<!DOCTYPE${S}+svg(?:${S}+PUBLIC${S}+${QUOTED}${S}+${QUOTED}|${S}+SYSTEM${S}+${QUOTED})?${S}*>`,
  "y",
);
const TOKEN = new RegExp(
  [
    "<!--(?<comment>[^]*?)-->",
    "<!\\[CDATA\\[(?<data>[^]*?)\\]\\]>",
    `</(?<end>${NAME})${S}*>`,
    `<(?<start>${NAME})(?<attributes>(?:${S}+${NAME}${S}*=${S}*${QUOTED})*)${S}*(?<empty>/?)>`,
    "(?<text>[^<]+)",
  ].join("|"),
  "y",
);
const ATTRIBUTE = new RegExp(`(${NAME})${S}*=${S}*(?:"([^"]*)"|'([^']*)')`, "g");
const RULES = /^\s*(?:[\w.#*-][\w\s.#*,-]*\{[^{}]*\}\s*)*$/;
const SCHEME =
  /@media\s*\(\s*prefers-color-scheme\s*:\s*\w+\s*\)\s*\{((?:[^{}]*\{[^{}]*\})*\s*)\}/g;

/**
 * How much there is to draw of an SVG, in plain elements. It is without end for one in which
 * there is anything that is drawn again and again (`<use>`, patterns, markers), takes long by
 * itself (filters, dashes), or moves; and for one that cannot be read for sure.
 */
export function costOf(file: Uint8Array): number {
  if (file.length > MAX_COST * CHARS) return Infinity;
  try {
    return new Drawing().read(new TextDecoder("utf-8", { fatal: true }).decode(file));
  } catch {
    return Infinity;
  }
}

interface Open {
  name: string;
  /** The elements in it. */
  children: number;
}

class Drawing {
  #cost = 0;
  #style = "";
  /** The elements that are open, each in the one before. */
  readonly #open: Open[] = [{ name: "", children: 0 }];
  /** Prefixes that stand for something that browsers know. */
  readonly #known = new Set<string>();

  read(text: string): number {
    for (let at = this.#begin(text); at < text.length; at = TOKEN.lastIndex) {
      TOKEN.lastIndex = at;
      const found = TOKEN.exec(text)?.groups;
      if (found === undefined) throw new Error("no XML");
      this.#token(found);
    }
    if (this.#open.length > 1 || this.#open[0]!.children !== 1) throw new Error("not whole");
    // Anything may be what a rule is about.
    return this.#cost * this.#rules() + text.length / CHARS;
  }

  /** Where it begins after what says what it is. */
  #begin(text: string): number {
    let at = 0;
    const past = (pattern: RegExp) => {
      pattern.lastIndex = at;
      const found = pattern.exec(text);
      if (found !== null) at = pattern.lastIndex;
      return found;
    };
    const said = past(PROLOG)?.[1] ?? "";
    if (/encoding/.test(said) && !/encoding\s*=\s*(["'])utf-8\1/i.test(said)) {
      throw new Error("in another encoding");
    }
    while (past(/\s+|<!--[^]*?-->/y) !== null);
    past(DOCTYPE);
    return at;
  }

  #token({ comment, data, end, start, attributes, empty, text }: Record<string, string>): void {
    if (comment?.includes("--")) throw new Error("no comment");
    if (start !== undefined) this.#start(start, attributes ?? "", empty !== "");
    else if (end !== undefined) this.#end(end);
    else if (data !== undefined) this.#text(data);
    else if (text !== undefined) this.#text(decoded(text));
  }

  #start(name: string, attributes: string, empty: boolean): void {
    const parent = this.#open.at(-1)!;
    if (this.#open.length > MAX_DEPTH) throw new Error("too deep");
    const said = Array.from(attributes.matchAll(ATTRIBUTE), ([, key, one, other]) => {
      return [key!, decoded(one ?? other ?? "")] as const;
    });
    for (const [key, value] of said) this.#space(key, value);
    if (this.#open.length === 1 && !(name === "svg" && said.some(([key]) => key === "xmlns"))) {
      throw new Error("no drawing");
    }
    this.#cost += name.endsWith("Gradient") ? GRADIENT : 1;
    parent.children++;
    this.#open.push({ name, children: 0 });
    this.#place(name, parent, attributes);
    if (!this.#isNoted(name)) {
      if (!ELEMENTS.has(name)) throw new Error("not plain");
      for (const [key, value] of said) this.#attribute(key, value);
    }
    if (empty) this.#open.pop();
  }

  /** What names stand for: elements of a drawing have no prefix. */
  #space(key: string, value: string): void {
    if (key === "xmlns" && value !== SVG) throw new Error("no drawing");
    const known = /^http:\/\/www\.w3\.org\/|mozilla/.test(value) && value !== RDF;
    if (key.startsWith("xmlns:") && known) this.#known.add(key.slice("xmlns:".length));
  }

  /** Whether this is something that programs note for themselves, and that nobody draws. */
  #isNoted(name: string): boolean {
    const [prefix, local] = name.split(":");
    return local !== undefined && !this.#known.has(prefix!);
  }

  /** Whether an element may be where it is. */
  #place(name: string, parent: Open, attributes: string): void {
    if (parent.name === "style") throw new Error("no style");
    if (name === "stop" && parent.children > MAX_STOPS) throw new Error("too many colours");
    if (!HIDING.has(parent.name)) return;
    if (!SHAPES.has(name) || parent.children > 1 || attributes.length > MAX_HIDING) {
      throw new Error("more than a shape");
    }
  }

  #end(name: string): void {
    if (this.#open.length < 2 || this.#open.pop()!.name !== name) throw new Error("no XML");
  }

  #text(text: string): void {
    if (this.#open.at(-1)!.name === "style") this.#style += text;
    if (this.#open.some(({ name }) => name === "text")) this.#cost += text.length;
  }

  #attribute(key: string, value: string): void {
    if (value.length > MAX_VALUE) throw new Error("too long");
    // With a prefix it is a note, or where a link or a gradient leads.
    if (key === "xmlns" || key.includes(":") || ATTRIBUTES.has(key) || OWN.test(key)) return;
    const said = key === "style" ? this.#declarations(value) : [[key, value] as const];
    for (const [property, how] of said) this.#declared(property, how);
  }

  /** What is said of how something looks. */
  #declarations(text: string): [key: string, value: string][] {
    const said = text.split(";").filter((declaration) => declaration.trim() !== "");
    return said.map((declaration) => {
      const [, key, value] = /^\s*([\w-]+)\s*:(.*)$/s.exec(declaration) ?? [];
      if (key === undefined) throw new Error("no style");
      return [key.toLowerCase(), value!.trim()];
    });
  }

  /** How an element looks. */
  #declared(key: string, value: string): void {
    if (NOTHING.has(value)) return;
    if (key === "opacity" && value !== "1") this.#cost += LAYER;
    if (!HIDDEN.has(key)) return plain(key, value);
    if (ODD.test(value.replaceAll(FUNCTIONS, " "))) throw new Error("an odd value");
    if (this.#open.some(({ name }) => HIDING.has(name))) throw new Error("hidden in itself");
    this.#cost += LAYER;
  }

  /** What is said in styles: plain rules, also those for the dark. How much more each costs. */
  #rules(): number {
    if (this.#style.length > MAX_STYLE) throw new Error("too long");
    const rules = this.#style.replaceAll(SCHEME, "$1");
    if (!RULES.test(rules)) throw new Error("no style");
    let cost = 1;
    for (const [, declarations] of rules.matchAll(/\{([^{}]*)\}/g)) {
      for (const [key, value] of this.#declarations(declarations!)) {
        if (!NOTHING.has(value)) plain(key, value);
        if (key === "opacity") cost = LAYER;
      }
    }
    return cost;
  }
}

function plain(key: string, value: string): void {
  if (!PROPERTIES.has(key) && !FONT.test(key)) throw new Error("not plain");
  if (ODD.test(value.replaceAll(FUNCTIONS, " "))) throw new Error("an odd value");
}

const ENTITIES: Record<string, string> = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'" };

/** A text with the characters that it has by names or numbers. */
function decoded(text: string): string {
  if (!text.includes("&")) return text;
  return text.replace(/&(#x[\da-f]+|#\d+|\w*);?/gi, (all, name: string) => {
    if (!all.endsWith(";")) throw new Error("no XML");
    if (!name.startsWith("#")) {
      if (!Object.hasOwn(ENTITIES, name)) throw new Error("an entity of its own");
      return ENTITIES[name]!;
    }
    return String.fromCodePoint(Number(name.replace(/^#x?/i, (it) => (it === "#" ? "" : "0x"))));
  });
}
