// Texts of strangers, shown as pages: nothing of them runs, and nothing is fetched for them.
import createDOMPurify, { type Config } from "dompurify";
import { aside } from "./aside";
import { make } from "./dom";
import { MAX_COST } from "./drawing";
import { highlight, languageNamed } from "./highlight";
import { piles } from "./marks";
import { withheld, type Picture } from "./picture";
import { rehearse } from "./rehearsal";
import "./text.css";

/** Larger texts are shown as they are. */
export const MAX_MARKDOWN = 512 * 1024;
/** And so are those of which more becomes than this. */
const MAX_HTML = 2 * 1024 * 1024;
/** How much of a heading is led to. */
const MAX_HEADING = 500;
/** The most pictures of a text, how much they may be together, and how often they are shown. */
const MAX_PICTURES = 50;
const MAX_SHOWN = 200;
const MAX_ALBUM = 32 * 1024 * 1024;
/** How much is drawn of them without being asked for. */
const MAX_DRAWN = 7_500;

/** Where links and pictures of a text lead. */
export interface Links {
  /** The address of a file beside the text. */
  file(path: string): string;
  /** A picture beside the text; undefined if there is none. */
  picture(path: string): Promise<Picture | undefined>;
}

const PURE: Config = {
  USE_PROFILES: { html: true },
  FORBID_TAGS: [
    ...[
      "style",
      "form",
      "button",
      "textarea",
      "select",
      "option",
      "fieldset",
      "dialog",
      "template",
      // What presses or fills in something else on the page.
      "label",
      "output",
      "datalist",
    ],
    ...["audio", "video", "source", "track", "picture", "map", "area", "base", "link", "meta"],
  ],
  FORBID_ATTR: [
    ...["style", "id", "name", "class", "srcset", "background", "poster", "usemap", "for"],
    ...["popover", "popovertarget", "popovertargetaction", "command", "commandfor", "tabindex"],
  ],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

/** What a class may say: the language of a block of code. */
const LANGUAGE = /^language-([\w+#-]+)$/;

/** Where a picture's address is while it is not fetched. */
const SOURCE = "data-source";

/** A text in Markdown as elements. Throws if it is too much to be made a page of. */
export async function markdown(text: string, links: Links): Promise<HTMLElement> {
  const raw = await aside().work({ kind: "markdown", text });
  if (raw.length > MAX_HTML) throw new Error("it is too much to be shown as a page");
  // Nobody sees what is in a template, and so nobody counts it. A tag without a meaning goes, too.
  const html = raw.replace(/<(\/?)template/gi, "<$1x-template");
  await rehearse(html);
  return pageOf(html, links);
}

function pageOf(html: string, links: Links): HTMLElement {
  const purify = createDOMPurify(window);
  purify.addHook("uponSanitizeAttribute", (element, attribute) => {
    const language = element.localName === "code" && attribute.attrName === "class";
    if (language && LANGUAGE.test(attribute.attrValue)) attribute.forceKeepAttr = true;
  });
  // Before the text becomes part of the page: from then on a picture is fetched.
  purify.addHook("afterSanitizeAttributes", (element) => {
    if (element.localName !== "img") return;
    element.setAttribute(SOURCE, element.getAttribute("src") ?? "");
    element.removeAttribute("src");
  });
  const fragment = purify.sanitize(html, PURE) as unknown as DocumentFragment;
  sparse(fragment);
  const article = make("article", { className: "markdown" });
  article.append(fragment);
  for (const heading of article.querySelectorAll<HTMLElement>("h1, h2, h3, h4, h5, h6")) {
    // There may be others in it, each with all of a long text.
    heading.dataset["slug"] = slug(heading.textContent.slice(0, MAX_HEADING));
  }
  article.querySelectorAll("a").forEach((link) => lead(link, article, links));
  const album = new Album((path) => links.picture(path));
  article.querySelectorAll("img").forEach((image) => picture(image, album));
  article.querySelectorAll("input").forEach(box);
  article.querySelectorAll("table").forEach((table) => {
    const scrolls = make("div", { className: "scrolls", tabIndex: 0 });
    table.replaceWith(scrolls);
    scrolls.append(table);
  });
  void colour([...article.querySelectorAll<HTMLElement>("pre > code")]);
  return article;
}

/** Throws if marks pile up, by what they are called or across tags, too. */
function sparse(fragment: DocumentFragment): void {
  const images = fragment.querySelectorAll("img");
  if (piles(fragment.textContent ?? "") || [...images].some(({ alt }) => piles(alt))) {
    throw new Error("marks pile up in it");
  }
}

/** Colours blocks of code, one after the other, until one takes too long. */
async function colour(blocks: HTMLElement[]): Promise<void> {
  for (const code of blocks) {
    const name = LANGUAGE.exec(code.className)?.[1];
    const language = name === undefined ? undefined : languageNamed(name);
    try {
      await highlight(code, language);
    } catch {
      return;
    }
  }
}

/** The pictures of a text: each is fetched once, one after the other, and not too many. */
export class Album {
  readonly #fetch: (path: string) => Promise<Picture | undefined>;
  readonly #known = new Map<string, Promise<Picture | undefined>>();
  #last: Promise<unknown> = Promise.resolve();
  #shown = 0;
  #size = 0;
  #drawn = 0;

  constructor(fetch: (path: string) => Promise<Picture | undefined>) {
    this.#fetch = fetch;
  }

  /** A picture, and whether it could be slow; undefined if there is none, or no room for it. */
  async picture(path: string): Promise<{ address: string; slow: boolean } | undefined> {
    if (++this.#shown > MAX_SHOWN) return undefined;
    let found = this.#known.get(path);
    if (found === undefined) {
      if (this.#known.size >= MAX_PICTURES) return undefined;
      found = this.#last.then(() => this.#next(path));
      this.#last = found.catch(() => undefined);
      this.#known.set(path, found);
    }
    const picture = await found;
    if (picture === undefined) return undefined;
    // It is drawn anew wherever it is shown.
    const drawn = this.#drawn + picture.cost;
    const slow = picture.cost > MAX_COST || drawn > MAX_DRAWN;
    if (!slow) this.#drawn = drawn;
    return { address: picture.address, slow };
  }

  async #next(path: string): Promise<Picture | undefined> {
    if (this.#size >= MAX_ALBUM) return undefined;
    const picture = await this.#fetch(path);
    this.#size += picture?.address.length ?? 0;
    return picture;
  }
}

/** Leads a link where it should: out of here in a tab of its own, or to a file. */
function lead(link: HTMLAnchorElement, article: HTMLElement, links: Links): void {
  const target = link.getAttribute("href") ?? "";
  link.removeAttribute("target");
  link.removeAttribute("download");
  if (/^(https?:\/\/|mailto:)/i.test(target)) {
    link.target = "_blank";
    link.rel = "noopener noreferrer nofollow";
    return;
  }
  link.removeAttribute("href");
  if (target.startsWith("#")) return jump(link, target.slice(1), article);
  const path = pathOf(target);
  if (path !== undefined) link.href = links.file(path);
}

/** A link within the text: the page's own fragment says something else. */
function jump(link: HTMLAnchorElement, to: string, article: HTMLElement): void {
  link.href = location.hash;
  link.addEventListener("click", (event) => {
    event.preventDefault();
    const wanted = slug(decoded(to));
    for (const heading of article.querySelectorAll<HTMLElement>("[data-slug]")) {
      if (heading.dataset["slug"] === wanted) return heading.scrollIntoView();
    }
  });
}

/** Shows a picture of the repository's own; one from elsewhere is named and not fetched. */
function picture(image: HTMLImageElement, album: Album): void {
  const source = image.getAttribute(SOURCE) ?? "";
  image.removeAttribute(SOURCE);
  const path = pathOf(source);
  if (path === undefined) return elsewhere(image, source);
  image.loading = "lazy";
  const name = image.alt || path.slice(path.lastIndexOf("/") + 1);
  album.picture(path).then(
    (found) => {
      if (found === undefined) named(image);
      else if (found.slow) image.replaceWith(withheld(image, found.address, name));
      else image.src = found.address;
    },
    () => named(image),
  );
}

/** What is in place of a picture that lies on another machine. */
function elsewhere(image: HTMLImageElement, source: string): void {
  const label = image.alt || "picture";
  const url = /^https?:\/\//i.test(source) && URL.canParse(source) ? new URL(source) : undefined;
  const text = url === undefined ? label : `${label} (on ${url.host})`;
  // Inside a link the link leads on by itself.
  const link = url !== undefined && image.closest("a") === null;
  const rel = "noopener noreferrer nofollow";
  image.replaceWith(
    link
      ? make("a", { textContent: text, href: url.href, target: "_blank", rel })
      : make("span", { className: "quiet", textContent: text }),
  );
}

function named(image: HTMLImageElement): void {
  image.replaceWith(make("span", { className: "quiet", textContent: image.alt || "picture" }));
}

/** The boxes of a list of tasks are no form of this page. */
function box(input: HTMLInputElement): void {
  if (input.type !== "checkbox") return input.remove();
  const mark = input.checked ? "☑" : "☐";
  input.replaceWith(make("span", { textContent: `${mark} ` }));
}

/** A path in the repository; undefined for any address with a scheme or a host. */
function pathOf(target: string): string | undefined {
  if (target === "" || /^[a-z][a-z0-9+.-]*:|^\/\/|^\\/i.test(target)) return undefined;
  return decoded(target.replace(/[?#].*$/s, ""));
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** A heading's text as links within a text name it. */
export function slug(text: string): string {
  const plain = text.trim().toLowerCase();
  return plain.replace(/[^\p{L}\p{N}\s_-]/gu, "").replace(/\s/g, "-");
}

/** A path that a text in this folder leads to; undefined if that is outside. */
export function resolve(folder: string, path: string): string | undefined {
  const words = path.startsWith("/") ? [] : folder.split("/").filter(Boolean);
  for (const word of path.split("/")) {
    if (word === "" || word === ".") continue;
    if (word !== "..") words.push(word);
    else if (words.pop() === undefined) return undefined;
  }
  return words.join("/");
}
