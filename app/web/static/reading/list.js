// The list of findings with its threshold: choose one, and the planes go there.

import { el, field, select } from "../dom.js";
import { measuredAt } from "./findings.js";

/**
 * @param {any} words
 * @param {{api: any, job: string, result: any, onChoose: (id: string) => void,
 *   onThreshold: (threshold: number) => void, onSort: (by: string) => void}} parts
 */
export function createList(words, { api, job, result, onChoose, onThreshold, onSort }) {
  const inForce = result.operating_point.threshold;
  const slider = el("input", { type: "range", min: inForce, max: 1, step: "any", value: inForce });
  const meaning = el("p", { class: "hint", id: "threshold-meaning" });
  slider.setAttribute("aria-describedby", meaning.id);
  const sort = select(Object.entries(words.sorts), "probability", { "aria-label": words.sort });
  const items = el("ol", { class: "findings" });
  const count = el("p", { class: "soft", role: "status" });
  const chosen = el("output", { class: "value" });
  const reset = el("button", { type: "button", class: "quiet", onClick: () => setThreshold(inForce) }, words.reset);
  sort.addEventListener("change", () => onSort(sort.value));
  slider.addEventListener("input", () => setThreshold(Number(slider.value)));

  function setThreshold(threshold) {
    slider.value = threshold;
    explain(threshold);
    onThreshold(threshold);
  }

  function explain(threshold) {
    chosen.textContent = words.percent(threshold);
    slider.setAttribute("aria-valuetext", words.percent(threshold));
    reset.hidden = Math.abs(threshold - inForce) < 1e-6;
    const point = measuredAt((candidates?.curve ?? []).filter((one) => one.sensitivity !== null), threshold);
    const said = point ? words.measured(point, candidates.measured_on) : words.unmeasured;
    meaning.textContent = candidates ? said : ""; // not before it is known
  }

  function item(finding, isSelected) {
    const picture = finding.nodule
      ? el("img", { class: "thumb", alt: "", width: 56, height: 56, loading: "lazy", src: api.url(`v1/jobs/${job}/nodules/${finding.id}/thumbnail.png?plane=axial&size=112`) })
      : el("span", { class: "thumb", "aria-hidden": "true" }, finding.short);
    picture.addEventListener("error", () => picture.classList.add("absent"));
    return el(
      "li",
      {},
      el(
        "button",
        { type: "button", class: "finding", "data-finding": finding.id, "data-kind": finding.kind, "aria-current": isSelected ? "true" : undefined, onClick: () => onChoose(finding.id) },
        picture,
        el(
          "span",
          { class: "lines" },
          el("span", { class: "line strong" }, words.name(finding), el("span", { class: "decision" }, words.decisions[finding.kind] ?? ""), el("span", { class: "spread" }), words.mm(finding.diameter_mm)),
          el("span", { class: "line soft" }, words.what(finding)),
          el("span", { class: "line soft" }, words.certainty(finding)),
        ),
      ),
    );
  }

  let drawn = "";
  let candidates = null;
  explain(inForce);
  return {
    /** What the service knows of candidates and of the curve: the slider reaches down to the lowest it kept. */
    know: (found) => {
      candidates = found;
      slider.min = Math.min(inForce, found.lowest ?? inForce);
      explain(Number(slider.value));
    },
    element: el(
      "section",
      { class: "list", "aria-label": words.title },
      el("div", { class: "row list-head" }, el("h2", {}, words.title), count, el("span", { class: "spread" }), sort),
      el("div", { class: "threshold no-print" }, field(words.threshold, slider), el("div", { class: "row" }, chosen, reset)),
      meaning,
      items,
    ),
    /** @param {any[]} findings in the order to show */
    show: (findings, selected) => {
      const now = JSON.stringify([findings.map(({ id, kind, diameter_mm }) => [id, kind, diameter_mm]), selected]);
      if (now === drawn) return;
      drawn = now;
      const focused = items.contains(document.activeElement);
      count.textContent = words.count(findings.length);
      items.replaceChildren(...findings.map((finding) => item(finding, finding.id === selected)));
      const current = items.querySelector("[aria-current]");
      if (focused) (current ?? items.querySelector("button"))?.focus({ preventScroll: true });
      current?.scrollIntoView({ block: "nearest" });
    },
  };
}
