/** An error to be shown to the person at the browser, in their words. */
export class Problem extends Error {
  /** In a few words, what is wrong. */
  readonly title: string;
  /** Values to compare or to copy, in lines of their own. */
  readonly detail: string | undefined;

  constructor(title: string, message: string, options: { detail?: string; cause?: unknown } = {}) {
    super(message, { cause: options.cause });
    this.title = title;
    this.detail = options.detail;
  }
}

/** This browser is not signed in: nothing is wrong, but there is something to do first. */
export class SignedOut extends Problem {
  constructor() {
    super(
      "You are not signed in",
      "Open the sign-in link that `alknet serve` prints on the node. A link works once.",
    );
  }
}

/** The text of anything that was thrown. */
export function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** A text as a sentence; one that begins with a name begins as that does. */
export function sentence(text: string, names: readonly string[] = []): string {
  const named = names.some((name) => name !== "" && `${text} `.startsWith(`${name} `));
  const first = text.charAt(0);
  return `${named ? first : first.toUpperCase()}${text.slice(1)}${/[.?!]$/.test(text) ? "" : "."}`;
}
