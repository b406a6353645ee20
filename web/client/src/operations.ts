/** An operation's types, as `alknet-types` writes them from a node's schemas. */
export interface OperationType {
  type: "query" | "mutation" | "subscription";
  input: unknown;
  output: unknown;
}

/** Types by names of operations. */
export type OperationTypes<Ops> = { [Name in keyof Ops]: OperationType };

/** Any operation, with any input and output: what a client knows without generated types. */
export interface AnyOperations {
  // Both sides of the comparison: such an operation can be called and subscribed to.
  [name: string]: { type: any; input: any; output: any };
}

/** The names of queries and mutations. */
export type CallName<Ops extends OperationTypes<Ops>> = {
  [Name in keyof Ops]: Ops[Name]["type"] extends "subscription" ? never : Name;
}[keyof Ops] &
  string;

/** The names of subscriptions. */
export type SubscriptionName<Ops extends OperationTypes<Ops>> = {
  [Name in keyof Ops]: "subscription" extends Ops[Name]["type"] ? Name : never;
}[keyof Ops] &
  string;

/** The arguments behind the name; an input that needs nothing may be left out. */
export type Args<Input, Options> = {} extends Input
  ? [input?: Input, options?: Options]
  : [input: Input, options?: Options];
