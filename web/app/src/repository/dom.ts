import { textOf } from "../problem";
import { carried } from "./marks";

type Child = Node | string | undefined | false;

/** Properties that are drawn as a text. The value of an input is none: it goes back to the node. */
const DRAWN = new Set(["textContent", "alt", "label"]);

/**
 * An element with properties, attributes (`aria-…`, `data-…`, `role`) and children. A text may be
 * a stranger's, and is {@link carried}; one that is put elsewhere than here has to be, too.
 */
export function make<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  properties: Partial<HTMLElementTagNameMap[Tag]> & Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[Tag] {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined) continue;
    if (name === "role" || name.includes("-")) made.setAttribute(name, String(value));
    else if (DRAWN.has(name)) Object.assign(made, { [name]: carried(String(value)) });
    else Object.assign(made, { [name]: value });
  }
  for (const child of children) {
    if (typeof child === "string") made.append(carried(child));
    else if (child !== undefined && child !== false) made.append(child);
  }
  return made;
}

type Attributes = {
  [name: `aria-${string}` | `data-${string}`]: string | undefined;
  role?: string;
};

/** A button that does something; while it does, it is not to be pressed again. */
export function button(
  label: string,
  run: () => void | Promise<void>,
  properties: Partial<HTMLButtonElement> & Attributes = {},
): HTMLButtonElement {
  const made = make("button", { type: "button", textContent: label, ...properties });
  made.addEventListener("click", () => {
    const running = run();
    if (running === undefined) return;
    made.disabled = true;
    const done = () => (made.disabled = false);
    running.then(done, done);
  });
  return made;
}

const ICONS = {
  folder: "M1.5 3.5h4.2l1.5 1.7h7.3v7.3h-13z",
  file: "M3.5 1.5h6l3 3v10h-9zM9.5 1.5v3h3",
  link: "M6.5 9.5l3-3M5 8l-2 2a2.1 2.1 0 003 3l2-2M11 8l2-2a2.1 2.1 0 00-3-3L8 5",
  module: "M2 4.5l6-3 6 3v7l-6 3-6-3zM2 4.5l6 3 6-3M8 7.5v7",
  copy: "M5.5 5.5h9v9h-9zM3 10.5H1.5v-9h9V3",
  branch:
    "M4.5 5v6M4.5 7.5h4a3 3 0 003-3M4.5 5a1.6 1.6 0 100-3.2 1.6 1.6 0 000 3.2zM4.5 14.2a1.6 1.6 0 100-3.2 1.6 1.6 0 000 3.2zM11.5 4.9a1.6 1.6 0 100-3.2 1.6 1.6 0 000 3.2z",
} as const;

export type Icon = keyof typeof ICONS;

const SVG = "http://www.w3.org/2000/svg";

/** A small picture beside a text that says the same. */
export function icon(name: Icon): SVGSVGElement {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("class", `icon ${name}`);
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** The time, as long ago as it is, with the exact one behind it. */
export function ago(seconds: number): HTMLTimeElement {
  const then = new Date(seconds * 1000);
  const valid = !Number.isNaN(then.getTime());
  return make("time", {
    textContent: valid ? relative(then) : "at an odd time",
    title: valid ? then.toLocaleString() : "",
    dateTime: valid ? then.toISOString() : "",
  });
}

const UNITS: [Intl.RelativeTimeFormatUnit, number][] = [
  ["year", 31_557_600],
  ["month", 2_629_800],
  ["week", 604_800],
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
];

function relative(then: Date): string {
  const seconds = (then.getTime() - Date.now()) / 1000;
  const format = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
  for (const [unit, length] of UNITS) {
    if (Math.abs(seconds) >= length) return format.format(Math.round(seconds / length), unit);
  }
  return "just now";
}

/** A number with its noun. */
export function count(number: number, noun: string, nouns = `${noun}s`): string {
  return `${number.toLocaleString("en")} ${number === 1 ? noun : nouns}`;
}

/** Puts a text where it can be pasted from, and says so on the button. */
export async function copy(text: string, pressed: HTMLButtonElement): Promise<void> {
  const before = pressed.textContent;
  try {
    await navigator.clipboard.writeText(text);
    pressed.textContent = "Copied";
  } catch {
    pressed.textContent = "Not allowed";
  }
  setTimeout(() => (pressed.textContent = before), 1_500);
}

/** Has the browser save bytes as a file. */
export function save(parts: BlobPart[], name: string): void {
  const address = URL.createObjectURL(new Blob(parts));
  make("a", { href: address, download: name }).click();
  // Once the browser has begun.
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

/** A message about something that did not work. */
export function complaint(error: unknown): HTMLElement {
  return make("p", { className: "complaint", role: "alert", textContent: textOf(error) });
}
