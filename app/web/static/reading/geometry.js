// Points of planes and of the patient. A plane's point is (slice, row, column), pixel centres at whole numbers;
// the patient's are LPS mm. A matrix is 4x4, in rows, and affine.

/** @param {number[][]} m @param {number[]} p */
export const apply = (m, [a, b, c]) => [0, 1, 2].map((row) => m[row][0] * a + m[row][1] * b + m[row][2] * c + m[row][3]);

/** Inverse of an affine matrix, by cofactors. */
export function inverse(m) {
  const [[a, b, c], [d, e, f], [g, h, i]] = m;
  const determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
  const turned = [
    [e * i - f * h, c * h - b * i, b * f - c * e],
    [f * g - d * i, a * i - c * g, c * d - a * f],
    [d * h - e * g, b * g - a * h, a * e - b * d],
  ].map((row) => row.map((value) => value / determinant));
  const shift = turned.map((row) => -(row[0] * m[0][3] + row[1] * m[1][3] + row[2] * m[2][3]));
  return [...turned.map((row, number) => [...row, shift[number]]), [0, 0, 0, 1]];
}

export const distanceMm = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]);

export const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

/**
 * The planes of a volume, with what the page works out from their matrices.
 * `down` is the step in slices that leads to the feet (axial), to the back (coronal), to the left (sagittal).
 */
export function planesOf(volume) {
  const towards = { axial: [2, -1], coronal: [1, 1], sagittal: [0, 1] };
  return Object.fromEntries(
    Object.entries(volume.planes).map(([name, plane]) => {
      const [axis, sign] = towards[name];
      const down = plane.to_lps_mm[axis][0] * sign > 0 ? 1 : -1;
      return [name, { ...plane, name, axis, down, fromLps: inverse(plane.to_lps_mm) }];
    }),
  );
}

/** A slice's number as a person counts: 1 for the one nearest the head, the front, the right. */
export const ordinal = (plane, slice) => (plane.down > 0 ? slice + 1 : plane.count - slice);

/** The box around corners given in volume index (z, y, x), in a plane's (slice, row, column). */
export function boxInPlane(plane, affine, low, high) {
  const corners = [0, 1, 2, 3, 4, 5, 6, 7].map((bits) =>
    apply(plane.fromLps, apply(affine, [bits & 4 ? high[0] : low[0], bits & 2 ? high[1] : low[1], bits & 1 ? high[2] : low[2]])),
  );
  return {
    min: [0, 1, 2].map((axis) => Math.min(...corners.map((corner) => corner[axis]))),
    max: [0, 1, 2].map((axis) => Math.max(...corners.map((corner) => corner[axis]))),
  };
}
