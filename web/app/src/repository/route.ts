/** Which part of a repository, as the address says. A revision left out is the default branch. */
export type Route =
  | { page: "list" }
  | { page: "new" }
  | { page: "files"; repository: string; rev?: string | undefined; path: string }
  | {
      page: "history";
      repository: string;
      rev?: string | undefined;
      path: string;
      skip: number;
    }
  | { page: "commit"; repository: string; id: string }
  | { page: "edit"; repository: string; path: string }
  | { page: "settings"; repository: string };

const START = "#/git";
/** What no repository is called. */
const NEW = "-";
/** Stands where a revision would, for the default branch. */
const DEFAULT = "-";

/** The route that a fragment of the page's address stands for, if it is one of repositories. */
export function parseRoute(hash: string): Route | undefined {
  if (hash !== START && !hash.startsWith(`${START}/`)) return undefined;
  const [path = "", query] = hash.slice(START.length + 1).split("?", 2);
  const words = decode(path);
  if (words === undefined) return { page: "list" };
  const [repository, page, first, ...more] = words;
  if (repository === undefined) return { page: "list" };
  if (repository === NEW) return { page: "new" };
  const rev = first === undefined || first === DEFAULT ? undefined : first;
  switch (page) {
    case "history": {
      const skip = Number(new URLSearchParams(query).get("skip") ?? 0);
      const from = Number.isSafeInteger(skip) && skip > 0 ? skip : 0;
      return { page, repository, rev, path: more.join("/"), skip: from };
    }
    case "commit":
      return first === undefined ? filesOf(repository) : { page, repository, id: first };
    case "edit":
      return { page, repository, path: words.slice(2).join("/") };
    case "settings":
      return { page, repository };
    case "files":
      return { page, repository, rev, path: more.join("/") };
    default:
      return filesOf(repository);
  }
}

/** The fragment for a route. */
export function hashOf(route: Route): string {
  switch (route.page) {
    case "list":
      return START;
    case "new":
      return `${START}/${NEW}`;
    case "files":
      if (route.rev === undefined && route.path === "") return encode(route.repository);
      return encode(route.repository, route.page, route.rev ?? DEFAULT, ...split(route.path));
    case "history": {
      const { repository, page, rev, path, skip } = route;
      const hash = encode(repository, page, rev ?? DEFAULT, ...split(path));
      return skip > 0 ? `${hash}?skip=${skip}` : hash;
    }
    case "commit":
      return encode(route.repository, route.page, route.id);
    case "edit":
      return encode(route.repository, route.page, ...split(route.path));
    case "settings":
      return encode(route.repository, route.page);
  }
}

/** The root of a repository's files. */
export function filesOf(repository: string): Route {
  return { page: "files", repository, path: "" };
}

/** The words of a path; none for the root. */
export function split(path: string): string[] {
  return path.split("/").filter((word) => word !== "");
}

function encode(...words: string[]): string {
  return [START, ...words.map(encodeURIComponent)].join("/");
}

function decode(path: string): string[] | undefined {
  try {
    return split(path).map(decodeURIComponent);
  } catch {
    return undefined;
  }
}

/** A revision in few letters, for an address or a label. */
export function shortRev(rev: string): string {
  return /^[0-9a-f]{40,64}$/.test(rev) ? rev.slice(0, 8) : rev.replace(/^refs\/(heads|tags)\//, "");
}
