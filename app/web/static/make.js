// Elements from script. Text goes in as text, never as markup; attributes are set by name.

const SVG = "http://www.w3.org/2000/svg";

const filled = (element, attributes, children) => {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
};

/** make("button", {type: "button", click: handler}, "text", otherElement) */
export const make = (tag, attributes = {}, ...children) => filled(document.createElement(tag), attributes, children);

export const makeSvg = (tag, attributes = {}, ...children) =>
  filled(document.createElementNS(SVG, tag), attributes, children);

/** A view's own style sheet, from static/; it stays once it is there. Resolves when it is in force. */
export function stylesheet(name) {
  const href = new URL(name, import.meta.url).href;
  const there = [...document.querySelectorAll('link[rel="stylesheet"]')].some((link) => link.href === href);
  if (there) return Promise.resolve();
  const link = make("link", { rel: "stylesheet", href });
  return new Promise((resolve) => {
    link.addEventListener("load", resolve);
    link.addEventListener("error", resolve);
    document.head.append(link);
  });
}

/** The ground of a view, once its styles are in force; put there before, so that a slow one never covers a later view. */
export async function sheet(root, title, ...styles) {
  const ground = make("div", { class: "sheet" }, make("h1", {}, title));
  root.replaceChildren(ground);
  await Promise.all(["sheet.css", ...styles].map(stylesheet));
  return ground;
}

/** The swatch of a nodule: its letter on its colour. */
export function swatch(letter, color) {
  const box = make("span", { class: "sheet-swatch", "aria-hidden": "true" }, letter);
  box.style.setProperty("--nodule", cssColor(color));
  return box;
}

export const cssColor = (color) => `rgb(${color.map((value) => Math.round(255 * value)).join(" ")})`;

/** A table with a caption; rows of texts or elements, the first cell of each is its heading. */
export function table(caption, headings, rows, attributes = {}) {
  return make(
    "table",
    attributes,
    make("caption", {}, caption),
    make("thead", {}, make("tr", {}, headings.map((heading) => make("th", { scope: "col" }, heading)))),
    make("tbody", {}, rows.map((row) => make("tr", {}, row.map((cell, k) => (k ? make("td", {}, cell) : make("th", { scope: "row" }, cell)))))),
  );
}

/** Puts values into "{name}" of a string of strings.js. */
export const filledIn = (text, values) => text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
