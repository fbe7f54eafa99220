// What a model is: its card, its curve, its operating points, and the reports that its training wrote.

import { lineChart } from "../charts/lines.js";
import { el } from "../dom.js";
import { filledIn, sheet, table } from "../sheet.js";
import { rendered } from "../markdown.js";

export async function mount(root, { api, strings, params }) {
  const words = strings.modelPage;
  const ground = await sheet(root, filledIn(words.title, params), "charts.css", "model.css");
  const wait = el("p", { role: "status" }, words.loading);
  ground.append(wait);
  const path = `v1/models/${encodeURIComponent(params.name)}/${encodeURIComponent(params.version)}`;
  let model;
  try {
    model = await api.json(path);
  } catch (problem) {
    wait.replaceWith(el("p", { role: "alert" }, problem.message));
    return () => {};
  }
  const [card, froc, reports] = await Promise.all([
    api.request("GET", `${path}/card`).then((response) => response.text()).catch(() => null),
    api.json(`${path}/froc`).catch(() => null),
    api.json(`${path}/reports`).then((found) => found.reports).catch(() => []),
  ]);
  wait.replaceWith(
    el("p", { class: "model-use" }, model.intended_use),
    el("p", { class: "sheet-soft" }, `${words.states[model.state]} ${filledIn(words.sha, { sha: model.sha256 })}`),
    el("section", {}, el("h2", {}, words.operatingPoints), pointsTable(model, words)),
    el("section", {}, el("h2", {}, words.froc), froc?.points?.length ? curve(froc, words) : el("p", {}, words.noFroc)),
    el("section", {}, el("h2", {}, words.reports), reports.length ? reportList(reports, api, path, words) : el("p", {}, words.noReports)),
    el("section", { class: "model-card" }, el("h2", {}, words.card), card === null ? el("p", {}, words.noCard) : rendered(card, { firstHeading: 3 })),
  );
  return () => {};
}

function pointsTable({ manifest }, words) {
  const rows = Object.entries(manifest.operating_points).map(([name, point]) => [
    name === manifest.default_operating_point ? filledIn(words.isDefault, { name }) : name,
    share(point.threshold, 4),
    share(point.sensitivity, 3),
    share(point.false_positives_per_scan, 2),
    point.measured_on ?? "–",
  ]);
  const whole = table(words.pointsCaption, words.pointsHeadings, rows);
  return el("div", { class: "sheet-wide", tabIndex: 0, role: "region", "aria-label": words.pointsCaption }, whole);
}

const share = (value, digits) => (value === null || value === undefined ? "–" : value.toFixed(digits));

function curve(froc, words) {
  const points = froc.points.map(({ fp_per_scan: x, sensitivity: y, ci95 }) => (ci95 ? { x, y, low: ci95[0], high: ci95[1] } : { x, y }));
  return lineChart({
    title: words.frocTitle,
    series: [{ name: words.sensitivity, points }],
    xLabel: words.falseMarks,
    yLabel: words.sensitivity,
    xTicks: points.map(({ x }) => x),
    yRange: [0, 1],
    logarithmic: true,
    intervalLabel: words.interval,
    tableLabel: words.asTable,
    note: filledIn(words.frocNote, { cpm: share(froc.cpm, 3), data: froc.data ?? "–", n: froc.n ?? "–" }),
  });
}

/** Pictures are shown, everything else is linked. */
function reportList(reports, api, path, words) {
  const items = reports.map(({ name, title, media_type: kind, size }) => {
    const href = api.url(`${path}/reports/${encodeURIComponent(name)}`);
    const link = el("a", { href, target: "_blank", rel: "noopener" }, filledIn(words.report, { title, kind, size: Math.max(1, Math.round(size / 1024)) }));
    return el("li", {}, link, kind.startsWith("image/") ? el("img", { src: href, alt: title, loading: "lazy" }) : null);
  });
  return el("ul", { class: "model-reports" }, items);
}
