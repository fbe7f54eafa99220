// Makes elements. Text only ever goes in as text: nothing that a file or a person wrote can become markup.

const SVG = "http://www.w3.org/2000/svg";

const isThere = (value) => value !== null && value !== undefined && value !== false;
const append = (element, children) => element.append(...children.flat(Infinity).filter(isThere));

/**
 * @param {string} tag
 * @param {Record<string, any>} [properties] `class`, `data-*`, `aria-*`, `role` and the like become attributes,
 *   `on...` listeners, anything else a property of the element.
 * @param {...any} children nodes, texts and lists of them; null, undefined and false are nothing
 */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2).toLowerCase(), value);
    else if (name === "class" || name === "role" || name === "for" || name.includes("-")) element.setAttribute(name, value);
    else element[name] = value;
  }
  append(element, children);
  return element;
}

/** The same for a drawing, where everything is an attribute. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null) element.setAttribute(name, value);
  }
  append(element, children);
  return element;
}

let serial = 0;

/** An id that no other element of this page has. */
export const freshId = (stem) => `${stem}-${++serial}`;

/** A label above its control. */
export function field(label, control, hint) {
  control.id ||= freshId("field");
  const note = hint && el("small", { class: "hint", id: freshId("hint") }, hint);
  if (note) control.setAttribute("aria-describedby", note.id);
  return el("div", { class: "field" }, el("label", { for: control.id }, label), control, note);
}

/** A check box before its label. */
export function check(label, properties = {}) {
  const box = el("input", { type: "checkbox", ...properties });
  const whole = el("label", { class: "check" }, box, label);
  return { box, whole };
}

export function select(options, value, properties = {}) {
  const list = el("select", properties, ...options.map(([key, text]) => el("option", { value: key }, text)));
  if (value !== undefined) list.value = value;
  return list;
}

/** A modal dialog with a heading; closed and removed by Escape, its close button or `dialog.close()`. */
export function dialog(title, closeLabel, ...content) {
  const heading = el("h2", { id: freshId("dialog") }, title);
  const close = el("button", { type: "button", class: "quiet", "aria-label": closeLabel, onClick: () => box.close() }, "×");
  const box = el(
    "dialog",
    { "aria-labelledby": heading.id, onClose: () => box.remove() },
    el("div", { class: "dialog-head" }, heading, close),
    ...content,
  );
  document.body.append(box);
  box.showModal();
  return box;
}

/** Asks before something that cannot be undone. Resolves to whether it was confirmed. */
export function confirmed(title, text, yes, no, closeLabel) {
  return new Promise((resolve) => {
    let answer = false;
    const agree = () => {
      answer = true;
      box.close();
    };
    const box = dialog(
      title,
      closeLabel,
      el("p", {}, text),
      el(
        "div",
        { class: "row end" },
        el("button", { type: "button", onClick: () => box.close() }, no),
        el("button", { type: "button", class: "danger", onClick: agree }, yes),
      ),
    );
    box.addEventListener("close", () => resolve(answer));
  });
}
