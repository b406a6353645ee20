import { Client, type ClientOptions } from "./client.js";
import { dialSession, type DialOptions } from "./dial/dial.js";
import { dialSoon } from "./dial/hedge.js";
import { GitHttp } from "./git/http.js";
import type { AnyOperations, OperationTypes } from "./operations.js";
import { Shells } from "./shell/shells.js";

export { CallError, type CallErrorOptions, type Code as ErrorCode } from "./call/error.js";
export {
  Item,
  type HandlerContext,
  type Operation,
  type Operations,
  type Stream,
  type Unary,
} from "./call/services.js";
export {
  Client,
  RegistrationEvent,
  StateEvent,
  type CallOptions,
  type ClientOptions,
} from "./client.js";
export type { Dialler, Reason, State } from "./connector.js";
export {
  dial,
  DialError,
  dialSession,
  UnsupportedError,
  type DialOptions,
  type Via,
} from "./dial/dial.js";
export { dialSoon } from "./dial/hedge.js";
export { SignedOutError } from "./dial/node.js";
export { Code, type Carrier, type Duplex, type Line, type Session } from "./dial/session.js";
export { GitRefusedError, type Pieces } from "./git/exchange.js";
export { GitHttp, type GitRequest, type GitResponse } from "./git/http.js";
export { GitProtocolError } from "./git/packets.js";
export { repositoryUrl } from "./git/target.js";
export type { AnyOperations, CallName, OperationTypes, SubscriptionName } from "./operations.js";
export {
  ShellError,
  type Attached,
  type Exit,
  type Notice,
  type RunningShell,
  type ShellErrorCode,
  type ShellViewer,
} from "./shell/control.js";
export type { Viewer } from "./shell/core.js";
export { ShellProtocolError, type TerminalSize } from "./shell/frame.js";
export {
  AttachedEvent,
  NoticeEvent,
  ScreenEvent,
  Shell,
  ShellStateEvent,
  type AttachOptions,
  type ShellEnd,
  type ShellState,
} from "./shell/shell.js";
export { Shells, type Which } from "./shell/shells.js";
export {
  keyOf,
  parseNodeId,
  StatementError,
  verifyStatement,
  type Certificate,
  type NodeId,
} from "./statement.js";
export { Subscription, type SubscribeOptions } from "./subscription.js";
export type { Bytes } from "./bytes.js";
export type { Json, JsonObject } from "./json.js";

/** The service that answers calls. */
export const CALL = "alknet/call";

/** The service of shells that outlive their transports. */
export const SHELL = "alknet/shell";

/** The service of git's exchanges, each on a stream. */
export const GIT = "alknet/git";

/** How to reach a node, and what its client is made of. */
export type ConnectOptions = Omit<DialOptions, "signal"> & ClientOptions;

/**
 * A client of a node, which connects in the background. `Ops` are its operations' types, as
 * `alknet-types` writes them.
 */
export function connect<Ops extends OperationTypes<Ops> = AnyOperations>(
  options: ConnectOptions = {},
): Client<Ops> {
  return new Client<Ops>((signal) => dialSession(CALL, { ...options, signal }), options);
}

/** The shells of a node that outlive their transports. */
export function shells(options: Omit<DialOptions, "signal"> = {}): Shells {
  return new Shells((signal) => dialSoon(SHELL, { ...options, signal }));
}

/** The `http` of isomorphic-git for a node's repositories, which `repositoryUrl` addresses. */
export function gitHttp(options: Omit<DialOptions, "signal"> = {}): GitHttp {
  const origin = options.origin ?? location.origin;
  return new GitHttp((signal) => dialSoon(GIT, { ...options, signal }), origin);
}
