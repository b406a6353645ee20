// Has the files of a working copy be as a commit has them.
import type * as Isogit from "isomorphic-git";
import { firstOf, hasCode, OverwriteError, pathsOf } from "./errors";
import type { FolderFs } from "./fs";

/** A working copy, as git here sees it. */
export interface Place {
  git: typeof Isogit;
  files: FolderFs;
  at: { fs: { promises: FolderFs }; dir: string; cache: object };
}

/** A file as git keeps it. */
export interface Staged {
  oid: string;
  mode: number;
}

/** Of a checkout, which leaves HEAD as it is. */
export type Options = Omit<Parameters<typeof Isogit.checkout>[0], "ref" | "noUpdateHead">;

/** The modes of a program and of a symbolic link. */
export const EXECUTABLE = 0o100_755;
export const LINK = 0o120_000;

/** Throws an {@link OverwriteError} where changes are in the way; then nothing has happened. */
export async function checkout(place: Place, oid: string, options: Options): Promise<void> {
  await makeWay(place, oid, options.force ?? false);
  const run = () => place.git.checkout({ ...options, ref: oid, noUpdateHead: true });
  try {
    await run().catch(async (error: unknown) => {
      const paths = pathsOf(error, "CheckoutConflictError");
      if (paths === undefined) throw error;
      await recognize(place, oid, paths, error);
      await run();
    });
  } catch (error) {
    const paths = pathsOf(error, "CheckoutConflictError");
    throw paths === undefined ? firstOf(error) : new OverwriteError(paths, { cause: error });
  }
}

/**
 * Gets along with what something that was cut off has left in the way of a commit: programs and
 * links that are as it has them, and which the browser has as any other files, and files that
 * nothing was written to yet.
 */
async function recognize(place: Place, oid: string, paths: string[], cause: unknown) {
  const { git, files } = place;
  const wanted = new Set(paths);
  const entries = await entriesOf(place, git.TREE({ ref: oid }), wanted);
  const staged = await entriesOf(place, git.STAGE(), wanted);
  const [same, empty, others]: [string[], string[], string[]] = [[], [], []];
  for (const path of paths) {
    const [will, was] = [entries.get(path), staged.get(path)];
    const object = await files.readFile(path).catch(() => undefined);
    const there = object === undefined ? undefined : await git.hashBlob({ object });
    // A file that was there before and keeps its mode is not made anew.
    const begun = object?.length === 0 && will?.mode !== was?.mode;
    const as =
      will === undefined ? others : will.oid === there?.oid ? same : begun ? empty : others;
    as.push(path);
  }
  if (others.length > 0) throw new OverwriteError(others, { cause });
  for (const path of empty) await files.unlink(path);
  for (const path of same) {
    files.link(path, entries.get(path)?.mode === LINK);
    await stage(place, path, entries.get(path));
  }
}

/** Makes way where a file becomes a folder or a folder a file, which git here does not. */
async function makeWay({ git, files, at }: Place, oid: string, force: boolean): Promise<void> {
  const turned: string[] = [];
  const map = async (path: string, [there, here]: (Isogit.WalkerEntry | null)[]) => {
    const [will, is] = await Promise.all([there?.type(), here?.type()]);
    if (path === "." || (will === "tree" && is === "tree")) return undefined;
    if (will && is && (will === "tree" || is === "tree")) turned.push(path);
    return null;
  };
  await git.walk({ ...at, trees: [git.TREE({ ref: oid }), git.STAGE()], map });
  if (turned.length === 0) return;
  const rows = await git.statusMatrix({ ...at, filepaths: turned });
  // What is as in the last commit, or has been removed, is not lost.
  const lost = rows.filter(([, head, work, staged]) =>
    force ? head === 0 && staged === 0 : head !== 1 || work > 1 || staged > 1,
  );
  if (lost.length > 0) throw new OverwriteError(lost.map(([path]) => path));
  for (const path of turned) await unless(files.rm(path, { recursive: true }), ...GONE);
  // Only then: what is cut off before is done again, as the index tells what was there.
  await git.remove({ ...at, filepath: rows.map(([path]) => path) });
}

/**
 * Removes files, and the folders that have none then; and what is where other files have to be,
 * which may be nothing but folders.
 */
export async function clear(files: FolderFs, paths: string[], places: string[]): Promise<void> {
  for (const path of paths) await unless(files.unlink(path), ...GONE);
  const folders = [...new Set(paths.flatMap(foldersOf))];
  for (const folder of folders.toSorted((one, other) => other.length - one.length)) {
    await unless(files.rmdir(folder), "ENOTEMPTY", ...GONE);
  }
  for (const path of places) await hollow(files, path);
}

/** Removes a folder, if there is one; throws where it has files. */
async function hollow(files: FolderFs, path: string): Promise<void> {
  const names = await unless(files.readdir(path), ...GONE);
  if (names === undefined) return;
  for (const name of names) await hollow(files, `${path}/${name}`);
  await files.rmdir(path);
}

const GONE = ["ENOENT", "ENOTDIR"];

/** Does without what fails for one of these reasons. */
async function unless<T>(work: Promise<T>, ...codes: string[]): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    if (!hasCode(error, ...codes)) throw error;
    return undefined;
  }
}

/** Which of these files a commit has, or the index, and how: the browser does not know of modes. */
export async function entriesOf(
  { git, at }: Place,
  tree: Isogit.Walker,
  wanted: Set<string>,
): Promise<Map<string, Staged>> {
  const found = new Map<string, Staged>();
  const folders = new Set([...wanted].flatMap(foldersOf));
  const map = async (path: string, [entry]: (Isogit.WalkerEntry | null)[]) => {
    if (path !== "." && !wanted.has(path) && !folders.has(path)) return null;
    const staged = wanted.has(path) ? await stagedOf(entry) : undefined;
    if (staged !== undefined) found.set(path, staged);
    return undefined;
  };
  await git.walk({ ...at, trees: [tree], map });
  return found;
}

/** Has the index have a file so, or not at all. */
export async function stage(
  { git, at }: Place,
  filepath: string,
  entry: Staged | undefined,
): Promise<void> {
  if (entry === undefined) return await git.remove({ ...at, filepath });
  await git.updateIndex({ ...at, filepath, ...entry, add: true });
}

export async function stagedOf(
  entry: Isogit.WalkerEntry | null | undefined,
): Promise<Staged | undefined> {
  if (!entry || (await entry.type()) === "tree") return undefined;
  return { oid: await entry.oid(), mode: await entry.mode() };
}

/** The folders on the way to a file, the outermost first. */
export function foldersOf(path: string): string[] {
  const words = path.split("/").filter((word) => word !== "");
  return words.slice(0, -1).map((_, at) => words.slice(0, at + 1).join("/"));
}
