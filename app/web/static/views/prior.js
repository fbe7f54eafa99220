// The current scan and an earlier one side by side, scrolled together by the comparison's registration; growth in a table
// and drawn.

import { el } from "../dom.js";
import { cssColor, filledIn, sheet } from "../sheet.js";
import { createAxial } from "../prior/axial.js";
import { daysBetween, growthCharts, growthTable, pairsOf, unmatched } from "../prior/growth.js";
import { fromRows, invert, transform } from "../scene/matrix.js";
import { mark, noduleColor } from "../scene/parts.js";

export async function mount(root, { api, strings, params, announce, keys }) {
  const words = strings.priorPage;
  keys?.([words.keyList]);
  const ground = await sheet(root, words.title, "charts.css", "prior.css");
  const wait = el("p", { role: "status" }, words.loading);
  ground.append(wait);
  const stop = (text) => {
    wait.replaceWith(el("p", { role: "alert" }, text));
    return () => {};
  };
  let result, link;
  try {
    result = await api.json(`v1/jobs/${params.job}/result`);
  } catch (problem) {
    return stop(problem.message);
  }
  if (!result.comparison) return stop(words.none);
  const viewers = el("div", { class: "prior-viewers" });
  const pairs = pairsOf(result);
  const { comparison } = result;
  let jump = () => {};
  wait.replaceWith(
    el("nav", { class: "sheet-links", "aria-label": strings.scene.links }, el("a", { href: `#/jobs/${params.job}` }, strings.scene.reading), el("a", { href: `#/jobs/${params.job}/3d` }, strings.scene.title)),
    el("p", {}, `${daysBetween(comparison.days_between, words)} ${registration(comparison.registration, words)}`),
    viewers,
    pairs.length ? growthTable(pairs, words.growth, strings.places, (place) => jump(place)) : el("p", {}, words.growth.noPairs),
    el("div", { class: "chart-row" }, growthCharts(pairs, comparison.days_between, words.growth)),
    el("h2", {}, words.growth.loneTitle),
    unmatched(result, words.growth, strings.places),
    el("p", { class: "sheet-soft" }, comparison.rule),
  );
  try {
    link = await api.json(`v1/jobs/${params.job}/prior`);
    if (!link.available) throw new Error(words.priorGone);
    const [now, before] = await Promise.all([params.job, link.job_id].map((job) => api.json(`v1/jobs/${job}/volume`)));
    const shown = sideBySide({ api, jobs: [params.job, link.job_id], volumes: [now, before], link, words, announce });
    viewers.append(...shown.elements);
    shown.setRings(ringsOf(result, pairs));
    jump = shown.jump;
    return shown.free;
  } catch (problem) {
    viewers.append(el("p", { role: "alert" }, filledIn(words.noPictures, { why: problem.message })));
    return () => {};
  }
}

function registration(quality, words) {
  if (!quality.usable) return filledIn(words.unusable, { why: quality.failure?.message ?? "" });
  return filledIn(words.registration, { mm: quality.error_mm.toFixed(1) });
}

/** Rings of the current scan and of the earlier one: full for pairs, dashed for those without a partner. */
function ringsOf(result, pairs) {
  const paired = new Map(pairs.map(({ current, prior, letter, color }) => [prior.id, { letter, color, current: current.id }]));
  const current = result.nodules.map((nodule, number) => ({
    ...nodule,
    letter: mark(number),
    color: cssColor(noduleColor(number)),
    dashed: !pairs.some((pair) => pair.current.id === nodule.id),
  }));
  const prior = result.comparison.prior_nodules.map((nodule) => ({
    ...nodule,
    letter: paired.get(nodule.id)?.letter ?? nodule.id,
    color: paired.has(nodule.id) ? cssColor(paired.get(nodule.id).color) : "#fff",
    dashed: !paired.has(nodule.id),
  }));
  return [current, prior];
}

function sideBySide({ api, jobs, volumes, link, words, announce }) {
  // Without a matrix the scans could not be laid over each other: each is scrolled alone.
  const priorFromCurrent = link.current_to_prior_lps && fromRows(link.current_to_prior_lps);
  const currentFromPrior = priorFromCurrent && invert(priorFromCurrent);
  const canLink = Boolean(currentFromPrior);
  const linked = el("input", { type: "checkbox", id: "prior-linked", checked: canLink, disabled: !canLink, onChange: () => linked.checked && follow(0) });
  const viewers = volumes.map((volume, number) =>
    createAxial({ api, job: jobs[number], volume, title: words.scans[number], words, onScroll: () => linked.checked && follow(number) }),
  );
  // What lies where: the nodule jumped to last, else the middle of the picture, since scans need not be parallel.
  let focus = null;

  function follow(from) {
    const [moved, other] = [viewers[from], viewers[1 - from]];
    const matrix = from === 0 ? priorFromCurrent : currentFromPrior;
    const [, row, column] = focus ? moved.fromLps(from === 0 ? focus : transform(priorFromCurrent, focus).slice(0, 3)) : [0, moved.rows / 2, moved.columns / 2];
    const there = transform(matrix, moved.toLps([moved.slice, row, column])).slice(0, 3);
    other.show(other.fromLps(there)[0]);
  }

  function jump(lps) {
    focus = lps;
    viewers[0].show(viewers[0].fromLps(lps)[0]);
    if (linked.checked) follow(0);
    announce(filledIn(words.jumped, { now: viewers[0].slice + 1, before: viewers[1].slice + 1 }));
  }

  const windows = volumes[0].windows;
  const choice = el("select", { id: "prior-window", onChange: () => viewers.forEach((viewer) => viewer.setWindow(windows[choice.value])) }, windows.map(({ name }, number) => el("option", { value: number }, words.windows[name] ?? name)));
  const bar = el("div", { class: "prior-bar" }, el("label", { for: "prior-linked" }, linked, words.linked), el("label", { for: "prior-window" }, words.window), choice);
  if (canLink) follow(0);
  const held = canLink && typeof link.residual_mm === "number" ? filledIn(words.residual, { mm: link.residual_mm.toFixed(1) }) : canLink ? "" : words.notLinked;
  return {
    elements: [bar, el("p", { class: "sheet-soft" }, held), ...viewers.map(({ element }) => element)],
    setRings: (rings) => rings.forEach((own, number) => viewers[number].setRings(own)),
    jump,
    free: () => viewers.forEach((viewer) => viewer.free()),
  };
}
