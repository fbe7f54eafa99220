// What views in the form of a sheet of paper share: their ground, swatches of nodules, tables, filled-in words.

import { el } from "./dom.js";

/** A view's own style sheet, from static/; it stays once it is there. Resolves when it is in force. */
export function stylesheet(name) {
  const href = new URL(name, import.meta.url).href;
  const there = [...document.querySelectorAll('link[rel="stylesheet"]')].some((link) => link.href === href);
  if (there) return Promise.resolve();
  const link = el("link", { rel: "stylesheet", href });
  return new Promise((resolve) => {
    link.addEventListener("load", resolve);
    link.addEventListener("error", resolve);
    document.head.append(link);
  });
}

/** The ground of a view, once its styles are in force; put there before, so that a slow one never covers a later view. */
export async function sheet(root, title, ...styles) {
  const ground = el("div", { class: "sheet" }, el("h1", {}, title));
  root.replaceChildren(ground);
  await Promise.all(["sheet.css", ...styles].map(stylesheet));
  return ground;
}

/** The swatch of a nodule: its letter on its colour. */
export function swatch(letter, color) {
  const box = el("span", { class: "sheet-swatch", "aria-hidden": "true" }, letter);
  box.style.setProperty("--nodule", cssColor(color));
  return box;
}

export const cssColor = (color) => `rgb(${color.map((value) => Math.round(255 * value)).join(" ")})`;

/** A table with a caption; rows of texts or elements, the first cell of each is its heading. */
export function table(caption, headings, rows, attributes = {}) {
  return el(
    "table",
    attributes,
    el("caption", {}, caption),
    el("thead", {}, el("tr", {}, headings.map((heading) => el("th", { scope: "col" }, heading)))),
    el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell, k) => (k ? el("td", {}, cell) : el("th", { scope: "row" }, cell)))))),
  );
}

/** Puts values into "{name}" of a string of strings.js. */
export const filledIn = (text, values) => text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
