// Bars that lie, for names too long to stand below an axis: one row for each name, the longest first as given.

import { chart, figure, hatch, PLOT, scale, ticks } from "./frame.js";
import { svg } from "../dom.js";

const [ROW, LEFT, LONGEST] = [30, 220, 30];

/** @param {{title: string, labels: string[], values: number[], xLabel: string, yLabel: string, tableLabel: string, note?: string}} given */
export function rowChart({ title, labels, values, xLabel, yLabel, tableLabel, note }) {
  const bottom = PLOT.top + ROW * Math.max(labels.length, 1);
  const xs = ticks(0, Math.max(...values, 1), 4, true);
  const x = scale(0, xs.at(-1), LEFT, PLOT.right - 20);
  const text = (content, attributes) => svg("text", { fill: "currentColor", "font-size": 13, ...attributes }, content);
  const line = (x1, y1, x2, y2, opacity) => svg("line", { x1, y1, x2, y2, stroke: "currentColor", "stroke-opacity": opacity });
  const [pattern, fill] = hatch(0);
  const rows = labels.flatMap((label, k) => {
    const top = PLOT.top + ROW * k + 5;
    const bar = svg("rect", { x: LEFT, y: top, width: x(values[k]) - LEFT, height: ROW - 10, fill }, svg("title", {}, `${label}: ${figure(values[k])}`));
    const short = label.length > LONGEST ? `${label.slice(0, LONGEST - 1)}…` : label;
    return [bar, text(short, { x: LEFT - 8, y: top + 15, "text-anchor": "end" }), text(figure(values[k]), { x: x(values[k]) + 5, y: top + 15 })];
  });
  const grid = xs.flatMap((value) => [line(x(value), PLOT.top, x(value), bottom, 0.18), text(figure(value), { x: x(value), y: bottom + 17, "text-anchor": "middle" })]);
  const axis = [line(LEFT, PLOT.top, LEFT, bottom, 0.7), text(yLabel, { x: (LEFT + PLOT.right) / 2, y: bottom + 36, "text-anchor": "middle" })];
  return chart({
    title,
    height: bottom + 44,
    drawing: [svg("defs", {}, pattern), grid, axis, rows],
    headings: [xLabel, yLabel],
    rows: labels.map((label, k) => [label, figure(values[k])]),
    tableLabel,
    note,
  });
}
