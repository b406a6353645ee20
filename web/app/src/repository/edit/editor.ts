import type { Bytes } from "../../bytes";
import { button, complaint, make } from "../dom";
import { piles } from "../marks";
import { ChangedError } from "./errors";

/** Larger files are for other editors. */
const MAX_BYTES = 2 * 1024 * 1024;

/** What becomes of a file. */
export interface Acts {
  /** `known` is what is taken to be there. */
  save(content: Bytes, known: Bytes | undefined): Promise<void>;
  remove(): Promise<void>;
}

export interface Editor {
  element: HTMLElement;
  /** Whether there is something that the file does not have. */
  unsaved(): boolean;
}

/** A file to be changed; one that is not there yet is made when it is saved. */
export function editor(path: string, content: Bytes | undefined, acts: Acts): Editor {
  const text = content === undefined ? { text: "", end: "\n" } : textOf(content);
  if (text === undefined) {
    const why = "This is no text that can be edited here.";
    const element = make("p", { className: "quiet", textContent: why });
    return { element, unsaved: () => false };
  }
  let kept = text.text;
  let known = content;
  const area = make("textarea", {
    className: "editor",
    value: kept,
    spellcheck: false,
    autocapitalize: "none",
    "aria-label": `Content of ${path}`,
  });
  const said = make("span", { className: "quiet", role: "status" });
  if (content === undefined) said.textContent = "A new file";
  const save = button("Save", () => saving(), { className: "main" });
  const saving = async () => {
    const { value } = area;
    const bytes = new TextEncoder().encode(value.replaceAll("\n", text.end));
    try {
      await acts.save(bytes, known);
      kept = value;
      known = bytes;
      said.textContent = "Saved.";
      if (remove.parentElement === null) save.after(remove);
    } catch (error) {
      said.replaceChildren(complaint(error));
      if (!(error instanceof ChangedError)) return;
      // Who saves again has read this.
      known = error.there;
      said.append(" Saving again overwrites that.");
    }
  };
  const remove = button("Delete", async () => {
    await acts.remove().catch((error: unknown) => said.replaceChildren(complaint(error)));
  });
  area.addEventListener("input", () => (said.textContent = area.value === kept ? "" : "Not saved"));
  area.addEventListener("keydown", (event) => {
    if (event.key !== "s" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    save.click();
  });
  const row = make("div", { className: "row" }, save, content !== undefined && remove, said);
  const element = make("div", { className: "edit" }, area, row);
  return { element, unsaved: () => area.value !== kept };
}

/** A file's text and how its lines end; undefined if it is none, or none that can be shown as it is. */
function textOf(content: Uint8Array): { text: string; end: string } | undefined {
  if (content.length > MAX_BYTES || content.includes(0)) return undefined;
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(content);
    const crlf = text.includes("\r\n");
    // An editor of a page knows one kind of line; a mixture would be lost.
    if (/\r(?!\n)/.test(text) || (crlf && /(^|[^\r])\n/.test(text))) return undefined;
    if (piles(text)) return undefined;
    return { text: text.replaceAll("\r\n", "\n"), end: crlf ? "\r\n" : "\n" };
  } catch {
    return undefined;
  }
}
