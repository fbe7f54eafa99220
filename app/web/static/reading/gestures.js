// The pointer on a plane: scroll, zoom, pan, window, crosshair, measure, add. What it does is written to the store.

import { apply, clamp } from "./geometry.js";

const WHEEL_STEP = 60;

/**
 * @param {ReturnType<import("./plane.js").createPlane>} view
 * @param {{store: any, scroll: (plane: string, steps: number) => void, zoomBy: Function, onPoint: Function,
 *   onAdd: (lps: number[]) => void, held: Set<string>}} parts `held`: keys that are down
 */
export function listenTo(view, { store, scroll, zoomBy, onPoint, onAdd, held }) {
  const { element, plane } = view;
  let turned = 0;

  element.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      if (event.ctrlKey) return zoomBy(plane.name, Math.exp(-event.deltaY / 300), view.under(event.clientX, event.clientY));
      turned += event.deltaMode === 0 ? event.deltaY : event.deltaY * WHEEL_STEP;
      const steps = Math.trunc(turned / WHEEL_STEP) || Math.sign(turned) * (Math.abs(event.deltaY) >= 1 && event.deltaMode ? 1 : 0);
      turned = steps ? 0 : turned;
      if (steps) scroll(plane.name, clamp(steps, -5, 5));
    },
    { passive: false },
  );
  element.addEventListener("contextmenu", (event) => event.preventDefault());
  element.addEventListener("focus", () => store.set({ active: plane.name }));
  element.addEventListener("pointermove", (event) => onPoint(apply(plane.to_lps_mm, view.under(event.clientX, event.clientY))));
  element.addEventListener("pointerleave", () => onPoint(null));
  element.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    element.focus({ preventScroll: true });
    const moved = begin(event);
    if (!moved) return;
    element.setPointerCapture(event.pointerId);
    const ended = new AbortController();
    element.addEventListener("pointermove", moved, { signal: ended.signal });
    for (const end of ["pointerup", "pointercancel"]) element.addEventListener(end, () => ended.abort(), { signal: ended.signal });
  });

  function begin(event) {
    const { tool } = store.get();
    if (event.button === 2 || (event.button === 0 && (tool === "window" || held.has("w")))) return windowing(event);
    if (event.button === 1 || tool === "pan" || event.shiftKey) return panning(event);
    if (event.button !== 0) return null;
    const start = view.under(event.clientX, event.clientY);
    if (tool === "measure") return measuring(start);
    if (tool === "add") {
      onAdd(apply(plane.to_lps_mm, start));
      return null;
    }
    const point = (at) => {
      const [slice, row, column] = view.under(at.clientX, at.clientY);
      store.set({ position: apply(plane.to_lps_mm, [slice, clamp(row, 0, plane.rows - 1), clamp(column, 0, plane.columns - 1)]) });
    };
    point(event);
    return point;
  }

  function windowing(event) {
    const before = store.get().window;
    const [x, y] = [event.clientX, event.clientY];
    return (at) => {
      const width = clamp(Math.round(before.width * Math.exp((at.clientX - x) / 250)), 1, 8000);
      const center = clamp(Math.round(before.center + ((at.clientY - y) * Math.max(before.width, 200)) / 400), -2000, 3000);
      store.set({ window: { name: null, center, width } });
    };
  }

  function panning(event) {
    const before = store.get().zoom[plane.name];
    const [x, y, perMm] = [event.clientX, event.clientY, view.perMm()];
    return (at) => {
      const moved = { ...before, dx: before.dx + (at.clientX - x) / perMm, dy: before.dy + (at.clientY - y) / perMm };
      store.set({ zoom: { ...store.get().zoom, [plane.name]: moved } });
    };
  }

  function measuring(start) {
    const others = store.get().measures;
    return (at) => {
      const line = { plane: plane.name, from: start, to: view.under(at.clientX, at.clientY) };
      store.set({ measures: [...others, line] });
    };
  }
}
