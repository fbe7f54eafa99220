// Everything known of one finding, and what the reader decides about it.

import { el, field } from "../dom.js";
import { judgement } from "./judgement.js";

/**
 * @param {any} words
 * @param {{api: any, job: string, result: any, review: any, decide: (decision: string) => void, strings: any,
 *   onNote: (note: string) => void, onChange: (number: number, change: any) => void, onRemove: (number: number) => void}} parts
 */
export function createDetails(words, { api, job, result, review, decide, onNote, onChange, onRemove }) {
  const element = el("section", { class: "details", "aria-label": words.title });
  let pictures = new Map();
  let drawn = "";

  function show(finding) {
    const now = JSON.stringify([finding?.id, finding?.kind, finding?.diameter_mm, finding?.addedAt]);
    if (now === drawn) return;
    drawn = now;
    element.replaceChildren(...(finding ? contents(finding) : [el("p", { class: "soft" }, words.none)]));
  }

  function contents(finding) {
    const heading = el("h2", {}, words.name(finding), el("span", { class: "soft" }, ` ${words.where(finding)}`));
    if (finding.kind === "added") return [heading, facts(words.addedFacts(finding)), ...correction(finding)];
    if (!finding.nodule) return [heading, el("p", { class: "hint" }, words.candidate), facts(words.candidateFacts(finding))];
    return [
      heading,
      decisions(finding),
      facts(words.facts(finding.nodule)),
      malignancy(finding.nodule),
      ...judgement(words.judgement, result.assessment, finding.id),
      explanation(finding.id),
    ];
  }

  const facts = (rows) =>
    el(
      "table",
      { class: "facts" },
      el("tbody", {}, ...rows.filter(Boolean).map(([name, value, note]) =>
        el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, value, note && el("span", { class: "soft" }, ` ${note}`))))),
    );

  function decisions(finding) {
    const button = (decision, text, key) =>
      el(
        "button",
        { type: "button", class: `decide ${decision}`, "aria-pressed": String(finding.kind === decision), "aria-keyshortcuts": key, onClick: () => decide(decision) },
        text,
        el("span", { class: "key", "aria-hidden": "true" }, key),
      );
    const note = el("input", { type: "text", maxLength: 500, value: review.decision(finding.id)?.note ?? "" });
    note.addEventListener("change", () => onNote(note.value));
    return el(
      "div",
      { class: "decisions no-print" },
      el("div", { class: "row" }, button("accepted", words.accept, "A"), button("rejected", words.reject, "R")),
      field(words.note, note),
    );
  }

  /** What a reader says of a mark of their own. */
  function correction(finding) {
    const diameter = el("input", { type: "number", min: 1, max: 200, step: 0.5, value: finding.diameter_mm });
    const note = el("input", { type: "text", maxLength: 500, value: finding.note });
    const change = () => diameter.reportValidity() && onChange(finding.addedAt, { diameter_mm: Number(diameter.value), note: note.value });
    diameter.addEventListener("change", change);
    note.addEventListener("change", change);
    const remove = el("button", { type: "button", class: "danger", onClick: () => onRemove(finding.addedAt) }, words.remove);
    return [el("div", { class: "decisions no-print" }, field(words.diameter, diameter), field(words.note, note), remove)];
  }

  function malignancy(nodule) {
    const label = words.labels[nodule.label] ?? ""; // null: the model does not judge
    return el(
      "div",
      { class: "malignancy" },
      el("h3", {}, words.malignancy),
      el("p", { class: "figure" }, words.likelihood(nodule.malignancy_probability), el("span", { class: "soft" }, ` ${label}`)),
      el("p", { class: "hint" }, result.malignancy_meaning),
    );
  }

  /** Occlusion takes seconds of the device's time: only when asked for, kept while the page is open. */
  function explanation(id) {
    const place = el("div", { class: "explanation" });
    const button = el("button", { type: "button", class: "no-print" }, words.explain);
    const draw = (url) =>
      place.replaceChildren(el("figure", {}, el("img", { src: url, alt: words.explanationAlt }), el("figcaption", { class: "hint" }, words.explanationMeans)));
    button.addEventListener("click", async () => {
      button.disabled = true;
      button.textContent = words.explaining;
      try {
        const answer = await api.request("GET", `v1/jobs/${job}/nodules/${id}/explanation.png`);
        pictures.set(id, URL.createObjectURL(await answer.blob()));
        draw(pictures.get(id));
      } catch (problem) {
        place.replaceChildren(el("p", { class: "fault", role: "alert" }, problem.message), button);
        button.disabled = false;
        button.textContent = words.explain;
      }
    });
    if (pictures.has(id)) draw(pictures.get(id));
    else place.append(button);
    return place;
  }

  return {
    element,
    show,
    close: () => {
      for (const url of pictures.values()) URL.revokeObjectURL(url);
      pictures = new Map();
    },
  };
}
