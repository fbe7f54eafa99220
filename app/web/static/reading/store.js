// What the reading view shows now, in one place; who depends on it listens.

/** @param {Record<string, any>} initial */
export function createStore(initial) {
  let state = initial;
  const listeners = [];
  return {
    get: () => state,
    /** @param {Record<string, any>} change */
    set: (change) => {
      state = { ...state, ...change };
      for (const listener of listeners) listener(state, change);
    },
    /** @param {(state: any, change: any) => void} listener */
    listen: (listener) => {
      listeners.push(listener);
    },
  };
}
