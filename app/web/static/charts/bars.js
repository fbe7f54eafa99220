// Bars: one for each label, series above each other or, grouped, beside each other.

import { axes, chart, figure, hatch, PLOT, scale, ticks } from "./frame.js";
import { svg } from "../dom.js";

const MOST_LABELS = 10;

/**
 * @param {{title: string, labels: string[], series: {name: string, values: (number | null)[]}[], xLabel: string,
 *   yLabel: string, tableLabel: string, note?: string, grouped?: boolean, whole?: boolean}} given
 */
export function barChart({ title, labels, series, xLabel, yLabel, tableLabel, note, grouped, whole }) {
  const together = grouped ? Math.max : (...values) => values.reduce((sum, value) => sum + value, 0);
  const totals = labels.map((_, k) => together(0, ...series.map(({ values }) => values[k] ?? 0)));
  const ys = ticks(0, Math.max(...totals, whole ? 1 : 1e-9), 4, whole);
  const y = scale(0, ys.at(-1), PLOT.bottom, PLOT.top);
  const slot = (PLOT.right - PLOT.left) / Math.max(labels.length, 1);
  const every = Math.ceil(labels.length / MOST_LABELS);
  const xs = labels.flatMap((label, k) => (k % every ? [] : [[label, PLOT.left + slot * (k + 0.5)]]));
  const fills = series.map((_, number) => hatch(number));
  const below = labels.map(() => 0);
  const bars = series.flatMap(({ name, values }, number) =>
    labels.flatMap((label, k) => {
      const value = values[k] ?? 0;
      if (!(value > 0)) return [];
      const [share, shift] = grouped ? [0.76 / series.length, (0.76 / series.length) * number] : [0.76, 0];
      const bottom = y(grouped ? 0 : below[k]);
      below[k] += value;
      const [x, width] = [PLOT.left + slot * (k + 0.12 + shift), Math.max(slot * share, 1)];
      const top = y(grouped ? value : below[k]);
      return svg("rect", { x, y: top, width, height: bottom - top, fill: fills[number][1] }, svg("title", {}, `${label}, ${name}: ${figure(value)}`));
    }),
  );
  const legend = series.map(({ name }, number) => {
    const [pattern, fill] = hatch(number);
    return { name, swatch: [svg("defs", {}, pattern), svg("rect", { width: 18, height: 18, fill })] };
  });
  return chart({
    title,
    drawing: [svg("defs", {}, fills.map(([pattern]) => pattern)), axes({ xs, ys, y, xLabel, yLabel }), bars],
    legend: series.length > 1 ? legend : [],
    headings: [xLabel, ...series.map(({ name }) => name)],
    rows: labels.map((label, k) => [label, ...series.map(({ values }) => figure(values[k]))]),
    tableLabel,
    note,
  });
}
