// Every study of this installation, the newest first, page by page, looked at again while something is going on.

import { confirmed, el } from "../dom.js";
import { isLive } from "./follow.js";

const LOOK_EVERY_MS = 3000;
const QUIET_MS = 15000;
const PAGE = 20;

/**
 * @param {any} context of the view
 * @param {(jobs: any[]) => void} onJobs what the page of studies shows
 */
export function createStudies({ api, strings, announce }, onJobs) {
  const words = strings.home.studies;
  const rows = el("tbody");
  const empty = el("p", { class: "soft" }, words.none);
  const newer = el("button", { type: "button", onClick: () => turn(-1) }, words.newer);
  const older = el("button", { type: "button", onClick: () => turn(1) }, words.older);
  const head = el("tr", {}, ...words.columns.map((name) => el("th", { scope: "col" }, name)));
  const table = el("div", { class: "table-wrap" }, el("table", { class: "studies" }, el("thead", {}, head), rows));
  const fault = el("p", { class: "fault", role: "alert" });
  const pages = [`v1/jobs?limit=${PAGE}`];
  let page = 0;
  let next = null;
  let timer = 0;
  let closed = false;
  let drawn = "";

  async function look() {
    clearTimeout(timer);
    const list = await api.json(pages[page]);
    if (closed) return;
    next = list.next;
    fault.textContent = "";
    show(list.jobs);
    onJobs(list.jobs);
    timer = setTimeout(again, list.jobs.some(isLive) ? LOOK_EVERY_MS : QUIET_MS);
  }

  const again = () =>
    look().catch((problem) => {
      if (closed) return;
      fault.textContent = problem.message;
      timer = setTimeout(again, QUIET_MS);
    });

  function show(jobs) {
    const now = JSON.stringify(jobs.map((job) => [job.id, job.state, job.progress.stage]));
    newer.disabled = page === 0;
    older.disabled = next === null;
    if (now === drawn) return; // a row that did not change keeps its focus
    drawn = now;
    const focused = document.activeElement?.dataset?.act;
    rows.replaceChildren(...jobs.map((job) => row(words, job, { cancel, erase })));
    if (focused) rows.querySelector(`[data-act="${focused}"]`)?.focus();
    empty.hidden = jobs.length > 0;
    table.hidden = jobs.length === 0;
  }

  async function cancel(job) {
    await act(() => api.send("DELETE", `v1/jobs/${job.id}`), words.cancelled);
  }

  async function erase(job) {
    const name = words.short(job.id);
    if (!(await confirmed(words.eraseTitle, words.eraseText(name), words.eraseYes, words.keep, strings.close))) return;
    await act(() => api.send("DELETE", `v1/jobs/${job.id}/data`), words.erased(name));
  }

  async function act(call, said) {
    try {
      await call();
      announce(said);
    } catch (problem) {
      fault.textContent = problem.message;
    }
    again();
  }

  function turn(step) {
    if (step > 0 && pages.length === page + 1) pages.push(next);
    page += step;
    again();
  }

  again();
  return {
    element: el(
      "section",
      { "aria-label": words.title },
      el("div", { class: "studies-head" }, el("h2", {}, words.title), el("div", { class: "row" }, newer, older)),
      fault,
      empty,
      table,
    ),
    look: again,
    close: () => {
      closed = true;
      clearTimeout(timer);
    },
  };
}

/** One study with what can be done with it. */
function row(words, job, { cancel, erase }) {
  const name = words.short(job.id);
  const control = (key, text) => ({ "data-act": `${key}-${job.id}`, "aria-label": `${text}: ${name}` });
  const open = () => el("a", { class: "button", href: `#/jobs/${job.id}`, ...control("read", words.read) }, words.read);
  const act = (key, text, run, kind) =>
    el("button", { type: "button", class: kind, ...control(key, text), onClick: () => run(job) }, text);
  const acts = [
    job.state === "succeeded" && open(),
    isLive(job) && act("cancel", words.cancel, cancel),
    act("erase", words.erase, erase, "danger"),
  ];
  return el(
    "tr",
    { "data-job": job.id },
    el("td", {}, words.when(job.created_at)),
    el("td", { class: "mono" }, name),
    el(
      "td",
      {},
      el("span", { class: "state", "data-state": job.state }, words.state(job)),
      job.problem && el("span", { class: "why" }, job.problem.detail),
    ),
    el("td", {}, job.model, " ", el("span", { class: "soft" }, job.operating_point)),
    el("td", { class: "act" }, el("span", { class: "row end" }, ...acts)),
  );
}
