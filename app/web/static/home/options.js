// How a scan is to be analysed; folded away, since the defaults are right for most.

import { check, el, field, select } from "../dom.js";

/**
 * @returns {{element: HTMLElement, fields: () => [string, string][], eachSeries: () => boolean, offerPriors: (jobs: any[]) => void}}
 */
export function createOptions(words, models) {
  const byName = new Map(models.map((model) => [`${model.name}:${model.version}`, model]));
  const model = select([...byName.keys()].map((name) => [name, name]));
  const point = select([]);
  const prior = select([["", words.noPrior]]);
  const series = check(words.eachSeries);
  const context = createContext(words.context);

  const offerPoints = () => {
    const chosen = byName.get(model.value);
    const names = chosen?.operating_points ?? [];
    point.replaceChildren(...names.map((name) => el("option", { value: name }, words.points[name] ?? name)));
    point.value = chosen?.default_operating_point ?? "";
  };
  model.addEventListener("change", offerPoints);
  offerPoints();
  const single = [field(words.prior, prior, words.priorHint), context.element];
  series.box.addEventListener("change", () => single.forEach((part) => part.toggleAttribute("hidden", series.box.checked)));

  return {
    element: el(
      "details",
      { class: "options" },
      el("summary", {}, words.title),
      el("div", { class: "options-grid" }, field(words.model, model), field(words.point, point, words.pointHint), ...single, series.whole),
    ),
    eachSeries: () => series.box.checked,
    offerPriors: (jobs) => {
      const kept = prior.value;
      prior.replaceChildren(
        el("option", { value: "" }, words.noPrior),
        ...jobs.map((job) => el("option", { value: job.id }, words.priorName(job))),
      );
      prior.value = jobs.some((job) => job.id === kept) ? kept : "";
    },
    fields: () => {
      const told = [["model", model.value], ["operating_point", point.value]];
      if (!series.box.checked) told.push(["prior", prior.value], ["context", context.json()]);
      return told.filter(([, value]) => value);
    },
  };
}

/** What is known of patient and exam: nothing is sent that was not told. */
function createContext(words) {
  const age = el("input", { type: "number", min: 0, max: 120, step: 1 });
  const choices = {
    sex: words.sexes,
    setting: words.settings,
    screening_exam: words.exams,
    risk_group: words.risks,
  };
  const lists = Object.fromEntries(
    Object.entries(choices).map(([name, known]) => [name, select([["", words.untold], ...Object.entries(known)])]),
  );
  const questions = ["family_history_lung_cancer", "emphysema", "known_cancer", "immunosuppressed"];
  const answers = Object.fromEntries(
    questions.map((name) => [name, select([["", words.untold], ["true", words.yes], ["false", words.no]])]),
  );
  const headers = check(words.fromHeaders);
  const json = () => {
    const told = {};
    if (age.value !== "") told.age_years = Number(age.value);
    for (const [name, list] of Object.entries(lists)) if (list.value) told[name] = list.value;
    for (const [name, list] of Object.entries(answers)) if (list.value) told[name] = list.value === "true";
    if (headers.box.checked) told.from_headers = true;
    return Object.keys(told).length ? JSON.stringify(told) : "";
  };
  const labelled = Object.entries({ ...lists, ...answers }).map(([name, list]) => field(words.names[name], list));
  const element = el(
    "fieldset",
    {},
    el("legend", {}, words.title),
    field(words.names.age_years, age),
    ...labelled,
    headers.whole,
  );
  return { element, json };
}
