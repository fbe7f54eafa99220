// What the comparison says, in a table, in words and drawn.

import { barChart } from "../charts/bars.js";
import { figure } from "../charts/frame.js";
import { lineChart } from "../charts/lines.js";
import { el } from "../dom.js";
import { cssColor, filledIn, swatch, table } from "../sheet.js";
import { mark, noduleColor } from "../scene/parts.js";
import { whereabouts } from "../scene/words.js";

/** [{letter, color, current, prior, growth}] for the nodules of both scans, letters as in the list of the current one. */
export function pairsOf(result) {
  const { matched, prior_nodules: before } = result.comparison;
  return matched.map((pair) => {
    const number = result.nodules.findIndex(({ id }) => id === pair.current_id);
    return {
      letter: mark(number),
      color: noduleColor(number),
      current: result.nodules[number],
      prior: before.find(({ id }) => id === pair.prior_id),
      growth: pair.growth,
    };
  });
}

export function growthTable(pairs, words, places, jump) {
  const rows = pairs.map(({ letter, color, current, prior, growth }) => [
    el("button", { type: "button", onClick: () => jump(current.center_lps_mm) }, swatch(letter, color), filledIn(words.pair, { current: current.id, where: whereabouts(current, places) })),
    filledIn(words.diameters, { before: prior.diameter_mm.toFixed(1), now: current.diameter_mm.toFixed(1), change: signed(growth.diameter_change_mm, 1) }),
    filledIn(words.volumes, { before: whole(prior.volume_mm3), now: whole(current.volume_mm3) }),
    filledIn(growth.interval_is_assumed ? words.changeAssumed : words.change, {
      change: signed(growth.volume_change_percent, 0),
      low: signed(growth.volume_change_interval_percent[0], 0),
      high: signed(growth.volume_change_interval_percent[1], 0),
    }),
    doubling(growth, words),
    `${words.byVolume[growth.by_volume]}${growth.is_beyond_uncertainty ? "" : ` ${words.uncertain}`}`,
  ]);
  return el("div", { class: "sheet-wide", tabIndex: 0, role: "region", "aria-label": words.caption }, table(words.caption, words.headings, rows));
}

/** A model without outlines measures no volume. */
const whole = (value) => (value === null ? "–" : Math.round(value));

/** With its sign, but for what is none once it is rounded. */
function signed(value, digits) {
  const size = Math.abs(value).toFixed(digits);
  return `${Number(size) === 0 ? "" : value > 0 ? "+" : "−"}${size}`;
}

function doubling({ doubling_time_days: days, doubling_time_interval_days: interval }, words) {
  if (days === null || days === undefined) return words.noDoubling;
  const told = filledIn(days < 0 ? words.halving : words.doubling, { days: Math.round(Math.abs(days)) });
  if (!interval) return told;
  const [low, high] = interval.map((end) => (end === null ? words.noBound : String(Math.round(end))));
  return `${told} ${filledIn(words.interval, { low, high })}`;
}

/** Nodules of one scan alone, each with why. */
export function unmatched(result, words, places) {
  const { only_current: now, only_prior: before, prior_nodules: nodules } = result.comparison;
  const line = (lone, nodule, scan) =>
    el("li", {}, filledIn(words.lone[lone.status], { id: lone.nodule_id, scan, mm: nodule ? nodule.diameter_mm.toFixed(1) : "–" }));
  const items = [
    ...now.map((lone) => line(lone, result.nodules.find(({ id }) => id === lone.nodule_id), words.inCurrent)),
    ...before.map((lone) => line(lone, nodules.find(({ id }) => id === lone.nodule_id), words.inPrior)),
  ];
  return items.length ? el("ul", { class: "prior-lone" }, items) : el("p", {}, words.noLone);
}

/** Diameter and volume of each pair over the days between, or as bars where the days are not known. */
export function growthCharts(pairs, days, words) {
  const fields = [
    ["diameter_mm", words.diameterChart, words.diameterAxis],
    ["volume_mm3", words.volumeChart, words.volumeAxis],
  ];
  return fields.flatMap(([field, title, yLabel]) => {
    const known = pairs.filter(({ current, prior }) => current[field] !== null && prior[field] !== null);
    return known.length ? [growthChart(known, days, words, { field, title, yLabel })] : [];
  });
}

function growthChart(pairs, days, words, { field, title, yLabel }) {
  const given = { title, yLabel, tableLabel: words.asTable };
  if (days > 0) {
    const series = pairs.map(({ letter, color, current, prior }) => ({
      color: cssColor(color),
      name: filledIn(words.nodule, { letter }),
      points: [{ x: 0, y: prior[field] }, { x: days, y: current[field] }],
    }));
    return lineChart({ ...given, series, xLabel: words.daysAxis, xTicks: [0, days] });
  }
  const series = [
    { name: words.earlier, values: pairs.map(({ prior }) => prior[field]) },
    { name: words.now, values: pairs.map(({ current }) => current[field]) },
  ];
  return barChart({ ...given, series, labels: pairs.map(({ letter }) => letter), xLabel: words.noduleAxis, grouped: true, note: words.noDates });
}

export const daysBetween = (days, words) => (days === null ? words.daysUnknown : filledIn(words.days, { days: figure(days) }));
