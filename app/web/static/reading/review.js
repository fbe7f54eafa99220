// What the reader decides, kept by the service beside the answer. Every change is saved at once, under the version it
// was made on: if somebody else saved meanwhile, theirs is shown and nothing is overwritten.

/**
 * @param {{api: any, job: string, memory: {reviewer: string}, onChange: () => void}} parts
 */
export function createReview({ api, job, memory, onChange }) {
  const path = `v1/jobs/${job}/review`;
  let stored = { reviewer: "", decisions: [], added: [], finished: false, updated_at: null };
  let etag = null;
  let queue = Promise.resolve();

  async function load() {
    try {
      const response = await api.request("GET", path);
      etag = response.headers.get("ETag");
      stored = { ...stored, ...(await response.json()) };
    } catch (problem) {
      if (problem.status !== 404) throw problem;
    }
  }

  async function put(change) {
    const wanted = change(stored);
    const body = {
      reviewer: memory.reviewer,
      decisions: wanted.decisions.map(({ nodule_id, decision, note }) => ({ nodule_id, decision, note })),
      added: wanted.added.map(({ center_lps_mm, diameter_mm, note }) => ({ center_lps_mm, diameter_mm, note })),
      finished: wanted.finished,
    };
    try {
      const response = await api.send("PUT", path, body, etag ? { "If-Match": etag } : { "If-None-Match": "*" });
      etag = response.headers.get("ETag");
      stored = { ...wanted, ...(response.status === 204 ? {} : await response.json()) };
    } catch (problem) {
      // 412: another version is stored; 409 is the service's for two writers at the same moment.
      if (problem.status === 412 || problem.status === 409) await load();
      throw problem;
    } finally {
      onChange();
    }
  }

  /** One after the other: two quick decisions must not meet each other's version. */
  function save(change) {
    const saving = queue.then(() => put(change));
    queue = saving.catch(() => {});
    return saving;
  }

  const decision = (id) => stored.decisions.find((one) => one.nodule_id === id) ?? null;

  const decided = (id, next, note) => (now) => {
    const before = now.decisions.find((one) => one.nodule_id === id);
    const others = now.decisions.filter((one) => one.nodule_id !== id);
    // The same decision again takes it back.
    if (note === undefined && before?.decision === next) return { ...now, decisions: others, finished: false };
    const made = { nodule_id: id, decision: next, note: note ?? before?.note ?? "" };
    return { ...now, decisions: [...others, made], finished: false };
  };

  return {
    load,
    decision,
    added: () => stored.added,
    exists: () => etag !== null,
    state: () => stored,
    decide: (id, next) => save(decided(id, next)),
    note: (id, note) => save(decided(id, decision(id)?.decision, note)),
    add: (mark) => save((now) => ({ ...now, added: [...now.added, mark], finished: false })),
    change: (number, change) =>
      save((now) => ({ ...now, added: now.added.map((mark, place) => (place === number ? { ...mark, ...change } : mark)), finished: false })),
    remove: (number) => save((now) => ({ ...now, added: now.added.filter((_, place) => place !== number), finished: false })),
    finish: () => save((now) => ({ ...now, finished: true })),
  };
}
