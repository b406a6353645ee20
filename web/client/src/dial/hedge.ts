import { DialError, dialSession, isTransient, type DialOptions } from "./dial.js";
import type { Carrier, Session } from "./session.js";

/** How long WebTransport is waited for before a WebSocket is tried beside it. */
const HEAD_START_MS = 1_000;

/**
 * A connection over whichever carrier is there first: a WebSocket is tried as soon as
 * WebTransport has failed, or beside it when it takes its time, as it does in networks that
 * drop UDP. For who has to come back soon. Throws what `dialSession` throws.
 */
export async function dialSoon(alpn: string, options: DialOptions = {}): Promise<Session> {
  const { via = "auto" } = options;
  if (via !== "auto" || !("WebTransport" in globalThis)) return await dialSession(alpn, options);
  const losing = new AbortController();
  const signal = AbortSignal.any([losing.signal, ...(options.signal ? [options.signal] : [])]);
  const over = (via: Carrier) => dialSession(alpn, { ...options, via, signal });
  const first = over("webtransport");
  const tries = [first, unlessBefore(first, () => over("websocket"))];
  try {
    const winner = await firstOf(tries);
    for (const other of tries) {
      // One that gets through all the same is not used.
      other.then((session) => session !== winner && session.close()).catch(() => undefined);
    }
    return winner;
  } finally {
    losing.abort(new Error("another carrier was there first"));
  }
}

/** Starts the second try when the first has failed or takes too long. */
async function unlessBefore(
  first: Promise<Session>,
  second: () => Promise<Session>,
): Promise<Session> {
  let timer: ReturnType<typeof setTimeout>;
  const late = new Promise<false>((resolve) => {
    timer = setTimeout(() => resolve(false), HEAD_START_MS);
  });
  const there = first.then(
    () => true,
    () => false,
  );
  const before = await Promise.race([there, late]).finally(() => clearTimeout(timer));
  return before ? await first : await second();
}

/** The first that succeeds. One that can never succeed fails all, as the last failure does. */
function firstOf(tries: readonly Promise<Session>[]): Promise<Session> {
  return new Promise((resolve, reject) => {
    const failures = new Map<Carrier, unknown>();
    let left = tries.length;
    const failed = (error: unknown) => {
      if (error instanceof DialError)
        error.failures.forEach((why, over) => failures.set(over, why));
      if (!isTransient(error)) reject(error as Error);
      if (--left === 0) reject(failures.size > 0 ? new DialError(failures) : (error as Error));
    };
    for (const attempt of tries) attempt.then(resolve, failed);
  });
}
