// Where a slice lies on a canvas: it keeps its proportions in mm, fits its place, and is then zoomed and moved.

/**
 * @param {any} plane of `planesOf`
 * @param {HTMLCanvasElement} canvas
 * @param {{scale: number, dx: number, dy: number}} view zoom, and shift of the slice in mm
 * @returns {{x: number, y: number, left: number, top: number, perMm: number}} canvas pixels per column, per row and
 *   per mm, and the outer corner of pixel (0, 0)
 */
export function placing(plane, canvas, { scale, dx, dy }) {
  const [width, height] = [plane.columns * plane.column_spacing_mm, plane.rows * plane.row_spacing_mm];
  const perMm = Math.min(canvas.width / width, canvas.height / height) * scale;
  const [x, y] = [perMm * plane.column_spacing_mm, perMm * plane.row_spacing_mm];
  const left = canvas.width / 2 + dx * perMm - (plane.columns * x) / 2;
  const top = canvas.height / 2 + dy * perMm - (plane.rows * y) / 2;
  return { x, y, left, top, perMm };
}

/** From (row, column), pixel centres at whole numbers, to the canvas. */
export const toCanvas = ({ x, y, left, top }) => ([row, column]) => [left + (column + 0.5) * x, top + (row + 0.5) * y];

/** From the canvas to (row, column). */
export const fromCanvas = ({ x, y, left, top }, [px, py]) => [(py - top) / y - 0.5, (px - left) / x - 0.5];
