// One plane on a canvas: the slice, what lies over it, letters at its edges, numbers in its corners.

import { el } from "../dom.js";
import { apply, clamp, distanceMm, ordinal } from "./geometry.js";
import { greyTable, paint } from "./grey.js";
import { COLOURS, drawMarks, marksOn } from "./marks.js";

const CROSS_GAP = 24;

/**
 * @param {any} plane of `planesOf`
 * @param {{store: any, slabs: any, volume: any, outlines: () => any, findings: () => any[], words: any}} parts
 */
export function createPlane(plane, { store, slabs, volume, outlines, findings, words }) {
  const canvas = el("canvas", { "aria-hidden": "true" });
  const corner = (place) => el("div", { class: `corner ${place}`, "aria-hidden": "true" });
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
  const picture = document.createElement("canvas");
  let painted = "";
  let wanted = false;
  let pixel = 1;

  const slice = () => clamp(Math.round(apply(plane.fromLps, store.get().position)[0]), 0, plane.count - 1);
  const view = () => store.get().zoom[plane.name];

  /** Where the slice lies on the canvas: canvas pixels per column and per row, and the outer corner of pixel (0, 0). */
  function placing() {
    const { scale, dx, dy } = view();
    const [width, height] = [plane.columns * plane.column_spacing_mm, plane.rows * plane.row_spacing_mm];
    const perMm = Math.min(canvas.width / width, canvas.height / height) * scale;
    const [x, y] = [perMm * plane.column_spacing_mm, perMm * plane.row_spacing_mm];
    const left = canvas.width / 2 + dx * perMm - (plane.columns * x) / 2;
    const top = canvas.height / 2 + dy * perMm - (plane.rows * y) / 2;
    return { x, y, left, top, perMm };
  }

  const toCanvas = ({ x, y, left, top }) => ([row, column]) => [left + (column + 0.5) * x, top + (row + 0.5) * y];

  /** The plane's (slice, row, column) under a place of the window. */
  function under(clientX, clientY) {
    const { x, y, left, top } = placing();
    const box = canvas.getBoundingClientRect();
    const [px, py] = [((clientX - box.left) / box.width) * canvas.width, ((clientY - box.top) / box.height) * canvas.height];
    return [slice(), (py - top) / y - 0.5, (px - left) / x - 0.5];
  }

  function draw() {
    wanted = false;
    const state = store.get();
    const number = slice();
    const context = canvas.getContext("2d");
    const found = slabs.slice(plane.name, number, state.window, state.mipMm);
    context.fillStyle = "#000";
    context.fillRect(0, 0, canvas.width, canvas.height);
    element.toggleAttribute("data-waiting", !found);
    element.dataset.slice = number;
    element.dataset.exact = found?.exact ?? false;
    const place = placing();
    if (found) {
      const key = [number, found.window.center, found.window.width, state.window.center, state.window.width, state.mipMm, state.inverted].join();
      if (key !== painted) paint(picture, found, greyTable(found.window, state.window, state.inverted));
      painted = key;
      context.imageSmoothingEnabled = true;
      context.imageSmoothingQuality = "high";
      context.drawImage(picture, place.left, place.top, plane.columns * place.x, plane.rows * place.y);
    }
    const to = toCanvas(place);
    if (state.crosshair) drawCross(context, to(apply(plane.fromLps, state.position).slice(1)));
    const shown = { findings: findings(), selected: state.selected, outlines: outlines(), affine: volume.affine_index_zyx_to_lps_mm };
    drawMarks(context, marksOn(plane, number, shown), { to, pixel, boxes: state.boxes, contours: state.contours });
    drawMeasures(context, to, number);
    drawScale(context, place.perMm);
    describe(state, number, found);
  }

  function drawCross(context, [x, y]) {
    const gap = CROSS_GAP * pixel;
    context.save();
    context.globalAlpha = 0.6;
    context.strokeStyle = COLOURS.finding;
    context.setLineDash([4 * pixel, 4 * pixel]);
    context.lineWidth = pixel;
    context.beginPath();
    for (const [from, to] of [[[x, 0], [x, y - gap]], [[x, y + gap], [x, canvas.height]], [[0, y], [x - gap, y]], [[x + gap, y], [canvas.width, y]]]) {
      context.moveTo(...from);
      context.lineTo(...to);
    }
    context.stroke();
    context.restore();
  }

  function drawMeasures(context, to, number) {
    context.save();
    context.strokeStyle = context.fillStyle = COLOURS.measure;
    context.lineWidth = 1.5 * pixel;
    context.font = `600 ${13 * pixel}px system-ui, sans-serif`;
    context.shadowColor = "#000";
    context.shadowBlur = 3 * pixel;
    const { measures, begun } = store.get();
    const here = [...measures, ...(begun ? [{ ...begun, to: begun.from }] : [])].filter((line) => line.plane === plane.name && line.from[0] === number);
    for (const { from, to: end } of here) {
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

  /** A ruler of 5 cm, or of 1 cm where that would not fit. */
  function drawScale(context, perMm) {
    const mm = 50 * perMm < canvas.height * 0.6 ? 50 : 10;
    const [x, top] = [canvas.width - 22 * pixel, (canvas.height - mm * perMm) / 2];
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
    corners.note.textContent = words.ruler(mm);
  }

  function describe(state, number, found) {
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
    element.dataset.waits = found ? "" : words.loading;
    if (instance === null) delete element.dataset.instance;
    else element.dataset.instance = instance;
    element.setAttribute("aria-valuenow", nth);
    element.setAttribute("aria-valuetext", words.spoken(nth, plane.count, instance, plane.axis, centre[plane.axis]));
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

  return { element, plane, redraw, under, slice, perMm: () => placing().perMm / pixel, close: () => sized.disconnect() };
}
