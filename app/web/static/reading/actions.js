// What a reader does with findings: go to one, decide on it, add one, and have it saved.

const ADDED_DIAMETER_MM = 6;

/**
 * @param {any} words of the reading
 * @param {{store: any, shown: () => any[], review: any, bar: () => any, viewer: () => any,
 *   announce: (text: string) => void}} parts `shown`: findings in the order of the list
 */
export function createActions(words, { store, shown, review, bar, viewer, announce }) {
  function choose(id) {
    const finding = shown().find((one) => one.id === id);
    if (!finding) return;
    store.set({ selected: id, position: finding.center_lps_mm });
    announce(words.list.spoken(finding));
  }

  function step(by) {
    const all = shown();
    if (all.length === 0) return;
    const at = all.findIndex(({ id }) => id === store.get().selected);
    choose(all[at < 0 ? 0 : (at + by + all.length) % all.length].id);
  }

  function decide(decision) {
    const finding = shown().find(({ id }) => id === store.get().selected);
    if (!finding?.nodule) return announce(words.review.noNodule);
    record(() => review.decide(finding.id, decision), words.review.decided[decision]);
  }

  function add(center_lps_mm) {
    store.set({ tool: "point" });
    record(() => review.add({ center_lps_mm, diameter_mm: ADDED_DIAMETER_MM, note: "" }), words.review.addedOne);
  }

  /** What the tool in hand does, at the crosshair. A line is begun, and ended in the plane and slice it was begun in. */
  function markHere() {
    const { tool, begun, measures, position } = store.get();
    if (tool === "add") return add(position);
    if (tool !== "measure") return;
    const { plane, point } = viewer().here();
    if (begun?.plane === plane && begun.from[0] === point[0]) store.set({ measures: [...measures, { ...begun, to: point }], begun: null });
    else store.set({ begun: { plane, from: point } });
  }

  /** Save, and say so or say why not. */
  async function record(save, said) {
    if (!bar().named()) return announce(words.review.nameFirst);
    bar().saving();
    try {
      await save();
      announce(said);
    } catch (problem) {
      bar().say(problem.status === 412 || problem.status === 409 ? words.review.conflict : problem.message);
      announce(words.review.notSaved);
    }
  }

  return {
    choose,
    step,
    decide,
    add,
    markHere,
    note: (note) => record(() => review.note(store.get().selected, note), words.review.noted),
    change: (number, change) => record(() => review.change(number, change), words.review.noted),
    remove: (number) => record(() => review.remove(number), words.review.removed),
    finish: () => record(() => review.finish(), words.review.done),
  };
}
