// How the service does: jobs by day, seconds by stage, refusals, models, findings, workers and disk; numbers only.

import { barChart } from "../charts/bars.js";
import { figure } from "../charts/frame.js";
import { rowChart } from "../charts/rows.js";
import { el } from "../dom.js";
import { filledIn, sheet } from "../sheet.js";

const EVERY_MS = 15_000;
const SPANS = [7, 30, 90];
const GIB = 2 ** 30;
const MOST_NODULES = 20; // the service counts this many and more together

export async function mount(root, { api, strings, announce }) {
  const words = strings.dashboard;
  const ground = await sheet(root, words.title, "charts.css", "dashboard.css");
  const state = { days: 30, shown: "", refused: false };
  const span = el("select", { id: "dashboard-days", onChange: () => refresh(Object.assign(state, { days: Number(span.value) }) && true) }, SPANS.map((days) => el("option", { value: days, selected: days === state.days }, filledIn(words.days, { days }))));
  const status = el("p", { role: "status", class: "sheet-soft" }, words.loading);
  const content = el("div", {});
  ground.append(el("div", { class: "sheet-links" }, el("label", { for: "dashboard-days" }, words.span), span), status, content);

  async function refresh(asked) {
    const { days } = state;
    try {
      const told = await api.json(`v1/dashboard?days=${days}`);
      if (days !== state.days) return;
      show(content, told, words, state);
      status.textContent = filledIn(words.updated, { time: new Date().toLocaleTimeString("en-GB") });
      if (asked) announce(filledIn(words.days, { days }));
    } catch (problem) {
      if (problem.status === 403) return refuse();
      status.textContent = filledIn(words.failed, { why: problem.message });
    }
  }

  /** Not for this key: that does not change by asking again. */
  function refuse() {
    state.refused = true;
    status.textContent = words.forbidden;
    span.disabled = true;
    content.replaceChildren();
  }

  const whenSeen = () => document.visibilityState === "visible" && !state.refused && refresh();
  const timer = setInterval(whenSeen, EVERY_MS);
  document.addEventListener("visibilitychange", whenSeen);
  await refresh();
  return () => {
    clearInterval(timer);
    document.removeEventListener("visibilitychange", whenSeen);
  };
}

/** Only what changed is drawn anew, and a table that was open stays open. */
function show(content, told, words, state) {
  const text = JSON.stringify(told);
  if (text === state.shown) return;
  state.shown = text;
  const titleOf = (details) => details.closest("figure").querySelector("figcaption").textContent;
  const open = new Set([...content.querySelectorAll("details[open]")].map(titleOf));
  content.replaceChildren(
    el("h2", {}, words.now),
    facts(told, words),
    el("div", { class: "chart-row" }, throughput(told.jobs, words), stages(told.stages_s, words), refusals(told.refusals, words), models(told.models, words), findings(told.findings, words)),
  );
  for (const details of content.querySelectorAll("details")) details.open = open.has(titleOf(details));
}

function facts({ jobs, workers, queue, disk, findings: found }, words) {
  const rows = [
    ...listed("state", jobs.by_state, words),
    ...(jobs.per_hour_now === undefined ? [] : [[words.facts.per_hour_now, figure(jobs.per_hour_now)]]),
    [words.facts.scans, figure(found.scans)],
    ...listed("workers", workers, words),
    ...listed("queue", queue, words),
    ...listed("disk", disk, words),
  ];
  return el("dl", { class: "dashboard-facts" }, rows.map(([label, value]) => el("div", {}, el("dt", {}, label), el("dd", {}, value))));
}

/** [label, figure] for each number of a group; lists of numbers are left to the charts. */
function listed(group, given, words) {
  const entries = given !== null && typeof given === "object" ? Object.entries(given) : [["", given]];
  return entries
    .filter(([, value]) => ["number", "string", "boolean"].includes(typeof value) || value === null)
    .map(([name, value]) => [filledIn(words.groups[group], { name: words.facts[name] ?? name.replaceAll("_", " ") }), measured(name, value, words)]);
}

function measured(name, value, words) {
  if (typeof value === "boolean") return value ? words.yes : words.no;
  if (typeof value === "string") return value;
  return name.endsWith("_bytes") && value !== null ? filledIn(words.gib, { value: (value / GIB).toFixed(1) }) : figure(value);
}

function throughput({ per_day: days }, words) {
  const states = [...new Set(days.flatMap((day) => Object.keys(day).filter((name) => name !== "day")))];
  const used = states.filter((name) => days.some((day) => day[name] > 0));
  return barChart({
    ...words.throughput,
    labels: days.map(({ day }) => day.slice(5)),
    series: (used.length ? used : states).map((name) => ({ name: words.facts[name] ?? name, values: days.map((day) => day[name] ?? 0) })),
    tableLabel: words.asTable,
    whole: true,
  });
}

function stages(given, words) {
  const names = Object.keys(given);
  const total = names.map((name) => given[name].n);
  return barChart({
    ...words.stages,
    labels: names.map((name) => words.stage[name] ?? name),
    series: [
      { name: words.median, values: names.map((name) => given[name].median) },
      { name: words.p90, values: names.map((name) => given[name].p90) },
    ],
    grouped: true,
    tableLabel: words.asTable,
    note: names.length ? filledIn(words.stagesNote, { n: Math.max(...total) }) : words.nothing,
  });
}

function refusals(given, words) {
  const codes = Object.keys(given).sort((a, b) => given[b] - given[a]);
  return named(words.refusals, codes, codes.map((code) => given[code]), words);
}

function models(given, words) {
  return named(words.models, given.map((one) => one.model ?? `${one.name}:${one.version}`), given.map(({ n }) => n), words);
}

function findings(found, words) {
  return [
    counted(words.perScan, found.nodules_per_scan.map((_, k) => (k < MOST_NODULES ? String(k) : filledIn(words.orMore, { count: k }))), found.nodules_per_scan, words),
    ...["diameter_mm", "probability", "malignancy"].map((name) => {
      const { edges, counts } = found[`${name}_histogram`];
      return counted(words[name], counts.map((_, k) => `${figure(edges[k])}–${figure(edges[k + 1])}`), counts, words);
    }),
  ];
}

const remark = (values, words) => (values.length ? undefined : words.nothing);

const counted = (given, labels, values, words) =>
  barChart({ ...given, labels, series: [{ name: given.yLabel, values }], tableLabel: words.asTable, note: remark(values, words), whole: true });

const named = (given, labels, values, words) => rowChart({ ...given, labels, values, tableLabel: words.asTable, note: remark(values, words) });
