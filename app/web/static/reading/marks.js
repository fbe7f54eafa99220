// What is drawn over a slice: boxes and outlines of nodules, and marks a reader added. Each kind has its own line and
// letter besides its colour (Okabe and Ito's).

import { apply, boxInPlane } from "./geometry.js";

export const COLOURS = {
  finding: "#56b4e9",
  selected: "#f0e442",
  accepted: "#2fc39a",
  rejected: "#ff8a4c",
  candidate: "#b9c4ce",
  added: "#e79cc8",
  measure: "#e69f00",
};
const DASHES = { finding: [], selected: [], accepted: [], rejected: [3, 3], candidate: [1.5, 4], added: [8, 3] };
const SIGNS = { accepted: " ✓", rejected: " ✕", added: " +" };

/** @typedef {{id: string, label: string, kind: string, isSelected: boolean, box: number[] | null, lines: number[][][]}} Mark
 *   box: [row min, column min, row max, column max] in the plane; pixel i spans i - 0.5 to i + 0.5 */

/**
 * What a slice of a plane shows.
 * @param {any} plane @param {number} slice
 * @param {{findings: any[], selected: string | null, outlines: any, affine: number[][]}} shown
 * @returns {Mark[]}
 */
export function marksOn(plane, slice, { findings, selected, outlines, affine }) {
  return findings
    .map((finding) => ({
      id: finding.id,
      label: finding.short + (SIGNS[finding.kind] ?? ""),
      kind: finding.kind,
      isSelected: finding.id === selected,
      box: boxOn(plane, slice, finding, affine),
      lines: (outlines?.[finding.id]?.[plane.name] ?? []).filter(([at]) => at === slice).map(([, line]) => line),
    }))
    .filter((mark) => mark.box || mark.lines.length);
}

function boxOn(plane, slice, finding, affine) {
  if (!finding.nodule) return around(plane, slice, finding.center_lps_mm, finding.diameter_mm);
  const { min, max } = finding.nodule.bounding_box.index_zyx;
  if (plane.slice_axis !== 0) return within(boxInPlane(plane, affine, min, max), slice);
  const own = finding.nodule.slices.find(({ index_z }) => index_z === slice);
  if (!own) return null;
  const [columnMin, rowMin, columnMax, rowMax] = own.box_px;
  const { min: low, max: high } = boxInPlane(plane, affine, [slice, rowMin, columnMin], [slice, rowMax, columnMax]);
  return [low[1], low[2], high[1], high[2]];
}

function within({ min, max }, slice) {
  return slice < min[0] - 0.5 || slice > max[0] + 0.5 ? null : [min[1], min[2], max[1], max[2]];
}

/** A square around a centre of which only the size is known. */
function around(plane, slice, center, diameterMm) {
  const [at, row, column] = apply(plane.fromLps, center);
  const half = Math.max(diameterMm, 4) / 2;
  if (Math.abs(at - slice) * plane.slice_spacing_mm > Math.max(half, plane.slice_spacing_mm / 2)) return null;
  const [rows, columns] = [half / plane.row_spacing_mm, half / plane.column_spacing_mm];
  return [row - rows, column - columns, row + rows, column + columns];
}

/**
 * Draw marks; `to` gives the place on the canvas of a (row, column).
 * @param {CanvasRenderingContext2D} context @param {Mark[]} marks
 * @param {{to: (point: number[]) => number[], pixel: number, boxes: boolean, contours: boolean}} how
 */
export function drawMarks(context, marks, { to, pixel, boxes, contours }) {
  for (const mark of marks) {
    context.save();
    context.strokeStyle = context.fillStyle = mark.isSelected ? COLOURS.selected : COLOURS[mark.kind];
    context.lineWidth = (mark.isSelected ? 2 : 1.5) * pixel;
    if (contours) mark.lines.forEach((line) => trace(context, line.map(to)));
    if (boxes && mark.box) {
      context.setLineDash((DASHES[mark.kind] ?? []).map((length) => length * pixel));
      drawBox(context, mark, to, pixel);
    }
    context.restore();
  }
}

function drawBox(context, { box, label }, to, pixel) {
  const gap = 2 * pixel; // beside the outermost pixels of the nodule, not on them
  const [left, top] = to([box[0], box[1]]);
  const [right, bottom] = to([box[2], box[3]]);
  context.strokeRect(left - gap, top - gap, right - left + 2 * gap, bottom - top + 2 * gap);
  context.font = `600 ${12 * pixel}px system-ui, sans-serif`;
  context.textBaseline = "bottom";
  context.shadowColor = "#000";
  context.shadowBlur = 3 * pixel;
  context.fillText(label, left - gap, top - gap - pixel);
}

function trace(context, points) {
  context.beginPath();
  points.forEach(([x, y], number) => (number ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.closePath();
  context.stroke();
}
