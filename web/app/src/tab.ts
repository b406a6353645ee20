import type { Viewer } from "@alknet/client";

/** What this tab looks at. */
export interface Looking {
  /** The session's name; the one that was attached last if left out. */
  name?: string | undefined;
  readOnly: boolean;
  /** Who looks, once it has: a secret of the tab. */
  viewer?: Viewer | undefined;
}

const LOOKING = "alknet.shell";

/**
 * What a tab looks at, over its reloads. A session store is the tab's own, never leaves the
 * browser, and ends with the tab.
 */
export class Tab {
  readonly #store: Pick<Storage, "getItem" | "setItem" | "removeItem">;

  constructor(store: Pick<Storage, "getItem" | "setItem" | "removeItem">) {
    this.#store = store;
  }

  get looking(): Looking {
    return parse(this.#store.getItem(LOOKING)) ?? { readOnly: false };
  }

  keep(looking: Looking): void {
    this.#store.setItem(LOOKING, JSON.stringify(looking));
  }

  forget(): void {
    this.#store.removeItem(LOOKING);
  }
}

/** What was kept, if it makes sense. */
function parse(text: string | null): Looking | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text ?? "null");
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null) return undefined;
  const { name, readOnly, viewer } = value as Record<string, unknown>;
  return {
    name: typeof name === "string" ? name : undefined,
    readOnly: readOnly === true,
    viewer: parseViewer(viewer),
  };
}

function parseViewer(value: unknown): Viewer | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const { viewer, attempt, session } = value as Record<string, unknown>;
  if (!isId(viewer) || !Number.isSafeInteger(attempt)) return undefined;
  return { viewer, attempt: attempt as number, ...(isId(session) ? { session } : {}) };
}

function isId(value: unknown): value is string {
  return typeof value === "string" && /^[0-9a-f]{32}$/.test(value);
}
