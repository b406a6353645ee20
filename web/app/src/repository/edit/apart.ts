// How far a branch is from where it is at the node.

/** `more` if that is only what is known. */
export interface Position {
  ahead: number;
  behind: number;
  more: boolean;
}

/** A commit, as far as it matters here. */
export interface Commit {
  parents: string[];
  time: number;
}

/** Who has a commit. */
const OURS = 1;
const THEIRS = 2;
const BOTH = OURS | THEIRS;

/** How many commits are looked at for each that may be counted. */
const LOOKS = 10;

/** Of so many commits one of each side is looked at in its turn. */
const ROUND = 8;

/**
 * How many commits each of two has that the other one has not: no more than `most` of either.
 * The latest ones are looked at first, until there are none left but what both have. `read`
 * gives undefined for what is not here, as before the first commit of a shallow copy.
 */
export async function apart(
  ours: string | undefined,
  theirs: string | undefined,
  most: number,
  read: (id: string) => Promise<Commit | undefined>,
): Promise<Position> {
  const known = new Map<string, Commit>();
  const sides = new Map<string, number>();
  const waiting = new Set<string>();
  const [ahead, behind] = [new Set<string>(), new Set<string>()];
  const reach = async (id: string, side: number) => {
    const before = sides.get(id) ?? 0;
    if ((before | side) === before) return;
    const commit = known.get(id) ?? (await read(id));
    if (commit === undefined) return;
    known.set(id, commit);
    sides.set(id, before | side);
    waiting.add(id);
  };
  const time = (id: string) => known.get(id)!.time;
  const waitingOf = (side: number | undefined) =>
    [...waiting].filter((id) => sides.get(id) === side);
  // Of what is equally old, what both have goes first: it tells more of the rest.
  const later = (one: string, other: string) => {
    const first = time(other) - time(one) || Number(sides.get(other) === BOTH);
    return first > 0 ? other : one;
  };
  // What is older than something that was not looked at may be of the other side too.
  const sure = (found: Set<string>, other: number) => {
    const latest = Math.max(...waitingOf(other).map(time));
    return found.size < most ? [...found].filter((id) => time(id) > latest).length : found.size;
  };

  if (ours !== undefined) await reach(ours, OURS);
  if (theirs !== undefined) await reach(theirs, THEIRS);
  const open = (id: string) => sides.get(id) !== BOTH || ahead.has(id) || behind.has(id);
  for (let step = 0; [...waiting].some(open); step++) {
    const many =
      (ahead.size >= most && waitingOf(OURS).length > 0) ||
      (behind.size >= most && waitingOf(THEIRS).length > 0);
    if (many || known.size >= most * LOOKS) {
      return { ahead: sure(ahead, THEIRS), behind: sure(behind, OURS), more: true };
    }
    // How old a commit is, is what somebody's clock has said.
    const turn = waitingOf([OURS, THEIRS][step % ROUND]);
    const id = (turn.length > 0 ? turn : [...waiting]).reduce(later);
    waiting.delete(id);
    const side = sides.get(id)!;
    if (side === OURS) ahead.add(id);
    else if (side === THEIRS) behind.add(id);
    for (const parent of known.get(id)!.parents) await reach(parent, side);
    // What one side was thought to have alone may turn out to be of both.
    if (side !== OURS) ahead.delete(id);
    if (side !== THEIRS) behind.delete(id);
  }
  return { ahead: ahead.size, behind: behind.size, more: false };
}
