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
    return await settled<T>(work(database.transaction(at.store, mode).objectStore(at.store)));
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
