import { ago, button, complaint, make } from "./dom";
import { field, submitting } from "./list";
import { carried } from "./marks";
import type { Mirror } from "./model";
import type { Context } from "./view";

const UNITS: [string, number][] = [
  ["d", 86_400],
  ["h", 3_600],
  ["m", 60],
];

/** Where the content of a repository comes from, if it is the copy of one elsewhere. */
export function mirroring(context: Context, name: string, mirror: Mirror | null): HTMLElement {
  const { repositories } = context;
  const url = make("input", {
    id: "set-mirror",
    value: mirror?.url ?? "",
    placeholder: "https://example.org/tool.git",
    maxLength: 1024,
    required: true,
    spellcheck: false,
    autocomplete: "off",
    autocapitalize: "none",
  });
  const every = make("input", {
    id: "set-every",
    value: mirror === null ? "" : spanOf(mirror.every),
    placeholder: "1h",
    spellcheck: false,
  });
  const save = make("button", { textContent: mirror === null ? "Mirror it" : "Save" });
  const failed = make("div", {});
  const attempt = (work: () => Promise<unknown>) => async () => {
    try {
      await work();
      context.refresh();
    } catch (error) {
      failed.replaceChildren(complaint(error));
    }
  };
  const now = button(
    "Look for news now",
    attempt(() => repositories.mirror(name, {})),
  );
  const stop = button(
    "Mirror it no more",
    attempt(() => repositories.mirror(name, { stop: true })),
  );
  const about =
    "The node fetches all branches and tags from there, again and again, and nobody pushes. What " +
    "is to be a mirror has to be empty.";
  const form = make(
    "form",
    { className: "fields" },
    make("h2", { textContent: "Mirror" }),
    mirror === null ? make("p", { className: "quiet", textContent: about }) : news(mirror),
    field("Copy of", url),
    field("How often it looks for news", every),
    make("div", { className: "row" }, save, mirror !== null && now, mirror !== null && stop),
    failed,
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    void submitting(form, async () => {
      const often = every.value.trim();
      await repositories.mirror(name, { url: url.value.trim(), ...(often && { every: often }) });
      context.refresh();
    });
  });
  return form;
}

function news({ last_success, last_error }: Mirror): HTMLElement {
  const text = make("p", { className: "quiet" });
  if (last_success === null) text.append("It was not fetched yet.");
  else text.append("Fetched ", ago(last_success), ".");
  if (last_error !== null) text.append(carried(` The last time failed: ${last_error}.`));
  return text;
}

/** A time as people write it. */
export function spanOf(seconds: number): string {
  const [unit, length] = UNITS.find(([, length]) => seconds % length === 0) ?? ["s", 1];
  return `${seconds / length}${unit}`;
}
