// Which study, which model, and where else it can be looked at.

import { el } from "../dom.js";
import { showText } from "./downloads.js";
import { findingsText } from "./findings_text.js";

/** @param {any} words @param {any} strings @param {{status: any, result: any, volume: any, review: any}} known */
export function createHead(words, strings, { status, result, volume, review }) {
  const { model, series, operating_point: point } = result;
  const to = (name) => el("a", { class: "button", href: `#/jobs/${status.id}/${name}`, "data-to": name, hidden: name === "prior" && !result.comparison }, words.views[name]);
  const text = () => showText(strings, findingsText(words.text, { result, volume, review }));
  return el(
    "div",
    { class: "head" },
    el("h1", {}, words.title(status.id.slice(0, 8))),
    el("span", { class: "soft" }, words.scan(series)),
    el(
      "span",
      { class: "model" },
      el("a", { href: `#/models/${model.name}/${encodeURIComponent(model.version)}` }, `${model.name}:${model.version}`),
      el("code", { title: model.sha256 }, words.digest(model.sha256)),
      el("span", { class: "soft" }, words.point(point)),
    ),
    warnings(words, result),
    el("span", { class: "spread" }),
    el("nav", { class: "row no-print", "aria-label": words.views.title }, to("3d"), to("patient"), to("prior")),
    el("button", { type: "button", class: "no-print", onClick: text }, words.text.open),
    el("button", { type: "button", class: "no-print", onClick: () => window.print() }, words.print),
  );
}

function warnings(words, { acceptance }) {
  const notices = [...acceptance.warnings, ...acceptance.repairs];
  if (notices.length === 0) return null;
  return el("details", { class: "warnings" }, el("summary", {}, words.warnings(notices.length)), el("ul", {}, ...notices.map(({ message }) => el("li", {}, message))));
}
