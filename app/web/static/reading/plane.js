// One plane on a canvas: the slice, what lies over it, letters at its edges, numbers in its corners.

import { el } from "../dom.js";
import { apply, clamp, ordinal } from "./geometry.js";
import { greyTable, paint } from "./grey.js";
import { drawMarks, marksOn } from "./marks.js";
import { drawCross, drawLines, drawRuler } from "./overlay.js";
import { fromCanvas, placing, toCanvas } from "./placing.js";

/**
 * @param {any} plane of `planesOf`
 * @param {{store: any, slabs: any, volume: any, outlines: () => any, findings: () => any[], words: any}} parts
 */
export function createPlane(plane, parts) {
  const { store, slabs, words } = parts;
  const { element, canvas, corners } = stage(plane, words);
  const picture = document.createElement("canvas");
  let painted = "";
  let wanted = false;
  let pixel = 1;

  const slice = () => clamp(Math.round(apply(plane.fromLps, store.get().position)[0]), 0, plane.count - 1);
  const place = () => placing(plane, canvas, store.get().zoom[plane.name]);

  /** The plane's (slice, row, column) under a place of the window. */
  function under(clientX, clientY) {
    const box = canvas.getBoundingClientRect();
    const onCanvas = [((clientX - box.left) / box.width) * canvas.width, ((clientY - box.top) / box.height) * canvas.height];
    return [slice(), ...fromCanvas(place(), onCanvas)];
  }

  function draw() {
    wanted = false;
    const state = store.get();
    const number = slice();
    const context = canvas.getContext("2d");
    const found = slabs.slice(plane.name, number, state.window, state.mipMm);
    context.fillStyle = "#000";
    context.fillRect(0, 0, canvas.width, canvas.height);
    if (found) drawSlice(context, found, number, state);
    drawOver(context, plane, number, { ...parts, state, place: place(), pixel });
    corners.note.textContent = words.ruler(drawRuler(context, place().perMm, pixel));
    element.toggleAttribute("data-waiting", !found);
    element.dataset.slice = number;
    element.dataset.exact = found?.exact ?? false;
    describe(element, corners, plane, number, { ...parts, state, isHere: Boolean(found) });
  }

  function drawSlice(context, found, number, { window, mipMm, inverted }) {
    const key = [number, found.window.center, found.window.width, window.center, window.width, mipMm, inverted].join();
    if (key !== painted) paint(picture, found, greyTable(found.window, window, inverted));
    painted = key;
    const { left, top, x, y } = place();
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    context.drawImage(picture, left, top, plane.columns * x, plane.rows * y);
  }

  const redraw = () => {
    if (wanted) return;
    wanted = true;
    requestAnimationFrame(draw);
  };

  const sized = new ResizeObserver(() => {
    pixel = window.devicePixelRatio || 1;
    canvas.width = Math.max(1, Math.round(element.clientWidth * pixel));
    canvas.height = Math.max(1, Math.round(element.clientHeight * pixel));
    draw(); // at once: an emptied canvas would flicker
  });
  sized.observe(element);

  return { element, plane, redraw, under, slice, perMm: () => place().perMm / pixel, close: () => sized.disconnect() };
}

/** The elements of a plane. For those who hear the page it is a slider, whose value is the slice. */
function stage(plane, words) {
  const canvas = el("canvas", { "aria-hidden": "true" });
  const corner = (where) => el("div", { class: `corner ${where}`, "aria-hidden": "true" });
  const corners = { name: corner("top left"), window: corner("top right"), at: corner("bottom left"), note: corner("bottom right") };
  const edges = ["left", "right", "top", "bottom"].map((side) =>
    el("span", { class: `edge ${side}`, "aria-hidden": "true" }, plane.edges[side]),
  );
  const element = el(
    "div",
    {
      class: "plane", "data-plane": plane.name, role: "slider", tabIndex: 0, "aria-orientation": "vertical",
      "aria-label": words.planes[plane.name], "aria-valuemin": 1, "aria-valuemax": plane.count,
    },
    canvas, ...edges, ...Object.values(corners),
  );
  return { element, canvas, corners };
}

function drawOver(context, plane, number, { state, place, pixel, findings, outlines, volume, words }) {
  const to = toCanvas(place);
  if (state.crosshair) drawCross(context, to(apply(plane.fromLps, state.position).slice(1)), pixel);
  const shown = { findings: findings(), selected: state.selected, outlines: outlines(), affine: volume.affine_index_zyx_to_lps_mm };
  drawMarks(context, marksOn(plane, number, shown), { to, pixel, boxes: state.boxes, contours: state.contours });
  const begun = state.begun ? [{ ...state.begun, to: state.begun.from }] : [];
  const lines = [...state.measures, ...begun].filter((line) => line.plane === plane.name && line.from[0] === number);
  drawLines(context, lines, { plane, to, pixel, words });
}

/** Which slice this is: as the PACS counts, as a person counts, in mm, and for those who hear the page. */
function describe(element, corners, plane, number, { state, volume, words, isHere }) {
  const instance = plane.slice_axis === 0 ? volume.slices[number]?.instance_number ?? null : null;
  const nth = ordinal(plane, number);
  const centre = apply(plane.to_lps_mm, [number, (plane.rows - 1) / 2, (plane.columns - 1) / 2]);
  corners.name.replaceChildren(
    el("b", {}, words.planes[plane.name]),
    el("span", { class: "image-number" }, instance === null ? "" : words.image(instance)),
    el("span", { class: "slice-number" }, words.slice(nth, plane.count)),
  );
  corners.at.textContent = words.position(plane.axis, centre[plane.axis]);
  corners.window.textContent = words.window(state.window, state.mipMm, state.inverted);
  element.dataset.waits = isHere ? "" : words.loading;
  if (instance === null) delete element.dataset.instance;
  else element.dataset.instance = instance;
  element.setAttribute("aria-valuenow", nth);
  element.setAttribute("aria-valuetext", words.spoken(nth, plane.count, instance, plane.axis, centre[plane.axis]));
}
