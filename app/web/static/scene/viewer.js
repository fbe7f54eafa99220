// A canvas that shows a scene: drawn when something changed, turned and picked by pointer and keys.

import { cameraFor, matricesOf, panned, project, seenFrom, turned, VIEWS, zoomed } from "./camera.js";
import { el } from "../dom.js";
import { cssColor } from "../sheet.js";
import { boundsOf, cutOf, identified, isCut, looksOf, mark, middleOf, noduleColor } from "./parts.js";
import { clearCanvas, createRenderer } from "./renderer.js";

const TURN = Math.PI / 36;
const STEP = 0.05;
const NEAR_PX = 14;

/**
 * @param {HTMLElement} host where the canvas goes
 * @param {object[]} parts of `readGlb`
 * @param {{id: string}[]} nodules of the result
 * @param {{words: object, onPick?: (id: string | null) => void}} options
 * @returns null where there is no WebGL2
 */
export function createViewer(host, parts, nodules, { words, onPick = () => {} }) {
  const known = identified(parts, nodules);
  if (!known.length) return null;
  const canvas = el("canvas", { class: "scene-canvas", tabIndex: 0, role: "application", "aria-label": words.canvas });
  const labels = el("div", { class: "scene-labels", "aria-hidden": "true" });
  host.append(canvas, labels);
  const bounds = boundsOf(known.map(({ part }) => part));
  const start = cameraFor(bounds);
  const state = { camera: start, hidden: new Set(), fade: 0.5, side: "front", share: 0, selected: null };
  let renderer = createRenderer(canvas, known.map(({ part }) => part));
  if (!renderer) {
    host.replaceChildren();
    return null;
  }
  let asked = 0;
  let paused = false;
  const spots = known.flatMap(({ part, nodule, color }) => (nodule ? [spotOf(part, nodule, color, nodules, labels)] : []));
  spots.push(...withoutSurface(known, nodules).map((nodule) => bareSpotOf(nodule, nodules, labels)));

  const cut = () => cutOf(bounds, state.side, state.share);
  const looks = () => looksOf(known, state);

  function paint() {
    asked = 0;
    if (paused || !canvas.isConnected || renderer.gl.isContextLost()) return;
    clearCanvas(renderer.gl, canvas);
    renderer.draw(matricesOf(state.camera, canvas.width / canvas.height), looks(), cut());
    for (const spot of spots) placeLabel(spot);
  }

  function placeLabel(spot) {
    const at = project(state.camera, spot.center, canvas.clientWidth, canvas.clientHeight);
    const shown = at && !state.hidden.has(spot.name) && !isCut(cut(), spot.center);
    spot.label.hidden = !shown;
    spot.shownAt = shown ? at : null;
    spot.label.classList.toggle("selected", spot.nodule === state.selected);
    if (shown) spot.label.style.transform = `translate(${at[0]}px, ${at[1]}px)`;
  }

  const redraw = () => (asked ||= requestAnimationFrame(paint));
  const change = (values) => {
    Object.assign(state, values);
    redraw();
  };

  function pickAt(x, y) {
    const near = spots
      .filter((spot) => !spot.label.hidden)
      .map((spot) => {
        const [sx, sy, depth] = project(state.camera, spot.center, canvas.clientWidth, canvas.clientHeight);
        const rim = project(state.camera, spot.rim, canvas.clientWidth, canvas.clientHeight) ?? [sx, sy];
        const reach = Math.max(NEAR_PX, Math.hypot(rim[0] - sx, rim[1] - sy));
        return { spot, depth, hit: Math.hypot(x - sx, y - sy) <= reach };
      })
      .filter(({ hit }) => hit)
      .sort((a, b) => a.depth - b.depth);
    const id = near[0]?.spot.nodule ?? null;
    change({ selected: id });
    onPick(id);
  }

  const moves = {
    turn: (yaw, pitch) => change({ camera: turned(state.camera, yaw, pitch) }),
    zoom: (factor) => change({ camera: zoomed(state.camera, factor) }),
    pan: (right, up) => change({ camera: panned(state.camera, right, up) }),
    pick: pickAt,
  };
  const stopPointer = followPointer(canvas, moves);
  canvas.addEventListener("keydown", (event) => onKey(event, moves, () => change({ camera: start })));
  canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
  canvas.addEventListener("webglcontextrestored", () => {
    renderer = createRenderer(canvas, known.map(({ part }) => part));
    redraw();
  });
  const watch = new ResizeObserver(redraw);
  watch.observe(canvas);
  redraw();

  return {
    canvas,
    bounds,
    known,
    get renderer() {
      return renderer;
    },
    looks,
    cut,
    look: (name) => change({ camera: seenFrom({ ...start }, VIEWS[name]) }),
    reset: () => change({ camera: start, fade: 0.5, side: "front", share: 0, hidden: new Set() }),
    setFade: (fade) => change({ fade }),
    setCut: (side, share) => change({ side, share }),
    show: (names, visible) => {
      for (const name of names) visible ? state.hidden.delete(name) : state.hidden.add(name);
      redraw();
    },
    select: (selected) => change({ selected }),
    pause: (value) => {
      paused = value;
      redraw();
    },
    picture: () => {
      paint();
      return withLabels(canvas, spots);
    },
    free: () => {
      cancelAnimationFrame(asked);
      watch.disconnect();
      stopPointer();
      renderer.free();
      renderer.gl.getExtension("WEBGL_lose_context")?.loseContext();
    },
  };
}

