import { button, make } from "./dom";
import { costOf } from "./drawing";
import type { Place, Repositories } from "./model";

/** Larger ones are offered for download. */
export const MAX_PICTURE = 8 * 1024 * 1024;

const SVG = "image/svg+xml";

/** Pictures that browsers show, by their endings. In an `<img>` not even SVG runs anything. */
const TYPES: Record<string, string> = {
  apng: "image/apng",
  avif: "image/avif",
  bmp: "image/bmp",
  gif: "image/gif",
  ico: "image/x-icon",
  jpeg: "image/jpeg",
  jpg: "image/jpeg",
  png: "image/png",
  svg: SVG,
  webp: "image/webp",
};

export function pictureType(path: string): string | undefined {
  const ending = path.slice(path.lastIndexOf(".") + 1).toLowerCase();
  return Object.hasOwn(TYPES, ending) ? TYPES[ending] : undefined;
}

/** A picture of a repository. */
export interface Picture {
  /** An address of its own, which needs no network. */
  address: string;
  /** How much there is to draw: nothing, but for drawings. */
  cost: number;
}

/** A picture of a repository; undefined if it is none, or too large. */
export async function pictureOf(
  repositories: Repositories,
  place: Place,
  signal?: AbortSignal,
): Promise<Picture | undefined> {
  const type = pictureType(place.path ?? "");
  if (type === undefined) return undefined;
  const { size } = await repositories.blob(place, 1, signal);
  if (size > MAX_PICTURE) return undefined;
  const parts = await repositories.bytes(place, signal);
  const file = new Blob(parts, { type });
  const cost = type === SVG ? costOf(new Uint8Array(await file.arrayBuffer())) : 0;
  // The page's policy takes pictures from itself and from such addresses, and from nowhere else.
  return { address: await addressOf(file), cost };
}

/** What is in place of a picture that keeps the page busy, until somebody wants to see it. */
export function withheld(image: HTMLImageElement, address: string, name: string): HTMLElement {
  const why = "This drawing could be slow to show.";
  const show = button("Show it", () => {
    image.src = address;
    place.replaceWith(image);
  });
  // It may be in a link, which leads elsewhere.
  show.addEventListener("click", (event) => event.preventDefault());
  const place = make(
    "span",
    { className: "withheld", role: "group", "aria-label": name },
    make("strong", { textContent: name }),
    make("span", { className: "quiet", textContent: why }),
    show,
  );
  return place;
}

function addressOf(blob: Blob): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result as string);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}
