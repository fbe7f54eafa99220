// Risk and guidelines of a nodule: what they say, from what, and what they lacked.

import { el } from "../dom.js";

const shown = (value) => (typeof value === "number" ? String(Math.round(value * 100) / 100) : Array.isArray(value) ? value.map(shown).join("–") : String(value));

/** @returns {HTMLElement[]} */
export function judgement(words, assessment, nodule) {
  const found = assessment?.nodules.find((one) => one.nodule_id === nodule);
  if (!found) return [];
  return [
    el("h3", {}, words.title),
    ...found.guidelines.map((answer) => guideline(words, answer)),
    ...found.brock.map((risk) => brock(words, risk)),
    found.growth && el("p", {}, words.growth(found.growth)),
    ...assessment.notes.map((note) => el("p", { class: "hint" }, note)),
  ].filter(Boolean);
}

function guideline(words, answer) {
  const says = answer.category === null ? words.none : words.category(answer.category);
  return folded(words.guidelines[answer.guideline] ?? answer.guideline, says, [
    answer.management && el("p", {}, answer.management),
    answer.rule && el("p", { class: "soft" }, answer.rule.sentence),
    answer.cannot_be_assigned && el("p", {}, answer.cannot_be_assigned),
    ...basis(words, answer),
  ]);
}

function brock(words, risk) {
  const says = risk.probability === null ? words.none : words.percent(risk.probability);
  return folded(words.brock[risk.model] ?? risk.model, says, [
    el("p", { class: "soft" }, risk.means),
    risk.cannot_be_computed && el("p", {}, risk.cannot_be_computed),
    ...basis(words, risk),
  ]);
}

const basis = (words, { inputs_used, inputs_missing, notes, source }) => [
  el("p", { class: "soft" }, words.used, " ", words.inputs(Object.entries(inputs_used).map(([name, value]) => [words.named(name), shown(value)]))),
  inputs_missing.length > 0 &&
    el("div", {}, el("p", {}, words.missing), el("ul", {}, ...inputs_missing.map((one) => el("li", {}, el("b", {}, words.named(one.name)), `: ${one.why}`)))),
  ...notes.map((note) => el("p", { class: "soft" }, note)),
  el("p", { class: "soft" }, words.source, " ", source),
];

const folded = (name, says, contents) =>
  el("details", { class: "answer" }, el("summary", {}, name, el("b", {}, says)), ...contents.filter(Boolean));