function spotOf(part, nodule, color, nodules, labels) {
  const center = middleOf(part);
  const label = labelOf(nodules.findIndex(({ id }) => id === nodule), color, labels);
  return { name: part.name, nodule, center, rim: [part.max[0], center[1], center[2]], label, shownAt: null };
}

/** Nodules of a model that draws no outlines: a place is known, a surface is not. */
const withoutSurface = (known, nodules) =>
  nodules.filter(({ id, center_lps_mm: center }) => center && !known.some(({ nodule }) => nodule === id));

/** A letter alone, where the answer says the nodule lies. */
function bareSpotOf({ id, center_lps_mm: [x, y, z], diameter_mm: diameter }, nodules, labels) {
  const number = nodules.findIndex((one) => one.id === id);
  const center = [-x / 1000, z / 1000, y / 1000];
  const label = labelOf(number, noduleColor(number), labels);
  return { name: id, nodule: id, center, rim: [center[0] + diameter / 2000, center[1], center[2]], label, shownAt: null };
}

function labelOf(number, color, labels) {
  const label = el("span", { class: "scene-label", hidden: true }, mark(number));
  label.style.setProperty("--nodule", cssColor(color));
  labels.append(label);
  return label;
}

/** The picture with its letters, as the address of a PNG: for paper, and wherever the labels are not. */
function withLabels(canvas, spots) {
  const flat = el("canvas", { width: canvas.width, height: canvas.height });
  const pen = flat.getContext("2d");
  pen.drawImage(canvas, 0, 0);
  const scale = canvas.width / canvas.clientWidth;
  pen.font = `bold ${16 * scale}px sans-serif`;
  for (const { label, shownAt } of spots.filter((spot) => spot.shownAt)) {
    const [x, y] = [(shownAt[0] + 14) * scale, (shownAt[1] - 12) * scale];
    const width = pen.measureText(label.textContent).width;
    pen.fillStyle = "#000";
    pen.fillRect(x - 4 * scale, y - 16 * scale, width + 8 * scale, 22 * scale);
    pen.fillStyle = "#fff";
    pen.fillText(label.textContent, x, y);
  }
  return flat.toDataURL("image/png");
}

/** One pointer turns; with Shift or the second button it moves; two fingers zoom and move; a click picks. */
function followPointer(canvas, moves) {
  const down = new Map();
  let travelled = 0;
  const begin = (event) => {
    canvas.setPointerCapture(event.pointerId);
    down.set(event.pointerId, [event.offsetX, event.offsetY]);
    if (down.size === 1) travelled = 0;
  };
  const move = (event) => {
    const before = down.get(event.pointerId);
    if (!before) return;
    const [dx, dy] = [event.offsetX - before[0], event.offsetY - before[1]];
    travelled += Math.abs(dx) + Math.abs(dy);
    const height = canvas.clientHeight;
    if (down.size === 2) {
      const [other] = [...down].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
      const [was, is] = [before, [event.offsetX, event.offsetY]].map((at) => Math.hypot(at[0] - other[0], at[1] - other[1]));
      if (was > 4 && is > 4) moves.zoom(was / is);
      moves.pan(dx / height / 2, -dy / height / 2);
    } else if (event.shiftKey || event.buttons & 6) moves.pan(dx / height, -dy / height);
    else moves.turn((dx / height) * Math.PI, (dy / height) * Math.PI);
    down.set(event.pointerId, [event.offsetX, event.offsetY]);
  };
  const end = (event) => {
    if (down.delete(event.pointerId) && event.type === "pointerup" && travelled < 4) moves.pick(event.offsetX, event.offsetY);
  };
  const wheel = (event) => {
    event.preventDefault();
    moves.zoom(Math.exp(Math.sign(event.deltaY) * Math.min(Math.abs(event.deltaY), 120) * 0.0015));
  };
  canvas.addEventListener("pointerdown", begin);
  canvas.addEventListener("pointermove", move);
  for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, end);
  canvas.addEventListener("wheel", wheel, { passive: false });
  const noMenu = (event) => event.preventDefault();
  canvas.addEventListener("contextmenu", noMenu);
  return () => down.clear();
}

function onKey(event, moves, home) {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const pan = event.shiftKey;
  const actions = {
    ArrowLeft: () => (pan ? moves.pan(-STEP, 0) : moves.turn(-TURN, 0)),
    ArrowRight: () => (pan ? moves.pan(STEP, 0) : moves.turn(TURN, 0)),
    ArrowUp: () => (pan ? moves.pan(0, STEP) : moves.turn(0, -TURN)),
    ArrowDown: () => (pan ? moves.pan(0, -STEP) : moves.turn(0, TURN)),
    "+": () => moves.zoom(1 / 1.1),
    "=": () => moves.zoom(1 / 1.1),
    "-": () => moves.zoom(1.1),
    Home: home,
  };
  if (event.key in actions) {
    event.preventDefault();
    event.stopPropagation();
    actions[event.key]();
  }
}
