import { gzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { costOf, MAX_COST } from "./drawing";

const bytes = (text: string) => new TextEncoder().encode(text);
const quick = (text: string) => costOf(bytes(text)) <= MAX_COST;

const NS = 'xmlns="http://www.w3.org/2000/svg"';
const RECT = '<rect width="9" height="9"/>';
const svg = (inner: string, attributes = "") => `<svg ${NS} ${attributes}>${inner}</svg>`;
const times = (count: number, text: string) => text.repeat(count);
const styled = (css: string) => svg(`<style>${css}</style>${RECT}`);

/** Ten times as much on each level. */
function bomb(name = "use", levels = 8): string {
  const level = (at: number) => `<g id="a${at + 1}">${times(10, `<${name} href="#a${at}"/>`)}</g>`;
  const all = Array.from({ length: levels }, (_, at) => level(at)).join("");
  return `<defs><g id="a0">${RECT}</g>${all}</defs><${name} href="#a${levels}"/>`;
}

const BADGE = svg(
  `<title>build: passing</title>
  <linearGradient id="s" x2="0" y2="100%"><stop offset="0" stop-color="#bbb" stop-opacity=".1"/>
  <stop offset="1" stop-opacity=".1"/></linearGradient>
  <clipPath id="r"><rect width="88" height="20" rx="3" fill="#fff"/></clipPath>
  <g clip-path="url(#r)"><rect width="37" height="20" fill="#555"/>
  <rect width="88" height="20" fill="url(#s)"/></g>
  <g fill="#fff" text-anchor="middle" font-family="Verdana,Geneva,DejaVu Sans,sans-serif"
    text-rendering="geometricPrecision" font-size="110"><text aria-hidden="true" x="195" y="150"
    fill="#010101" fill-opacity=".3" transform="scale(.1)" textLength="270">build</text></g>`,
  'xmlns:xlink="http://www.w3.org/1999/xlink" width="88" height="20" role="img"',
);

describe("drawn at once", () => {
  test.each([
    ["a badge", BADGE],
    ["an icon", svg('<path d="M1 1l9 9z" style="FILL:#f00;stroke:none"/>', 'viewBox="0 0 9 9"')],
    [
      "a common beginning",
      `\ufeff<?xml version="1.0" encoding="UTF-8"?>\n<!-- of a - tool -->\n${svg(RECT)}\n`,
    ],
    [
      "a document type",
      `<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN"
        "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd">${svg(RECT)}`,
    ],
    [
      "what an editor notes",
      svg(
        `<sodipodi:namedview pagecolor="#fff" filter="url(#f)"><inkscape:grid/></sodipodi:namedview>
        <metadata><rdf:RDF><cc:Work rdf:about=""/></rdf:RDF></metadata>
        <g inkscape:label="use" style="stroke-dasharray:none;mix-blend-mode:normal;filter:none">${RECT}</g>`,
        `xmlns:svg="http://www.w3.org/2000/svg" xmlns:inkscape="http://www.inkscape.org/namespaces/inkscape"
        xmlns:sodipodi="http://sodipodi.sourceforge.net/DTD/sodipodi-0.dtd"
        xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:cc="http://creativecommons.org/ns#"`,
      ),
    ],
    ["classes", styled(".a,.b.c{fill:#fff;}\n#d rect{stroke:rgb(1, 2, 3)}")],
    [
      "a style as data",
      svg(`<style type="text/css"><![CDATA[ .a { fill: url(#g) } ]]></style>${RECT}`),
    ],
    [
      "colours for the dark",
      styled("a{fill:#000}@media (prefers-color-scheme: dark){a{fill:#fff}}"),
    ],
    ["a mask", svg(`<mask id="m">${RECT}</mask><g mask="url(#m)">${RECT}</g>`)],
    [
      "names of others",
      svg("<text font-family=\"微软雅黑, 'Segoe UI'\">größer &#x3e; &lt;use&gt;</text>"),
    ],
    [
      "words that are no elements",
      svg("<text>use pattern filter foreignObject</text><!-- <use/> -->"),
    ],
  ])("%s", (_, text) => {
    expect(quick(text)).toBe(true);
  });
});

describe("not drawn unasked", () => {
  test.each([
    ["use of use", svg(bomb())],
    ["one use", svg('<use href="#a"/>')],
    ["a prefix", `<svg:svg xmlns:svg="http://www.w3.org/2000/svg">${bomb("svg:use")}</svg:svg>`],
    ["a prefix inside", svg(bomb("x:use"), 'xmlns:x="http://www.w3.org/2000/svg"')],
    [
      "a prefix in other characters",
      svg(bomb("x:use"), 'xmlns:x="http://www.w3.org/2000/sv&#103;"'),
    ],
    ["a prefix further in", svg(`<g xmlns:x='http://www.w3.org/2000/svg'>${bomb("x:use")}</g>`)],
    ["a prefix on the element", svg('<x:use xmlns:x="http://www.w3.org/2000/svg" href="#a"/>')],
    ["another kind of text", svg('<x:div xmlns:x="http://www.w3.org/1999/xhtml">text</x:div>')],
    ["a text in it", svg('<g xmlns="http://www.w3.org/1999/xhtml"/>')],
    ["nothing said of what it is", `<svg>${RECT}</svg>`],
    ["another root", `<g ${NS}>${RECT}</g>`],
    ["two roots", svg(RECT) + svg(RECT)],
    ...["symbol", "pattern", "marker", "filter", "image", "foreignObject", "textPath"].map(
      (name) => [name, svg(`<${name} id="a"/>${RECT}`)],
    ),
    ...["animate", "set", "animateTransform", "animateMotion", "script", "iframe", "Use"].map(
      (name) => [name, svg(`<rect><${name}/></rect>`)],
    ),
    ["entities", `<!DOCTYPE svg [<!ENTITY a "<g/>"><!ENTITY b "&a;&a;">]>${svg("&b;")}`],
    ["a type with a part inside", `<!DOCTYPE svg PUBLIC "a" "b" [ ]>${svg(RECT)}`],
    ["an entity of nobody", svg("<text>&bomb;</text>")],
    ["a style sheet", `<?xml-stylesheet href="#s"?>${svg(RECT)}`],
    ["a reference that is none", svg("<text>a & b</text>")],
    ["another encoding", `<?xml version="1.0" encoding="UTF-7"?>${svg(RECT)}`],
    ["an encoding twice", `<?xml version="1.0" encoding="utf-8" encoding='x'?>${svg(bomb())}`],
    ["no end", svg(RECT).replace("</svg>", "")],
    ["an end of another", svg(`<g>${RECT}</a>`)],
    ["more than there is", `${svg(RECT)}<`],
    ["no XML", "hello"],
    ["nothing", ""],
    ["dashes", svg('<path d="M0 0h9999" stroke-dasharray=".01"/>')],
    ["dashes of a length", svg('<path d="M0 0h9" pathLength="1e9"/>')],
    ["dashes in a style", svg('<g style="stroke:red;Stroke-DashArray:.01"/>')],
    ["dashes by a rule", styled("rect{stroke-dasharray:.01}")],
    ["a filter", svg('<rect filter="url(#f)"/>')],
    ["a blur", svg('<rect style="filter:blur(99px)"/>')],
    ["a blur that is hidden", svg('<rect style="fill:red;fi/**/lter:blur(9px)"/>')],
    ["a blur in other characters", svg('<rect style="f&#105;lter&#58;blur(9px)"/>')],
    ["an escape", svg(String.raw`<rect style="f\69lter:blur(9px)"/>`)],
    ["a comment", svg('<rect style="fill:red/*;*/;stroke:blue"/>')],
    ["a shadow", svg('<text style="text-shadow:0 0 99px red">a</text>')],
    ["a marker", svg('<path marker-mid="url(#m)"/>')],
    ["a picture from elsewhere", svg('<rect fill="url(https://elsewhere.example/#a)"/>')],
    ["values of values", svg('<rect style="--a:1;fill:var(--a)"/>')],
    ["what moves", styled("rect{animation:a 1s infinite}")],
    ["what moves by itself", styled("@keyframes a{to{fill:red}}")],
    ["a style from elsewhere", styled('@import "a.css";')],
    ["a font", styled("@font-face{font-family:a;src:url(data:font/woff2;base64,AA)}")],
    ["rules in rules", styled("g{fill:red;rect{filter:blur(9px)}}")],
    ["rules that hold where others are", styled(":has(rect){fill:red}")],
    ["a comment in a style", styled('a{fill:"/*";filter:blur(9px);stroke:"*/"}')],
    ["a mask by a rule", styled("rect{mask:url(#m)}")],
    ["a rule without an end", styled("a{fill:red")],
    ["too much style", styled(times(3000, "*{}"))],
    ["an element in a style", svg(`<style><g/></style>${RECT}`)],
    ["much that hides", svg(`<clipPath id="c">${RECT}${RECT}</clipPath>`)],
    ["a group that hides", svg(`<mask id="m"><g>${RECT}</g></mask>`)],
    ["what hides by hiding", svg('<mask id="m"><rect mask="url(#n)"/></mask>')],
    ["what hides by itself", svg(`<clipPath clip-path="url(#d)">${RECT}</clipPath>`)],
    ["what hides by a style", svg('<mask><rect style="clip-path:url(#n)"/></mask>')],
    ["an own form", svg('<rect style="clip-path:polygon(0 0, 1px 1px)"/>')],
    ["too many elements", svg(times(3000, RECT))],
    ["a comment that is none", svg(`<!-- a -- b -->${RECT}`)],
    ["layers in capitals", svg(times(150, '<g style="OPACITY:.5"/>'))],
    ["layers by a rule", styled("*{opacity:.5}").replace(RECT, times(200, RECT))],
    ["layers in layers", svg(times(5, times(30, '<g opacity=".5">') + times(30, "</g>")))],
    ["what blends", svg('<g style="mix-blend-mode:hue"/>')],
    ["many colours", svg(`<linearGradient id="g">${times(101, "<stop/>")}</linearGradient>`)],
    ["a long form that hides", svg(`<mask id="m"><path d="${times(300, "M0 0")}"/></mask>`)],
    ["too many masks", svg(times(150, '<g mask="url(#m)"/>'))],
    ["too deep", svg(times(60, "<g>") + times(60, "</g>"))],
    ["a long path", svg(`<path d="${times(20_000, "9-9 ")}"/>`)],
    ["marks on a letter", svg(`<text>e${times(20_000, "\u0301")}</text>`)],
    ["a long file", svg(`<!--${times(400_000, "-a")}-->`)],
  ] as [string, string][])("%s", (_, text) => {
    expect(quick(text)).toBe(false);
  });

  test.each([
    ["UTF-16", (text: string) => Buffer.from(text, "utf16le")],
    ["UTF-16 with its mark", (text: string) => Buffer.from(`\ufeff${text}`, "utf16le")],
    [
      "UTF-16, the other way round",
      (text: string) => Buffer.from(`\ufeff${text}`, "utf16le").swap16(),
    ],
    [
      "UTF-32",
      (text: string) => Buffer.from([...text].flatMap((it) => [it.charCodeAt(0), 0, 0, 0])),
    ],
    ["Latin-1", (text: string) => Buffer.from(text, "latin1")],
    ["gzip", (text: string) => gzipSync(text)],
  ])("what is in %s", (_, of) => {
    expect(costOf(of(svg("<text>ä</text>")))).toBe(Infinity);
  });
});

test("it is told in no time", () => {
  const before = performance.now();
  for (const text of [
    `<svg ${times(90_000, "a ")}`,
    `<svg ${times(40_000, 'a="" ')}`,
    `<svg a${times(300_000, " ")}`,
    `<svg ${times(60_000, "a:b")}`,
    `<svg a="${times(300_000, " ")}`,
    `<!--${times(150_000, "- ")}`,
    times(70_000, "<!--"),
    `<!DOCTYPE svg${times(300_000, " ")}`,
    `<?xml ${times(300_000, " ")}`,
    svg(`<rect style="${times(60_000, "(")}"/>`),
    svg(`<rect style="fill:${times(16_000, "rgb(")}"/>`),
    svg(`<rect style="fill:${times(12_000, "url( ")}"/>`),
    svg(`<rect style="${times(60_000, " ")}"/>`),
    svg(`<text>${times(70_000, "&")}</text>`),
    styled(times(8_000, " ")),
    styled(times(4_000, "a ")),
    styled(times(1_000, "@media (")),
    styled(times(200, "@media (prefers-color-scheme:a){")),
  ]) {
    costOf(bytes(text));
  }
  expect(performance.now() - before).toBeLessThan(2_000);
});
