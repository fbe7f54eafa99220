// The reading room: three linked planes, what was found, and what the reader makes of it.

import { el } from "../dom.js";
import { isTyping } from "../shell.js";
import { createCommands, listenForKeys, pointerKeys } from "../reading/commands.js";
import { createDetails } from "../reading/details.js";
import { createDownloads, showText } from "../reading/downloads.js";
import { findingsOf, sorted } from "../reading/findings.js";
import { findingsText } from "../reading/findings_text.js";
import { createList } from "../reading/list.js";
import { createReadout } from "../reading/readout.js";
import { createReview } from "../reading/review.js";
import { createReviewBar } from "../reading/review_bar.js";
import { createStore } from "../reading/store.js";
import { createToolbar } from "../reading/toolbar.js";
import { createViewer, firstState, windowsOf } from "../reading/viewer.js";

const ADDED_DIAMETER_MM = 6;

export async function mount(root, context) {
  const { api, strings, announce, params, memory } = context;
  const { job } = params;
  const words = strings.reading;
  root.append(el("p", { class: "soft loading" }, words.opening));
  // What the first slice needs is awaited; the rest arrives when it does.
  const [status, result, volume] = await Promise.all(["", "/result", "/volume"].map((part) => api.json(`v1/jobs/${job}${part}`)));
  const review = createReview({ api, job, memory, onChange: refresh });
  let candidates = null;
  let outlines = null;
  let threshold = result.operating_point.threshold;
  let sortedBy = "probability";
  const held = new Set();
  const windows = windowsOf(volume, words);
  const shown = () => sorted(findingsOf(result, candidates, review, threshold), sortedBy);
  const store = createStore(firstState(volume, shown(), windows));
  const refusal = el("p", { class: "fault", role: "alert" });
  const onProblem = (problem) => {
    refusal.textContent = problem.message;
  };

  const readout = createReadout(words, { api, job, volume, store });
  const viewer = createViewer({
    api, job, volume, store, words, onProblem, onAdd: add, held,
    outlines: () => outlines, findings: shown, onPoint: readout.show,
  });
  const commands = createCommands(words.commands, { store, viewer, windows, step, decide, markHere });
  const list = createList(words.list, {
    api, job, result, onChoose: choose,
    onThreshold: (value) => {
      threshold = value;
      refresh();
    },
    onSort: (by) => {
      sortedBy = by;
      refresh();
    },
  });
  const details = createDetails(words.details, {
    api, job, result, review, decide, onProblem,
    onNote: (note) => record(() => review.note(store.get().selected, note), words.review.noted),
    onChange: (number, change) => record(() => review.change(number, change), words.review.noted),
    onRemove: (number) => record(() => review.remove(number), words.review.removed),
  });
  const bar = createReviewBar(words.review, { review, memory, onFinish: () => record(() => review.finish(), words.review.done) });
  const downloads = createDownloads(words.downloads, { api, status, review, onProblem, announce });

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
    const { plane, point } = viewer.here();
    if (begun?.plane === plane && begun.from[0] === point[0]) store.set({ measures: [...measures, { ...begun, to: point }], begun: null });
    else store.set({ begun: { plane, from: point } });
  }

  /** Save, and say so or say why not. */
  async function record(save, said) {
    if (!bar.named()) return announce(words.review.nameFirst);
    bar.say(words.review.saving);
    try {
      await save();
      announce(said);
    } catch (problem) {
      bar.say(problem.status === 412 || problem.status === 409 ? words.review.conflict : problem.message);
      announce(words.review.notSaved);
    }
  }

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
  root.replaceChildren(
    head(words, strings, { status, result, volume, review }),
    createToolbar(words.commands, { store, windows, commands }),
    el("div", { class: "room" }, el("div", { class: "sight" }, viewer.element, readout.element), panel(words, [refusal, list.element, details.element, bar.element, downloads.element])),
  );
  refresh();
  const deaf = listenForKeys(commands, isTyping, held);
  context.keys([
    { title: words.commands.title, keys: commands.map(({ key, what }) => [key, what]) },
    { title: words.commands.pointerTitle, keys: pointerKeys(words.commands) },
  ]);
  const late = (part, take) =>
    api.jsonOrNull(`v1/jobs/${job}/${part}`).then((found) => found && take(found)).catch(onProblem);
  late("outlines", (found) => {
    outlines = found.nodules;
    viewer.redraw();
  });
  late("candidates", (found) => {
    candidates = found;
    list.know(found);
    refresh();
  });
  review.load().then(refresh, onProblem);
  return () => {
    deaf();
    viewer.close();
    details.close();
    readout.close();
  };
}

/** Which study, which model, and where else it can be looked at. */
function head(words, strings, { status, result, volume, review }) {
  const { model, series, operating_point: point } = result;
  const to = (name) => el("a", { class: "button", href: `#/jobs/${status.id}/${name}`, "data-to": name, hidden: name === "prior" && !result.comparison }, words.views[name]);
  const text = () => showText(strings, findingsText(words.text, { result, volume, review }));
  return el(
    "div",
    { class: "head" },
    el("h1", {}, words.title(status.id.slice(0, 8))),
    el("span", { class: "soft" }, words.scan(series)),
    el(
      "span",
      { class: "model" },
      el("a", { href: `#/models/${model.name}/${encodeURIComponent(model.version)}` }, `${model.name}:${model.version}`),
      el("code", { title: model.sha256 }, words.digest(model.sha256)),
      el("span", { class: "soft" }, words.point(point)),
    ),
    warnings(words, result),
    el("span", { class: "spread" }),
    el("nav", { class: "row no-print", "aria-label": words.views.title }, to("3d"), to("patient"), to("prior")),
    el("button", { type: "button", class: "no-print", onClick: text }, words.text.open),
    el("button", { type: "button", class: "no-print", onClick: () => window.print() }, words.print),
  );
}

function warnings(words, { acceptance }) {
  const notices = [...acceptance.warnings, ...acceptance.repairs];
  if (notices.length === 0) return null;
  return el("details", { class: "warnings" }, el("summary", {}, words.warnings(notices.length)), el("ul", {}, ...notices.map(({ message }) => el("li", {}, message))));
}

const panel = (words, parts) => el("div", { class: "side", tabIndex: 0, role: "region", "aria-label": words.panel, "data-scrolls": "" }, ...parts);
