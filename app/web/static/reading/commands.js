// What can be done with the picture, each with its key: the tool bar and the keyboard both read this table.

/**
 * @param {any} words
 * @param {{store: any, viewer: any, windows: any[], step: (by: number) => void, decide: (decision: string) => void,
 *   markHere: () => void}} parts
 * @returns {{key: string, keys: string[], what: string, run: (event?: KeyboardEvent) => void, only?: string}[]}
 *   only: the selector of what must have the focus
 */
export function createCommands(words, { store, viewer, windows, step, decide, markHere }) {
  const active = () => store.get().active;
  const flip = (name) => () => store.set({ [name]: !store.get()[name] });
  const tool = (name) => () => store.set({ tool: store.get().tool === name ? "point" : name });
  const far = (event) => (event?.shiftKey ? 10 : 1);
  const windowed = (change) => () => {
    const { center, width } = store.get().window;
    store.set({ window: { name: null, ...change(center, width) } });
  };
  const command = (key, keys, what, run) => ({ key, keys, what, run });
  return [
    command("↑ PgUp", ["ArrowUp", "PageUp"], words.up, (event) => viewer.scroll(active(), -far(event))),
    command("↓ PgDn", ["ArrowDown", "PageDown"], words.down, (event) => viewer.scroll(active(), far(event))),
    command("Home", ["Home"], words.first, () => viewer.toEnd(active(), -1)),
    command("End", ["End"], words.last, () => viewer.toEnd(active(), 1)),
    command("N", ["n"], words.next, () => step(1)),
    command("P", ["p"], words.previous, () => step(-1)),
    ...windows.map((window, number) => command(`${number + 1}`, [`${number + 1}`], words.preset(window), () => store.set({ window }))),
    command("[", ["["], words.darker, windowed((center, width) => ({ center: center - 25, width }))),
    command("]", ["]"], words.lighter, windowed((center, width) => ({ center: center + 25, width }))),
    command(",", [","], words.narrower, windowed((center, width) => ({ center, width: Math.max(1, Math.round(width * 0.9)) }))),
    command(".", ["."], words.wider, windowed((center, width) => ({ center, width: Math.min(8000, Math.round(width * 1.1) + 1) }))),
    command("I", ["i"], words.invert, flip("inverted")),
    command("B", ["b"], words.boxes, flip("boxes")),
    command("M", ["m"], words.contours, flip("contours")),
    command("X", ["x"], words.crosshair, flip("crosshair")),
    command("L", ["l"], words.measure, tool("measure")),
    command("G", ["g"], words.move, tool("pan")),
    command("C", ["c"], words.window, tool("window")),
    command("Esc", ["Escape"], words.clear, () => store.set({ measures: [], begun: null, tool: "point" })),
    command("+", ["+", "="], words.larger, () => viewer.zoomBy(active(), 1.25)),
    command("−", ["-"], words.smaller, () => viewer.zoomBy(active(), 0.8)),
    command("0", ["0"], words.whole, () => viewer.whole()),
    command("F", ["f"], words.enlarge, () => store.set({ enlarged: store.get().enlarged === active() ? null : active() })),
    command("A", ["a"], words.accept, () => decide("accepted")),
    command("R", ["r"], words.reject, () => decide("rejected")),
    command("D", ["d"], words.add, tool("add")),
    { ...command("Enter", ["Enter"], words.here, markHere), only: ".plane" },
  ];
}

/** What only the pointer does, for the list of keys. */
export const pointerKeys = (words) => Object.entries(words.pointer);

/**
 * Listen for the keys of the commands.
 * @param {ReturnType<typeof createCommands>} commands
 * @param {(target: EventTarget | null) => boolean} isTyping
 * @param {Set<string>} held keys that are down, for gestures
 * @returns {() => void} stops
 */
export function listenForKeys(commands, isTyping, held) {
  const byKey = new Map(commands.flatMap((command) => command.keys.map((key) => [key, command])));
  const name = (event) => (event.key.length === 1 ? event.key.toLowerCase() : event.key);
  const scrolls = (target) => target instanceof HTMLElement && target.matches("[data-scrolls]");
  const moves = new Set(["ArrowUp", "ArrowDown", "PageUp", "PageDown", "Home", "End"]);
  const down = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
    held.add(name(event));
    const command = byKey.get(name(event));
    // A panel that is itself in focus is scrolled by these keys, as every page is.
    if (!command || (moves.has(event.key) && scrolls(event.target))) return;
    if (command.only && !event.target.closest?.(command.only)) return;
    event.preventDefault();
    command.run(event);
  };
  const up = (event) => held.delete(name(event));
  const none = () => held.clear();
  document.addEventListener("keydown", down);
  document.addEventListener("keyup", up);
  window.addEventListener("blur", none);
  return () => {
    document.removeEventListener("keydown", down);
    document.removeEventListener("keyup", up);
    window.removeEventListener("blur", none);
  };
}
