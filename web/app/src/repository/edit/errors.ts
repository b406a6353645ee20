// Why something with a working copy has not come to its end.
import type { Bytes } from "../../bytes";

/** The node's branch has commits that this copy does not have. */
export class BehindError extends Error {}

/** Somebody else has written the file meanwhile. */
export class ChangedError extends Error {
  /** What is there now; undefined if there is nothing. */
  readonly there: Bytes | undefined;

  constructor(there: Bytes | undefined) {
    super("the file has changed since it was opened here");
    this.there = there;
  }
}

/** Files have changes that would be lost. */
export class OverwriteError extends Error {
  constructor(paths: string[], options?: ErrorOptions) {
    const some = paths.slice(0, 5).join(", ");
    const more = paths.length > 5 ? ` and ${paths.length - 5} more` : "";
    super(`commit or discard the changes of ${some}${more} first: they would be lost`, options);
  }
}

/** Both sides have changed the same lines, or have too little in common. */
export function conflicts(error: unknown): string[] | undefined {
  if (hasCode(error, "MergeNotSupportedError")) return [];
  return pathsOf(error, "MergeConflictError");
}

/** The files that an error of git is about, if it is this one. */
export function pathsOf(error: unknown, code: string): string[] | undefined {
  if (!hasCode(error, code)) return undefined;
  const { data } = error as { data?: { filepaths?: unknown } };
  return Array.isArray(data?.filepaths) ? data.filepaths.map(String) : [];
}

/** The first of several errors, which says more than that there are several. */
export function firstOf(error: unknown): unknown {
  const { errors } = error as { errors?: unknown };
  return hasCode(error, "MultipleGitError") && Array.isArray(errors) ? (errors[0] ?? error) : error;
}

/** Why a push was refused, with what the node has said. */
export function refusal(error: unknown, said: string[]): unknown {
  if (hasCode(error, "PushRejectedError")) return new BehindError("behind", { cause: error });
  if (!hasCode(error, "GitPushError")) return error;
  const { data } = error as { data?: { result?: { refs?: Record<string, { error?: string }> } } };
  const reasons = Object.values(data?.result?.refs ?? {}).flatMap(({ error }) => error ?? []);
  if (
    reasons.some((reason) =>
      /non-fast-forward|fetch first|stale info|cannot lock ref|failed to update ref/.test(reason),
    )
  ) {
    return new BehindError("behind", { cause: error });
  }
  const words = [...reasons, ...said].filter((text) => text !== "").join("\n");
  return new Error(`the node did not take it: ${words || "it does not say why"}`, { cause: error });
}

export function hasCode(error: unknown, ...codes: string[]): boolean {
  if (!(error instanceof Error) || !("code" in error)) return false;
  return codes.includes(String(error.code));
}
