/** The codes of the protocol itself; operations declare codes of their own. */
export type Code =
  "NOT_FOUND" | "FORBIDDEN" | "INVALID_INPUT" | "TIMEOUT" | "UNAVAILABLE" | "INTERNAL";

/** What else there is to say of a failed call. */
export interface CallErrorOptions extends ErrorOptions {
  retryable?: boolean;
  details?: unknown;
}

/**
 * A call that failed. Thrown by a handler of {@link Client.serve}, it is what the node is told.
 */
export class CallError extends Error {
  override readonly name = "CallError";
  /** A {@link Code} or one of the operation's own. An unknown one counts as `INTERNAL`. */
  readonly code: string;
  /** Whether the same call may succeed later. */
  readonly retryable: boolean;
  /** Any JSON. */
  readonly details: unknown;

  constructor(
    code: Code | (string & {}),
    message: string,
    { retryable = false, details, cause }: CallErrorOptions = {},
  ) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.retryable = retryable;
    this.details = details;
  }
}

/** The stream of a call has ended before the call has. */
export class Lost extends Error {
  /** Whether the node may have seen the request. */
  readonly sent: boolean;

  constructor(sent: boolean, options?: ErrorOptions) {
    super("the connection was lost", options);
    this.sent = sent;
  }
}
