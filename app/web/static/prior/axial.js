// One scan's axial slices, a slab of them at a time, with rings where its nodules are.

import { el } from "../dom.js";
import { filledIn } from "../sheet.js";
import { fromRows, invert, transform } from "../scene/matrix.js";

const SLAB = 8;
const KEPT = 160;

/**
 * @param {{api: object, job: string, volume: object, title: string, words: object, onScroll: (slice: number) => void}} given
 * @returns {{element: HTMLElement, show: (slice: number) => void, slice: number, count: number, setWindow: Function,
 *   setRings: Function, toLps: Function, fromLps: Function, free: () => void}} toLps and fromLps take and give
 *   [slice, row, column] of the axial plane and LPS mm
 */
export function createAxial({ api, job, volume, title, words, onScroll }) {
  const plane = volume.planes.axial;
  const lpsFromPlane = fromRows(plane.to_lps_mm);
  const planeFromLps = invert(lpsFromPlane);
  const slabs = slabsOf(api, job, plane.count);
  const state = { slice: Math.floor(plane.count / 2), window: volume.windows[0], rings: [] };
  const canvas = el("canvas", { width: plane.columns, height: plane.rows, tabIndex: 0, role: "slider", "aria-orientation": "vertical", "aria-label": title, "aria-valuemin": 1, "aria-valuemax": plane.count });
  canvas.style.aspectRatio = `${plane.columns * plane.column_spacing_mm} / ${plane.rows * plane.row_spacing_mm}`;
  const readout = el("p", { class: "prior-readout" });
  const edges = ["left", "right", "top", "bottom"].map((edge) => el("span", { class: `prior-edge prior-${edge}`, "aria-hidden": "true" }, plane.edges[edge]));
  const element = el("figure", { class: "prior-axial" }, el("figcaption", {}, title), el("div", { class: "prior-frame" }, canvas, edges), readout);
  const pen = canvas.getContext("2d");

  async function paint() {
    const { slice, window } = state;
    canvas.setAttribute("aria-valuenow", slice + 1);
    const counted = volume.slices[slice]?.instance_number ?? "–"; // as the PACS counts
    const said = filledIn(words.slice, { image: counted, slice: slice + 1, count: plane.count, z: transform(lpsFromPlane, [slice, 0, 0])[2].toFixed(1) });
    canvas.setAttribute("aria-valuetext", said);
    readout.textContent = said;
    let pixels;
    try {
      pixels = await slabs.slice(slice, window);
    } catch (problem) {
      if (problem.name !== "AbortError") readout.textContent = problem.message;
      return;
    }
    if (slice !== state.slice || window !== state.window) return;
    const picture = pen.createImageData(plane.columns, plane.rows);
    for (let at = 0; at < pixels.length; at++) picture.data.set([pixels[at], pixels[at], pixels[at], 255], 4 * at);
    pen.putImageData(picture, 0, 0);
    for (const ring of state.rings) drawRing(ring);
    canvas.dataset.shown = slice;
  }

  function drawRing({ center_lps_mm: center, diameter_mm: diameter, letter, color, dashed }) {
    const [slice, row, column] = transform(planeFromLps, center);
    const away = Math.abs(slice - state.slice) * plane.slice_spacing_mm;
    if (away > Math.max(diameter / 2, plane.slice_spacing_mm / 2)) return;
    const [rx, ry] = [plane.column_spacing_mm, plane.row_spacing_mm].map((spacing) => (diameter / 2 + 3) / spacing);
    const [x, y] = [column + 0.5, row + 0.5]; // a canvas counts from a pixel's corner
    pen.strokeStyle = pen.fillStyle = color;
    pen.lineWidth = Math.max(1, plane.columns / 256);
    pen.setLineDash(dashed ? [4, 3] : []);
    pen.beginPath();
    pen.ellipse(x, y, rx, ry, 0, 0, 2 * Math.PI);
    pen.stroke();
    pen.font = `bold ${Math.max(9, Math.round(plane.columns / 28))}px sans-serif`;
    pen.fillText(letter, x + rx + 2, y - ry);
  }

  function show(slice) {
    const within = Math.max(0, Math.min(plane.count - 1, Math.round(slice)));
    if (within === state.slice) return;
    state.slice = within;
    paint();
  }

  const scrolled = (by) => {
    show(state.slice + by);
    onScroll(state.slice);
  };
  followScroll(canvas, plane.count, scrolled);
  paint();
  return {
    element,
    show,
    get slice() {
      return state.slice;
    },
    count: plane.count,
    rows: plane.rows,
    columns: plane.columns,
    setWindow: (window) => paint(Object.assign(state, { window })),
    setRings: (rings) => paint(Object.assign(state, { rings })),
    toLps: (place) => transform(lpsFromPlane, place).slice(0, 3),
    fromLps: (place) => transform(planeFromLps, place).slice(0, 3),
    free: slabs.stop,
  };
}

function followScroll(canvas, count, scrolled) {
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (event.deltaY) scrolled(Math.sign(event.deltaY));
  }, { passive: false });
  const steps = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -count, End: count };
  canvas.addEventListener("keydown", (event) => {
    if (!(event.key in steps) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    scrolled(steps[event.key]);
  });
}

/** Slices by slab, each asked for once; the oldest are let go. */
function slabsOf(api, job, count) {
  const asked = new Map();
  const control = new AbortController();

  async function load(first, { center, width }) {
    const query = new URLSearchParams({ plane: "axial", first, count: Math.min(SLAB, count - first), center, width });
    const response = await api.request("GET", `v1/jobs/${job}/volume/slab?${query}`, { signal: control.signal });
    const [slices, rows, columns] = response.headers.get("X-Slab-Shape").split(",").map(Number);
    const bytes = new Uint8Array(await response.arrayBuffer());
    return Array.from({ length: slices }, (_, k) => bytes.subarray(k * rows * columns, (k + 1) * rows * columns));
  }

  function slice(index, window) {
    const first = Math.floor(index / SLAB) * SLAB;
    const key = `${first} ${window.center} ${window.width}`;
    if (!asked.has(key)) {
      const loading = load(first, window);
      asked.set(key, loading);
      loading.catch(() => asked.delete(key));
      if (asked.size > KEPT / SLAB) asked.delete(asked.keys().next().value);
    }
    return asked.get(key).then((slices) => slices[index - first]);
  }

  return { slice, stop: () => control.abort() };
}
