// What the meshes of a scene are: lungs, airways, nodules; how each is shown, and the cut through them.

// Okabe and Ito's colours, told apart with every common colour vision; sRGB, 0 to 1.
const NODULE_COLORS = ["e69f00", "56b4e9", "f0e442", "d55e00", "cc79a7", "009e73", "0072b2"].map((hex) =>
  [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255),
);
const ORGAN_COLORS = { lung: [0.82, 0.73, 0.71], airways: [0.56, 0.74, 0.86] };
const OPACITY = { lung: 0.3, airways: 0.5 };

/** Letters beside the colour: A, B, .. Z, then AA, AB, .. */
export function mark(number) {
  const before = number >= 26 ? mark(Math.floor(number / 26) - 1) : "";
  return before + String.fromCharCode(65 + (number % 26));
}

export const noduleColor = (number) => NODULE_COLORS[number % NODULE_COLORS.length];

/** [{part, group: "lung" | "airways" | "nodule", nodule, color}] for the parts of a GLB and the nodules of the result. */
export function identified(parts, nodules) {
  return parts.flatMap((part) => {
    const number = nodules.findIndex(({ id }) => part.extras?.id === id || part.name === id || part.name === `nodule-${id}`);
    if (number >= 0) return [{ part, group: "nodule", nodule: nodules[number].id, color: noduleColor(number) }];
    const group = part.name.startsWith("lung") ? "lung" : part.name.startsWith("airways") ? "airways" : null;
    return group ? [{ part, group, nodule: null, color: ORGAN_COLORS[group] }] : [];
  });
}

/** How the renderer is to show them. hidden: names of parts; fade: 0 (gone) to 1 (densest) for what is seen through. */
export function looksOf(known, { hidden, fade }) {
  return known.map(({ part, group, color }) => ({
    color: [...color, group === "nodule" ? 1 : Math.min(1, OPACITY[group] * fade * 2)],
    glassy: group !== "nodule",
    visible: !hidden.has(part.name),
  }));
}

export function boundsOf(parts) {
  return {
    min: [0, 1, 2].map((k) => Math.min(...parts.map((part) => part.min[k]))),
    max: [0, 1, 2].map((k) => Math.max(...parts.map((part) => part.max[k]))),
  };
}

// What each cut takes away first: the side that the usual view looks at.
const CUTS = { front: { axis: 2, sign: -1 }, left: { axis: 0, sign: -1 }, head: { axis: 1, sign: 1 } };

/** The plane that hides the given share of the scene (0 to 1) from its front, left or head. */
export function cutOf(bounds, side, share) {
  const { axis, sign } = CUTS[side];
  const [from, to] = sign > 0 ? [bounds.max[axis], bounds.min[axis]] : [bounds.min[axis], bounds.max[axis]];
  const place = from + (to - from) * share;
  const margin = share === 0 ? 1 : 0;
  return [0, 1, 2].map((k) => (k === axis ? sign : 0)).concat(sign * place + margin);
}

export const isCut = ([a, b, c, d], [x, y, z]) => a * x + b * y + c * z > d;

export const middleOf = ({ min, max }) => min.map((low, k) => (low + max[k]) / 2);
