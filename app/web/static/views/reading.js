// The reading room: three linked planes, what was found, and what the reader makes of it.

import { el } from "../dom.js";
import { createActions } from "../reading/actions.js";
import { createCommands, listenForKeys, pointerKeys } from "../reading/commands.js";
import { createDetails } from "../reading/details.js";
import { createDownloads } from "../reading/downloads.js";
import { findingsOf, sorted } from "../reading/findings.js";
import { createHead } from "../reading/head.js";
import { createList } from "../reading/list.js";
import { createReadout } from "../reading/readout.js";
import { createReview } from "../reading/review.js";
import { createReviewBar } from "../reading/review_bar.js";
import { createStore } from "../reading/store.js";
import { createToolbar } from "../reading/toolbar.js";
import { createViewer, firstState, windowsOf } from "../reading/viewer.js";
import { isTyping } from "../shell.js";

export async function mount(root, context) {
  const { api, strings, params } = context;
  root.append(el("p", { class: "soft loading" }, strings.reading.opening));
  // What the first slice needs is awaited; the rest arrives when it does.
  const parts = ["", "/result", "/volume"].map((part) => api.json(`v1/jobs/${params.job}${part}`));
  const [status, result, volume] = await Promise.all(parts);
  return furnish(root, context, { status, result, volume });
}

/** Set up the room and connect its parts. @returns {() => void} leaves it */
function furnish(root, context, known) {
  const { api, strings, announce, params, memory } = context;
  const { result, volume, status } = known;
  const { job } = params;
  const words = strings.reading;
  const late = { candidates: null, outlines: null };
  const wish = { threshold: result.operating_point.threshold, order: "probability" };
  const held = new Set();
  const windows = windowsOf(volume, words);
  const review = createReview({ api, job, memory, onChange: refresh });
  const shown = () => sorted(findingsOf(result, late.candidates, review, wish.threshold), wish.order);
  const store = createStore(firstState(volume, shown(), windows));
  const refusal = el("p", { class: "fault", role: "alert" });
  const onProblem = (problem) => {
    refusal.textContent = problem.message;
  };
  const wishFor = (name) => (value) => {
    wish[name] = value;
    refresh();
  };

  const actions = createActions(words, { store, shown, review, announce, bar: () => bar, viewer: () => viewer });
  const readout = createReadout(words, { api, job, volume, store });
  const viewer = createViewer({
    api, job, volume, store, words, onProblem, held, onAdd: actions.add, onPoint: readout.show,
    outlines: () => late.outlines, findings: shown,
  });
  const commands = createCommands(words.commands, { store, viewer, windows, ...actions });
  const list = createList(words.list, {
    api, job, result, onChoose: actions.choose, onThreshold: wishFor("threshold"), onSort: wishFor("order"),
  });
  const details = createDetails(words.details, {
    api, job, result, review, onProblem,
    decide: actions.decide, onNote: actions.note, onChange: actions.change, onRemove: actions.remove,
  });
  const bar = createReviewBar(words.review, { review, memory, onFinish: actions.finish });
  const downloads = createDownloads(words.downloads, { api, status, review, onProblem, announce });

  function refresh() {
    const all = shown();
    list.show(all, store.get().selected);
    details.show(all.find(({ id }) => id === store.get().selected));
    bar.show(result.nodules.length);
    downloads.show();
    viewer.redraw();
  }

  store.listen((_, change) => {
    if ("selected" in change) refresh();
  });
  const side = el(
    "div",
    { class: "side", tabIndex: 0, role: "region", "aria-label": words.panel, "data-scrolls": "" },
    refusal, list.element, details.element, bar.element, downloads.element,
  );
  root.replaceChildren(
    createHead(words, strings, { ...known, review }),
    createToolbar(words.commands, { store, windows, commands }),
    el("div", { class: "room" }, el("div", { class: "sight" }, viewer.element, readout.element), side),
  );
  refresh();
  const deaf = listenForKeys(commands, isTyping, held);
  context.keys([
    { title: words.commands.title, keys: commands.map(({ key, what }) => [key, what]) },
    { title: words.commands.pointerTitle, keys: pointerKeys(words.commands) },
  ]);
  fetchTheRest(api, job, onProblem, (part, found) => {
    if (part === "outlines") late.outlines = found.nodules;
    else {
      late.candidates = found;
      list.know(found);
    }
    refresh();
  });
  review.load().then(refresh, onProblem);
  return () => {
    deaf();
    for (const part of [viewer, details, readout]) part.close();
  };
}

function fetchTheRest(api, job, onProblem, take) {
  for (const part of ["outlines", "candidates"]) {
    api.jsonOrNull(`v1/jobs/${job}/${part}`).then((found) => found && take(part, found)).catch(onProblem);
  }
}
