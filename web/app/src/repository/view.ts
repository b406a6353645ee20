import type { Session } from "../api";
import type { Reach } from "../shell";
import type { Refs, Repositories, Repository } from "./model";
import type { Route } from "./route";

/** What a part of the view is made from. */
export interface Context {
  repositories: Repositories;
  session: Session;
  reach: Reach;
  /** Aborted when something else is shown. */
  signal: AbortSignal;
  go(route: Route): void;
  /** Shows the same again, as it is now. */
  refresh(): void;
  /** Who leaves is asked first while `unsaved` says so. */
  guard(unsaved: () => boolean): void;
}

/** A repository that is shown, with its refs. */
export interface Shown {
  repository: Repository;
  refs: Refs;
}

/** The branch that is meant where none is named; it may be behind the branches that are known. */
export function defaultBranch({ refs }: Shown): { name: string } | undefined {
  const { branch, id } = refs.head;
  return branch !== null && id !== null ? { name: branch } : refs.branches[0];
}

/** The names of the branches to choose from: the default one is among them. */
export function branchNames(shown: Shown): string[] {
  const names = shown.refs.branches.filter(({ lossy }) => !lossy).map(({ name }) => name);
  const standard = defaultBranch(shown)?.name;
  return standard === undefined || names.includes(standard) ? names : [standard, ...names];
}

/** A revision as the operations take it. */
export function revOf(shown: Shown, rev: string | undefined): string {
  if (rev !== undefined) return rev;
  const branch = defaultBranch(shown);
  return branch === undefined ? "HEAD" : `refs/heads/${branch.name}`;
}
