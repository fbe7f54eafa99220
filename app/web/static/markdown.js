// The part of Markdown that our model cards use: headings, paragraphs, lists, tables, code, emphasis, and links within the
// page. It builds elements and puts text in as text, so nothing in a card can become markup; a link to anywhere else, an
// image or a piece of HTML stays the text that it is.

import { el } from "./dom.js";

const INLINE = /`([^`]+)`|\*\*([^*]+)\*\*|\*([^*\s][^*]*)\*|\[([^\]]+)\]\((#\/[^)\s]*)\)/g;

/** @returns {Node[]} `firstHeading`: the level that "#" becomes, so that a card fits below the heading of the page */
export function rendered(markdown, { firstHeading = 2 } = {}) {
  const blocks = [];
  const lines = markdown.replace(/\r\n?/g, "\n").split("\n");
  for (let at = 0; at < lines.length; ) {
    const block = blockAt(lines, at, firstHeading);
    if (block.element) blocks.push(block.element);
    at = Math.max(block.next, at + 1);
  }
  return blocks;
}

function blockAt(lines, at, firstHeading) {
  const line = lines[at];
  if (!line.trim()) return { next: at + 1 };
  const heading = /^(#{1,6})\s+(.*?)\s*#*$/.exec(line);
  if (heading) {
    const level = Math.min(6, heading[1].length + firstHeading - 1);
    return { element: el(`h${level}`, {}, inline(heading[2])), next: at + 1 };
  }
  if (line.startsWith("```")) return code(lines, at);
  if (line.trim().startsWith("|") && isRule(lines[at + 1])) return tableAt(lines, at);
  if (ITEM.test(line)) return list(lines, at);
  const end = until(lines, at + 1, (next) => !next.trim() || /^(#{1,6}\s|```|\s*\|)/.test(next) || ITEM.test(next));
  return { element: el("p", {}, inline(lines.slice(at, end).join(" "))), next: end };
}

const ITEM = /^\s*(?:[-*+]|\d+[.)])\s+(.*)$/;

function until(lines, from, stops) {
  let at = from;
  while (at < lines.length && !stops(lines[at])) at++;
  return at;
}

function code(lines, at) {
  const end = until(lines, at + 1, (line) => line.startsWith("```"));
  const text = lines.slice(at + 1, end).join("\n");
  return { element: el("pre", { tabIndex: 0 }, el("code", {}, text)), next: end + 1 };
}

const isRule = (line) => line !== undefined && /^\s*\|?(\s*:?-+:?\s*\|)+\s*:?-*:?\s*$/.test(line);

const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => inline(cell.trim()));

function tableAt(lines, at) {
  const end = until(lines, at + 2, (line) => !line.trim().startsWith("|"));
  const head = el("tr", {}, cells(lines[at]).map((cell) => el("th", { scope: "col" }, cell)));
  const body = lines.slice(at + 2, end).map((line) => el("tr", {}, cells(line).map((cell) => el("td", {}, cell))));
  const whole = el("table", {}, el("thead", {}, head), el("tbody", {}, body));
  return { element: el("div", { class: "sheet-wide", tabIndex: 0 }, whole), next: end };
}

function list(lines, at) {
  const end = until(lines, at, (line) => !ITEM.test(line) && !/^\s{2,}\S/.test(line));
  const items = [];
  for (const line of lines.slice(at, end)) {
    const item = ITEM.exec(line);
    if (item) items.push(item[1]);
    else items[items.length - 1] += ` ${line.trim()}`;
  }
  const tag = /^\s*\d/.test(lines[at]) ? "ol" : "ul";
  return { element: el(tag, {}, items.map((item) => el("li", {}, inline(item)))), next: end };
}

/** Text with its code, emphasis and links within the page. */
function inline(text) {
  const nodes = [];
  let done = 0;
  for (const found of text.matchAll(INLINE)) {
    if (found.index > done) nodes.push(text.slice(done, found.index));
    const [whole, code, strong, slanted, label, target] = found;
    if (code !== undefined) nodes.push(el("code", {}, code));
    else if (strong !== undefined) nodes.push(el("strong", {}, strong));
    else if (slanted !== undefined) nodes.push(el("em", {}, slanted));
    else nodes.push(el("a", { href: target }, label));
    done = found.index + whole.length;
  }
  if (done < text.length) nodes.push(text.slice(done));
  return nodes;
}
