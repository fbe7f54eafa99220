// The commands as buttons, grouped; each says its key.

import { el, select } from "../dom.js";

const THICKNESSES_MM = [0, 5, 10, 20, 40];

/**
 * @param {any} words
 * @param {{store: any, windows: any[], commands: any[]}} parts
 */
export function createToolbar(words, { store, windows, commands }) {
  const byKey = (key) => commands.find((command) => command.keys.includes(key));
  const button = (key, text, isOn) => {
    const command = byKey(key);
    const made = el(
      "button",
      { type: "button", title: words.withKey(command.what, command.key), "aria-label": command.what, "aria-keyshortcuts": command.key, onClick: () => command.run() },
      text,
      el("span", { class: "key", "aria-hidden": "true" }, command.key),
    );
    if (isOn) {
      const show = (state) => made.setAttribute("aria-pressed", String(isOn(state)));
      store.listen(show);
      show(store.get());
    }
    return made;
  };
  const group = (label, ...buttons) => el("div", { class: "group", role: "group", "aria-label": label }, ...buttons);
  const thickness = select(
    THICKNESSES_MM.map((mm) => [String(mm), mm ? words.thick(mm) : words.thin]),
    "0",
    { "aria-label": words.thickness },
  );
  thickness.addEventListener("change", () => store.set({ mipMm: Number(thickness.value) }));
  const sameWindow = (window) => (state) => state.window.center === window.center && state.window.width === window.width;
  return el(
    "div",
    { class: "tools", role: "group", "aria-label": words.tools },
    group(words.windows, ...windows.map((window, number) => button(String(number + 1), window.name, sameWindow(window)))),
    group(
      words.show,
      button("b", words.short.boxes, (state) => state.boxes),
      button("m", words.short.contours, (state) => state.contours),
      button("x", words.short.crosshair, (state) => state.crosshair),
      button("i", words.short.invert, (state) => state.inverted),
    ),
    thickness,
    group(
      words.tool,
      button("l", words.short.measure, (state) => state.tool === "measure"),
      button("d", words.short.add, (state) => state.tool === "add"),
      button("g", words.short.move, (state) => state.tool === "pan"),
      button("c", words.short.window, (state) => state.tool === "window"),
    ),
    group(
      words.size,
      button("+", words.short.larger),
      button("-", words.short.smaller),
      button("0", words.short.whole),
      button("f", words.short.enlarge, (state) => state.enlarged !== null),
    ),
  );
}
