// What a test started ends in the reverse order: the browser before the node it talks to.
const stacks = new WeakMap();

export function cleanUp(test, action) {
  let actions = stacks.get(test);
  if (actions === undefined) {
    actions = [];
    stacks.set(test, actions);
    test.after(() => unwind(actions));
  }
  actions.push(action);
}

/** Every action runs, whatever happens to the others. */
async function unwind(actions) {
  const failures = [];
  for (const action of actions.reverse()) {
    try {
      await action();
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length === 1) throw failures[0];
  if (failures.length > 1) throw new AggregateError(failures);
}
