// Where a nodule is and how large, in words. Used by the 3-D view's list and by the page for patients.

import { filledIn } from "../sheet.js";

/** "Right lung, upper part"; less where less is known. */
export function whereabouts(nodule, words) {
  const side = words.side[nodule.side] ?? words.side.unknown;
  const part = nodule.side ? words.part[nodule.location?.lobe] : undefined;
  return part ? filledIn(words.sideAndPart, { side, part }) : side;
}

/** Left or right, front or back, up or down of the middle of the lungs: for who cannot see the scene. */
export function direction(centerLps, lungs, words) {
  if (!lungs) return "";
  const middle = lungs.min.map((low, k) => (low + lungs.max[k]) / 2);
  const span = lungs.max.map((high, k) => high - lungs.min[k]);
  const told = [1, 2].map((axis) => {
    const part = (centerLps[axis] - middle[axis]) / span[axis];
    return Math.abs(part) < 1 / 6 ? words.middle[axis] : part < 0 ? words.low[axis] : words.high[axis];
  });
  return told.join(", ");
}

/** Something of everyday life of about this diameter. */
export function likeness(diameterMm, likenesses) {
  return likenesses.find(([upToMm]) => diameterMm <= upToMm)[1];
}
