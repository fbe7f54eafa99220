// Lines through measured points, each series with a marker of its own and, where told, an interval at every point.

import { axes, chart, COLORS, figure, marker, PLOT, scale, ticks } from "./frame.js";
import { svg } from "../dom.js";

const DASHES = ["", "7 4", "2 4", "10 3 2 3", "4 4"];

/**
 * @param {{title: string, series: {name: string, color?: string, points: {x: number, y: number, low?: number, high?: number}[]}[],
 *   xLabel: string, yLabel: string, tableLabel: string, xTicks?: number[], logarithmic?: boolean, yRange?: number[],
 *   intervalLabel?: string, note?: string}} given logarithmic: the x axis
 */
export function lineChart(given) {
  const { title, series, xLabel, yLabel, tableLabel, note, logarithmic, intervalLabel } = given;
  const points = series.flatMap((one) => one.points);
  const toX = logarithmic ? Math.log2 : (value) => value;
  const marks = given.xTicks ?? ticks(Math.min(...points.map(({ x }) => x)), Math.max(...points.map(({ x }) => x)));
  const [first, last] = [Math.min(...marks), Math.max(...marks)].map(toX);
  const inset = (PLOT.right - PLOT.left) * 0.04;
  const along = scale(first, last, PLOT.left + inset, PLOT.right - inset);
  const x = (value) => along(toX(value));
  const [low, high] = given.yRange ?? [0, Math.max(...points.map(({ y, high: top }) => top ?? y), 1e-9)];
  const ys = ticks(low, high, 4);
  const y = scale(ys[0], ys.at(-1), PLOT.bottom, PLOT.top);
  const drawn = series.map((one, number) => line(one, number, x, y));
  const spread = points.some((point) => point.low !== undefined);
  return chart({
    title,
    drawing: [axes({ xs: marks.map((value) => [figure(value), x(value)]), ys, y, xLabel, yLabel }), drawn],
    legend: series.length > 1 ? series.map(({ name, color }, number) => ({ name, swatch: marker(number, 9, 9, 5, color) })) : [],
    headings: [...(series.length > 1 ? [""] : []), xLabel, yLabel, ...(spread ? [intervalLabel] : [])],
    rows: series.flatMap(({ name, points: own }) =>
      own.map((point) => [
        ...(series.length > 1 ? [name] : []),
        figure(point.x),
        figure(point.y),
        ...(spread ? [point.low === undefined ? "–" : `${figure(point.low)} – ${figure(point.high)}`] : []),
      ]),
    ),
    tableLabel,
    note,
  });
}

function line({ name, points, color }, number, x, y) {
  const stroke = color ?? COLORS[number % COLORS.length];
  const path = points.map((point) => `${x(point.x)},${y(point.y)}`).join(" ");
  return svg(
    "g",
    {},
    points.filter(({ low }) => low !== undefined).map((point) => whisker(x(point.x), y(point.low), y(point.high), stroke)),
    svg("polyline", { points: path, fill: "none", stroke, "stroke-width": 2, "stroke-dasharray": DASHES[number % DASHES.length] }),
    points.map((point) => {
      const spot = marker(number, x(point.x), y(point.y), 5, stroke);
      spot.append(svg("title", {}, `${name}: ${figure(point.x)}, ${figure(point.y)}`));
      return spot;
    }),
  );
}

const whisker = (x, low, high, stroke) =>
  svg("path", { d: `M${x} ${low} V${high} M${x - 5} ${low} h10 M${x - 5} ${high} h10`, stroke, "stroke-opacity": 0.6, fill: "none" });
