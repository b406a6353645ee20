import type { Place, Repositories } from "./model";

/** Larger ones are offered for download. */
export const MAX_PICTURE = 8 * 1024 * 1024;

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
  svg: "image/svg+xml",
  webp: "image/webp",
};

export function pictureType(path: string): string | undefined {
  const ending = path.slice(path.lastIndexOf(".") + 1).toLowerCase();
  return Object.hasOwn(TYPES, ending) ? TYPES[ending] : undefined;
}

/** A picture of a repository as an address of its own; undefined if it is none, or too large. */
export async function pictureOf(
  repositories: Repositories,
  place: Place,
  signal?: AbortSignal,
): Promise<string | undefined> {
  const type = pictureType(place.path ?? "");
  if (type === undefined) return undefined;
  const { size } = await repositories.blob(place, 1, signal);
  if (size > MAX_PICTURE) return undefined;
  const parts = await repositories.bytes(place, signal);
  // The page's policy takes pictures from itself and from such addresses, and from nowhere else.
  return await addressOf(new Blob(parts, { type }));
}

function addressOf(blob: Blob): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result as string);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}
