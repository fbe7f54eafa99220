// Three planes linked by a crosshair: scrolling one moves the crosshair, and the crosshair says which slices are shown.

import { el } from "../dom.js";
import { apply, clamp, planesOf } from "./geometry.js";
import { listenTo } from "./gestures.js";
import { createPlane } from "./plane.js";
import { createSlabs } from "./slabs.js";

const EXACT_AFTER_MS = 120;
const WHOLE = { scale: 1, dx: 0, dy: 0 };

/** The windows of the number keys: those of the service, and everything from its lowest to its highest value. */
export function windowsOf(volume, words) {
  const [low, high] = volume.hu_range;
  const all = { name: words.windowNames.all, center: Math.round((low + high) / 2), width: Math.max(1, Math.round(high - low)) };
  return [...volume.windows.slice(0, 4).map((one) => ({ ...one, name: words.windowNames[one.name] ?? one.name })), all];
}

/** What the store holds when a job is opened: the nodule asked for, else the first, in the window for lungs. */
export function firstState(volume, findings, windows, asked) {
  const first = findings.find(({ id }) => id === asked) ?? findings[0];
  const { axial } = volume.planes;
  const middle = apply(axial.to_lps_mm, [Math.floor(axial.count / 2), axial.rows / 2, axial.columns / 2]);
  return {
    position: first?.center_lps_mm ?? middle,
    selected: first?.id ?? null,
    window: windows[0],
    mipMm: 0,
    inverted: false,
    boxes: true,
    contours: true,
    crosshair: true,
    tool: "point",
    active: "axial",
    enlarged: null,
    zoom: { axial: WHOLE, coronal: WHOLE, sagittal: WHOLE },
    measures: [],
    begun: null,
  };
}

/**
 * @param {{api: any, job: string, volume: any, store: any, outlines: () => any, findings: () => any[], words: any,
 *   onPoint: (lps: number[] | null) => void, onAdd: (lps: number[]) => void, onProblem: (problem: any) => void,
 *   held: Set<string>}} parts
 */
export function createViewer({ api, job, volume, store, outlines, findings, words, onPoint, onAdd, onProblem, held }) {
  const planes = planesOf(volume);
  const directions = { axial: 1, coronal: 1, sagittal: 1 };
  const slabs = createSlabs({ api, job, planes, onArrive: (name) => views[name]?.redraw(), onProblem });
  const views = {};
  for (const plane of Object.values(planes)) {
    views[plane.name] = createPlane(plane, { store, slabs, volume, outlines, findings, words });
    listenTo(views[plane.name], { store, scroll, zoomBy, onPoint, onAdd, held });
  }
  const element = el(
    "div",
    { class: "planes", role: "group", "aria-label": words.viewer, "data-enlarged": "" },
    ...["axial", "coronal", "sagittal"].map((name) => views[name].element),
  );
  const looked = {};
  let exact = 0;

  /** Fetch what each plane shows now, and what lies ahead. */
  function want() {
    const { window, mipMm } = store.get();
    for (const [name, view] of Object.entries(views)) {
      const now = [view.slice(), window.center, window.width, mipMm].join();
      if (looked[name] === now) continue;
      looked[name] = now;
      slabs.want(name, view.slice(), directions[name], window, mipMm);
    }
  }

  function scroll(name, steps) {
    const plane = planes[name];
    const [slice, row, column] = apply(plane.fromLps, store.get().position);
    const next = clamp(Math.round(slice) + steps * plane.down, 0, plane.count - 1);
    if (steps) directions[name] = Math.sign(steps) * plane.down;
    store.set({ position: apply(plane.to_lps_mm, [next, row, column]), active: name });
  }

  function zoomBy(name, factor, at) {
    const { zoom } = store.get();
    const plane = planes[name];
    const before = zoom[name];
    const scale = clamp(before.scale * factor, 1, 24);
    const held = scale / before.scale;
    const [, row, column] = at ?? apply(plane.fromLps, store.get().position);
    const x = (column - (plane.columns - 1) / 2) * plane.column_spacing_mm;
    const y = (row - (plane.rows - 1) / 2) * plane.row_spacing_mm;
    const after = scale === 1 ? WHOLE : { scale, dx: (before.dx + x) / held - x, dy: (before.dy + y) / held - y };
    store.set({ zoom: { ...zoom, [name]: after } });
  }

  store.listen((state, change) => {
    element.dataset.enlarged = state.enlarged ?? "";
    for (const [name, view] of Object.entries(views)) {
      view.element.toggleAttribute("data-active", state.active === name);
      view.redraw();
    }
    clearTimeout(exact);
    // While the window is dragged the old slabs are shown through a table; the exact ones follow when it rests.
    if (change.window && change.window.name === null) exact = setTimeout(want, EXACT_AFTER_MS);
    else want();
  });
  want();

  /** Where the crosshair is in the plane in use, for measuring without a pointer. */
  function here() {
    const name = store.get().active;
    return { plane: name, point: [views[name].slice(), ...apply(planes[name].fromLps, store.get().position).slice(1)] };
  }

  return {
    element,
    here,
    scroll,
    zoomBy,
    toEnd: (name, end) => scroll(name, end * planes[name].count),
    whole: () => store.set({ zoom: { axial: WHOLE, coronal: WHOLE, sagittal: WHOLE } }),
    redraw: () => Object.values(views).forEach((view) => view.redraw()),
    close: () => {
      clearTimeout(exact);
      slabs.close();
      Object.values(views).forEach((view) => view.close());
    },
  };
}
