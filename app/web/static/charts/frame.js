// What every chart has: axes with ticks and units, a caption, a legend of shape beside colour, and the same figures as a
// table. A chart is an SVG without a style of its own but attributes; what is drawn is what the table says.

import { el, svg } from "../dom.js";
import { table } from "../sheet.js";

export const [WIDTH, HEIGHT] = [560, 280];
export const PLOT = { left: 74, right: WIDTH - 14, top: 14, bottom: HEIGHT - 46 };

/** Okabe and Ito's colours that are seen on dark and on light, each with a hatch and a marker of its own. */
export const COLORS = ["#0a84c6", "#d55e00", "#009e73", "#b0578d", "#a97400", "#7a828a"];

let serial = 0;

/** Round numbers from `from` to at least `to`, about `wanted` of them; whole ones where things are counted. */
export function ticks(from, to, wanted = 5, whole = false) {
  const span = to - from || 1;
  const rough = span / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const round = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const step = whole ? Math.max(1, Math.round(round)) : round;
  const count = Math.ceil((to - from) / step - 1e-9);
  return Array.from({ length: Math.max(count, 1) + 1 }, (_, k) => Number((from + k * step).toPrecision(12)));
}

export const scale = (from, to, start, end) => (value) => start + ((value - from) / (to - from || 1)) * (end - start);

/** Enough digits and no more: 0.125, 3.4, 120. */
export function figure(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(3)));
}

/** Lines and numbers of both axes. xs: [[value or text, place]], ys: [value]. */
export function axes({ xs, ys, y, xLabel, yLabel }) {
  const line = (x1, y1, x2, y2, soft) =>
    svg("line", { x1, y1, x2, y2, stroke: "currentColor", "stroke-opacity": soft ? 0.18 : 0.7 });
  const text = (content, attributes) => svg("text", { fill: "currentColor", "font-size": 13, ...attributes }, content);
  return svg(
    "g",
    {},
    ys.map((value) => [
      line(PLOT.left, y(value), PLOT.right, y(value), true),
      text(figure(value), { x: PLOT.left - 6, y: y(value) + 4, "text-anchor": "end" }),
    ]),
    line(PLOT.left, PLOT.bottom, PLOT.right, PLOT.bottom),
    line(PLOT.left, PLOT.top, PLOT.left, PLOT.bottom),
    xs.map(([label, place]) => [
      line(place, PLOT.bottom, place, PLOT.bottom + 4),
      text(String(label), { x: place, y: PLOT.bottom + 17, "text-anchor": "middle" }),
    ]),
    text(xLabel, { x: (PLOT.left + PLOT.right) / 2, y: HEIGHT - 8, "text-anchor": "middle" }),
    text(yLabel, { x: -(PLOT.top + PLOT.bottom) / 2, y: 14, "text-anchor": "middle", transform: "rotate(-90)" }),
  );
}

/** A fill for series number k: its colour with its own hatch. Returns [definition, "url(#..)"]. */
export function hatch(number) {
  const id = `hatch-${++serial}`;
  const color = COLORS[number % COLORS.length];
  const lines = [[], ["M0 8 L8 0"], ["M0 0 L8 8"], ["M4 0 L4 8"], ["M0 4 L8 4"], ["M0 0 L8 8", "M0 8 L8 0"]][number % 6];
  const pattern = svg(
    "pattern",
    { id, width: 8, height: 8, patternUnits: "userSpaceOnUse" },
    svg("rect", { width: 8, height: 8, fill: color }),
    lines.map((d) => svg("path", { d, stroke: "#fff", "stroke-width": 2, "stroke-opacity": 0.85 })),
  );
  return [pattern, `url(#${id})`];
}

/** A marker of series number k at a place. */
export function marker(number, x, y, size = 5, color = undefined) {
  const [s, fill] = [size, color ?? COLORS[number % COLORS.length]];
  const corners = [null, [[-s, -s], [s, -s], [s, s], [-s, s]], [[0, -s - 1], [s + 1, s], [-s - 1, s]], [[0, -s - 2], [s + 2, 0], [0, s + 2], [-s - 2, 0]], [[-s - 1, -s], [s + 1, -s], [0, s + 1]]][number % 5];
  if (!corners) return svg("circle", { cx: x, cy: y, r: s, fill });
  return svg("polygon", { points: corners.map(([dx, dy]) => `${x + dx},${y + dy}`).join(" "), fill });
}

/** The whole: caption, picture, legend, and the table behind a summary. rows[0] of the table are its headings. */
export function chart({ title, drawing, legend, headings, rows, tableLabel, note, height = HEIGHT }) {
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": title, class: "chart-picture" }, drawing);
  const keys = (legend ?? []).map(({ name, swatch }) =>
    el("li", {}, svg("svg", { width: 18, height: 18, viewBox: "0 0 18 18", "aria-hidden": "true" }, swatch), name),
  );
  return el(
    "figure",
    { class: "chart" },
    el("figcaption", {}, title),
    picture,
    keys.length ? el("ul", { class: "chart-legend" }, keys) : null,
    note ? el("p", { class: "sheet-soft" }, note) : null,
    el("details", {}, el("summary", {}, tableLabel), el("div", { class: "sheet-wide", tabIndex: 0, role: "region", "aria-label": title }, table(title, headings, rows))),
  );
}
