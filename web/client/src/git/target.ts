import type { Bytes } from "../bytes.js";
import { packet } from "./packets.js";

/** Below which the repositories of a node are, for git's clients over HTTPS. */
const PATH = "/alknet/git/";

/** What git is asked to do: fetch or push. */
export type GitService = "git-upload-pack" | "git-receive-pack";

/** What a request of git's smart HTTP protocol asks for. */
export interface Target {
  service: GitService;
  repository: string;
}

/** The address of a repository, for isomorphic-git and for git itself. */
export function repositoryUrl(repository: string, origin: string = location.origin): string {
  return new URL(PATH + named(repository), origin).href;
}

/** What is asked for, of the node with this origin. Throws a `TypeError` for anything else. */
export function targetOf(method: string, address: string, origin: string): Target {
  const url = new URL(address);
  if (url.origin !== new URL(origin).origin || !url.pathname.startsWith(PATH)) {
    throw new TypeError(`${url.origin}${url.pathname} is no repository of ${origin}`);
  }
  const asks = method === "GET";
  const [path, last] = asks ? cut(url.pathname, "/info/refs") : cutLast(url.pathname);
  const service = asks ? url.searchParams.get("service") : last;
  if (path === undefined || (service !== "git-upload-pack" && service !== "git-receive-pack")) {
    throw new TypeError(`${method} ${url.pathname} is no request of git`);
  }
  return { service, repository: named(path.slice(PATH.length)) };
}

/**
 * The line that opens an exchange, as git's daemon has it (gitprotocol-pack, section "Git
 * transport"). A version of the protocol other than the first has to be asked for.
 */
export function requestLine({ service, repository }: Target, origin: string, version = 0): Bytes {
  const more = version > 0 ? `\0version=${version}\0` : "";
  return packet(`${service} /${repository}\0host=${new URL(origin).host}\0${more}`);
}

function cut(path: string, end: string): [string | undefined, string] {
  return [path.endsWith(end) ? path.slice(0, -end.length) : undefined, end];
}

function cutLast(path: string): [string | undefined, string] {
  const at = path.lastIndexOf("/");
  return [path.slice(0, at), path.slice(at + 1)];
}

function named(repository: string): string {
  const name = repository.replace(/\.git$/, "");
  if (!/^[a-z0-9._/-]+$/.test(name)) throw new TypeError(`no repository is called ${repository}`);
  return name;
}
