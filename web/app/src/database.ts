/** One store of one of the browser's databases (IndexedDB), made when it is first used. */

/** Does one thing with it, and gives what came of that. */
export async function transact<T>(
  at: { readonly database: string; readonly store: string },
  mode: IDBTransactionMode,
  work: (store: IDBObjectStore) => IDBRequest,
): Promise<T> {
  const opening = indexedDB.open(at.database, 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore(at.store);
  const database = await settled<IDBDatabase>(opening);
  try {
    const transaction = database.transaction(at.store, mode);
    const answer = settled<T>(work(transaction.objectStore(at.store)));
    // What was written is there once all of it is.
    const [result] = await Promise.all([answer, completed(transaction)]);
    return result;
  } finally {
    database.close();
  }
}

function settled<T>(request: IDBRequest): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result as T);
    request.onerror = () => reject(request.error);
  });
}

function completed(transaction: IDBTransaction): Promise<void> {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error);
  });
}
