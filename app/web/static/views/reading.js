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
  const held = new Set();
  const parts = createParts(context, known, held, refresh);
  const { store, shown, viewer, list, details, bar, downloads, review, commands } = parts;

  function refresh() {
    const all = shown();
    list.show(all, store.get().selected);
    details.show(all.find(({ id }) => id === store.get().selected));
    bar.show(known.result.nodules.length);
    downloads.show();
    viewer.redraw();
  }

  store.listen((_, change) => {
    if ("selected" in change) refresh();
  });
  root.replaceChildren(...roomOf(context.strings, known, parts));
  refresh();
  const deaf = listenForKeys(commands, isTyping, held);
  const words = context.strings.reading.commands;
  context.keys([
    { title: words.title, keys: commands.map(({ key, what }) => [key, what]) },
    { title: words.pointerTitle, keys: pointerKeys(words) },
  ]);
  fetchTheRest(context.api, context.params.job, parts, refresh);
  review.load().then(refresh, parts.onProblem);
  return () => {
    deaf();
    for (const part of [viewer, details, parts.readout]) part.close();
  };
}

/** Everything in the room; `late` is filled as it arrives, `refresh` shows what has changed. */
function createParts({ api, strings, announce, params, memory }, { status, result, volume }, held, refresh) {
  const { job } = params;
  const words = strings.reading;
  const late = { candidates: null, outlines: null };
  const wish = { threshold: result.operating_point.threshold, order: "probability" };
  const wishFor = (name) => (value) => {
    wish[name] = value;
    refresh();
  };
  const windows = windowsOf(volume, words);
  const review = createReview({ api, job, memory, onChange: refresh });
  const shown = () => sorted(findingsOf(result, late.candidates, review, wish.threshold), wish.order);
  const store = createStore(firstState(volume, shown(), windows, askedFor()));
  const refusal = el("p", { class: "fault", role: "alert" });
  const onProblem = (problem) => {
    refusal.textContent = problem.message;
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
    api, job, result, review,
    decide: actions.decide, onNote: actions.note, onChange: actions.change, onRemove: actions.remove,
  });
  const bar = createReviewBar(words.review, { review, memory, onFinish: actions.finish });
  const downloads = createDownloads(words.downloads, { api, status, review, onProblem, announce });
  return { late, store, shown, windows, review, refusal, onProblem, readout, viewer, commands, list, details, bar, downloads };
}

/** The nodule that the address names: other views link to one. */
const askedFor = () => new URLSearchParams(location.hash.split("?")[1] ?? "").get("nodule");

function roomOf(strings, known, { store, windows, commands, review, refusal, viewer, readout, list, details, bar, downloads }) {
  const words = strings.reading;
  const side = el(
    "div",
    { class: "side", tabIndex: 0, role: "region", "aria-label": words.panel, "data-scrolls": "" },
    refusal, list.element, details.element, bar.element, downloads.element,
  );
  return [
    createHead(words, strings, { ...known, review }),
    createToolbar(words.commands, { store, windows, commands }),
    el("div", { class: "room" }, el("div", { class: "sight" }, viewer.element, readout.element), side),
  ];
}

/** Outlines and candidates: the first slice does not wait for them. */
function fetchTheRest(api, job, { late, list, onProblem }, refresh) {
  const fetchPart = (part, take) =>
    api.jsonOrNull(`v1/jobs/${job}/${part}`).then((found) => {
      if (!found) return;
      take(found);
      refresh();
    }).catch(onProblem);
  fetchPart("outlines", (found) => {
    late.outlines = found.nodules;
  });
  fetchPart("candidates", (found) => {
    late.candidates = found;
    list.know(found);
  });
}
