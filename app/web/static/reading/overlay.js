// What helps to find one's way on a slice: crosshair, measured lines, a ruler. `pixel` is a CSS pixel in canvas pixels.

import { apply, distanceMm } from "./geometry.js";
import { COLOURS } from "./marks.js";

const CROSS_GAP = 24;

/** Two lines that leave what they cross in sight. */
export function drawCross(context, [x, y], pixel) {
  const { width, height } = context.canvas;
  const gap = CROSS_GAP * pixel;
  context.save();
  context.globalAlpha = 0.6;
  context.strokeStyle = COLOURS.finding;
  context.setLineDash([4 * pixel, 4 * pixel]);
  context.lineWidth = pixel;
  context.beginPath();
  for (const [from, to] of [[[x, 0], [x, y - gap]], [[x, y + gap], [x, height]], [[0, y], [x - gap, y]], [[x + gap, y], [width, y]]]) {
    context.moveTo(...from);
    context.lineTo(...to);
  }
  context.stroke();
  context.restore();
}

/**
 * Measured lines with their length.
 * @param {CanvasRenderingContext2D} context
 * @param {{from: number[], to: number[]}[]} lines ends in the plane's (slice, row, column)
 * @param {{plane: any, to: (point: number[]) => number[], pixel: number, words: any}} how
 */
export function drawLines(context, lines, { plane, to, pixel, words }) {
  context.save();
  context.strokeStyle = context.fillStyle = COLOURS.measure;
  context.lineWidth = 1.5 * pixel;
  context.font = `600 ${13 * pixel}px system-ui, sans-serif`;
  context.shadowColor = "#000";
  context.shadowBlur = 3 * pixel;
  for (const { from, to: end } of lines) {
    const [a, b] = [to(from.slice(1)), to(end.slice(1))];
    context.beginPath();
    context.moveTo(...a);
    context.lineTo(...b);
    context.stroke();
    for (const [x, y] of [a, b]) context.strokeRect(x - 2 * pixel, y - 2 * pixel, 4 * pixel, 4 * pixel);
    const mm = distanceMm(apply(plane.to_lps_mm, from), apply(plane.to_lps_mm, end));
    context.fillText(words.mm(mm), b[0] + 8 * pixel, b[1]);
  }
  context.restore();
}

/** A ruler at the right edge. @returns {number} its length in mm: 5 cm, or 1 cm where that would not fit */
export function drawRuler(context, perMm, pixel) {
  const { width, height } = context.canvas;
  const mm = 50 * perMm < height * 0.6 ? 50 : 10;
  const [x, top] = [width - 22 * pixel, (height - mm * perMm) / 2];
  context.save();
  context.strokeStyle = "#dbe4ec";
  context.shadowColor = "#000";
  context.shadowBlur = 3 * pixel; // seen on bright tissue, too
  context.lineWidth = 1.5 * pixel;
  context.beginPath();
  for (let tick = 0; tick <= 5; tick++) {
    const y = top + (tick * mm * perMm) / 5;
    context.moveTo(x, y);
    context.lineTo(x - (tick % 5 ? 4 : 8) * pixel, y);
  }
  context.moveTo(x, top);
  context.lineTo(x, top + mm * perMm);
  context.stroke();
  context.restore();
  return mm;
}
