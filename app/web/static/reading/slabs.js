// Slices of the three planes, fetched in blocks around what is looked at, ahead in the direction of scrolling, kept up
// to a number of bytes, and given up when no longer wanted.

const BLOCK_BYTES = 2 << 20;
const MOST_SLICES = 16;
const AHEAD = 2;

/**
 * @typedef {{plane: string, first: number, count: number, rows: number, columns: number, bytes: Uint8Array,
 *   window: {center: number, width: number}, mip: number}} Slab
 * @param {{api: any, job: string, planes: Record<string, any>, onArrive: (plane: string) => void,
 *   onProblem: (problem: any) => void, limitBytes?: number}} options
 */
export function createSlabs({ api, job, planes, onArrive, onProblem, limitBytes = 192 << 20 }) {
  /** @type {Map<string, Slab>} the least recently used first */
  const kept = new Map();
  /** @type {Map<string, {controller: AbortController, plane: string}>} */
  const pending = new Map();
  let bytes = 0;

  const perBlock = ({ rows, columns }) => Math.max(1, Math.min(MOST_SLICES, Math.floor(BLOCK_BYTES / (rows * columns))));

  const request = (plane, first, count, window, mip) => ({
    key: [plane, first, count, window.center, window.width, mip].join("/"),
    plane, first, count, window, mip,
  });

  async function fetchSlab(wanted) {
    const { key, plane, first, count, window, mip } = wanted;
    if (kept.has(key) || pending.has(key)) return;
    const controller = new AbortController();
    pending.set(key, { controller, plane });
    const query = new URLSearchParams({ plane, first, count, center: window.center, width: window.width, mip_mm: mip });
    try {
      const response = await api.request("GET", `v1/jobs/${job}/volume/slab?${query}`, { signal: controller.signal });
      const [slices, rows, columns] = response.headers.get("X-Slab-Shape").split(",").map(Number);
      keep(key, { plane, first, count: slices, rows, columns, window, mip, bytes: new Uint8Array(await response.arrayBuffer()) });
      onArrive(plane);
    } catch (problem) {
      if (!controller.signal.aborted) onProblem(problem);
    } finally {
      if (pending.get(key)?.controller === controller) pending.delete(key);
    }
  }

  function keep(key, slab) {
    kept.set(key, slab);
    bytes += slab.bytes.length;
    for (const [oldest, old] of kept) {
      if (bytes <= limitBytes || oldest === key) break;
      kept.delete(oldest);
      bytes -= old.bytes.length;
    }
  }

  /** The slice, in the window asked for or, until that is here, in another; null where nothing is here. */
  function slice(plane, number, window, mip) {
    let best = null;
    for (const [key, slab] of kept) {
      if (slab.plane !== plane || slab.mip !== mip || number < slab.first || number >= slab.first + slab.count) continue;
      const exact = slab.window.center === window.center && slab.window.width === window.width;
      if (!best || exact) best = { key, slab, exact };
      if (exact) break;
    }
    if (!best) return null;
    const { key, slab } = best;
    kept.delete(key);
    kept.set(key, slab); // the most recently used goes last
    const size = slab.rows * slab.columns;
    const start = (number - slab.first) * size;
    return { ...slab, exact: best.exact, pixels: slab.bytes.subarray(start, start + size) };
  }

  /** Say what is looked at: that comes first, then what lies ahead; the rest of this plane is given up. */
  function want(name, number, direction, window, mip) {
    const plane = planes[name];
    const size = perBlock(plane);
    const block = Math.floor(number / size);
    const last = Math.floor((plane.count - 1) / size);
    const order = [block, ...Array.from({ length: AHEAD }, (_, ahead) => block + direction * (ahead + 1)), block - direction];
    const wanted = order
      .filter((one) => one >= 0 && one <= last)
      .map((one) => request(name, one * size, Math.min(size, plane.count - one * size), window, mip));
    // One slice is here sooner than a block, when there is nothing yet to look at.
    if (!slice(name, number, window, mip)) wanted.unshift(request(name, number, 1, window, mip));
    const keys = new Set(wanted.map(({ key }) => key));
    for (const [key, { controller, plane: owner }] of pending) {
      if (owner === name && !keys.has(key)) {
        controller.abort();
        pending.delete(key);
      }
    }
    wanted.forEach(fetchSlab);
  }

  return {
    slice,
    want,
    close: () => {
      for (const { controller } of pending.values()) controller.abort();
      pending.clear();
      kept.clear();
    },
  };
}
