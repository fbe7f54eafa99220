// One upload from the first byte to the answer: how much is sent, the place in the line, each stage, or why not.

import { el } from "../dom.js";
import { follow, isLive } from "./follow.js";
import { upload } from "./upload.js";

/**
 * @param {any} context of the view
 * @param {{files: File[], fields: [string, string][], eachSeries: boolean, onChange: () => void}} sent
 * @returns {{element: HTMLElement, isOver: () => boolean}}
 */
export function send({ api, strings, announce }, { files, fields, eachSeries, onChange }) {
  const words = strings.home.sending;
  const title = el("h3", {}, words.title(files.length, megabytes(files)));
  const body = el("div");
  const element = el("article", { class: "sent", tabIndex: -1 }, title, body);
  const stopped = new AbortController();
  let over = false;

  async function run() {
    const bar = el("progress", { max: 1, value: 0, "aria-label": words.uploading });
    const note = el("p", {}, words.uploading);
    const cancel = el("button", { type: "button", onClick: () => stopped.abort() }, words.stop);
    body.replaceChildren(bar, el("div", { class: "row" }, note, el("span", { class: "spread" }), cancel));
    const onProgress = (loaded, total) => {
      bar.value = loaded / total;
      note.textContent = loaded < total ? words.sent(loaded, total) : words.checking;
    };
    const target = api.url(eachSeries ? "v1/batches" : "v1/jobs");
    const accepted = await upload(target, files, fields, { onProgress, signal: stopped.signal }).finally(staying());
    onChange();
    if (eachSeries) showBatch(accepted);
    else showJob(accepted);
  }

  function showJob(accepted) {
    announce(words.accepted);
    let spoken = "";
    let asked = false;
    follow(api, accepted.id, (status) => {
      body.replaceChildren(...progressOf(status, words, api));
      element.classList.toggle("done", status.state === "succeeded");
      element.classList.toggle("refused", Boolean(status.problem));
      const now = isLive(status) ? status.progress.stage : status.state;
      if (now !== spoken) announce(words.spoken(status));
      spoken = now;
      over = !isLive(status);
      if (over) onChange();
      // What a person opens next is opened meanwhile, once the analysis has read it: the first slice does not wait for it.
      const isRead = status.state === "succeeded" || (status.state === "running" && status.progress.stage !== "read");
      if (isRead && !asked) api.jsonOrNull(`v1/jobs/${accepted.id}/volume`).catch(() => {});
      asked ||= isRead;
    });
  }

  function showBatch(batch) {
    over = true;
    element.classList.add("done");
    announce(words.batch(batch.jobs.length, batch.rejected.length));
    body.replaceChildren(
      el("p", {}, words.batch(batch.jobs.length, batch.rejected.length)),
      el("ul", {}, ...batch.rejected.flatMap(({ reasons }) => reasons.map((reason) => el("li", {}, reason.message)))),
    );
  }

  async function attempt() {
    try {
      await run();
    } catch (problem) {
      if (problem.status === 401) {
        const signedIn = await api.json("v1/jobs?limit=1").then(() => true, () => false); // asks for the key
        if (signedIn) return attempt();
      }
      over = true;
      element.classList.add("refused");
      const parts = refusal(problem, strings);
      body.replaceChildren(...parts);
      announce(`${parts[0].textContent} ${parts[1].textContent}`);
    }
  }
  attempt();

  return { element, isOver: () => over };
}

/** While something is sent, the browser asks before the page is closed. Gives what ends that. */
function staying() {
  const ask = (event) => event.preventDefault();
  window.addEventListener("beforeunload", ask);
  return () => window.removeEventListener("beforeunload", ask);
}

const megabytes = (files) => files.reduce((sum, file) => sum + file.size, 0) / 1e6;

/** What was refused and what to do, as the service says it. */
export function refusal(problem, strings) {
  const words = strings.problem;
  const told = problem.document ?? {};
  const advice = words.byCode[problem.code] ?? told.detail ?? problem.message ?? "";
  const title = problem.code === "stopped" ? words.stopped : problem.status === 0 ? words.noAnswer : told.title ?? words.title;
  const faults = (told.errors ?? []).map((fault) => el("li", {}, `${fault.field}: ${fault.message}`));
  return [
    el("p", { class: "fault" }, title),
    el("p", {}, advice),
    faults.length > 0 && el("ul", {}, ...faults),
    problem.code && el("p", { class: "soft" }, words.code(problem.code)),
  ].filter(Boolean);
}

/** Stage by stage; the same for every job that is shown. */
export function progressOf(status, words, api) {
  if (status.problem) {
    return [
      el("p", { class: "fault" }, status.problem.title),
      el("p", {}, status.problem.detail),
      el("p", { class: "soft" }, words.code(status.problem.code)),
    ];
  }
  if (status.state === "succeeded") {
    return [
      el("p", {}, words.done(status)),
      el("a", { class: "button primary", href: `#/jobs/${status.id}` }, words.read),
    ];
  }
  if (status.state === "cancelled") return [el("p", {}, words.cancelled)];
  const stages = status.progress.stages.map((stage) =>
    el(
      "li",
      {},
      words.stages[stage.name] ?? stage.name,
      el("progress", { max: 1, value: stage.fraction, "aria-label": words.stages[stage.name] ?? stage.name }),
      stage.seconds === null ? "" : words.seconds(stage.seconds),
    ),
  );
  const cancel = el("button", { type: "button", onClick: () => api.send("DELETE", `v1/jobs/${status.id}`).catch(() => {}) }, words.cancel);
  return [
    el("p", {}, words.place(status)),
    el("ol", { class: "stages" }, ...stages),
    el("div", { class: "row end" }, cancel),
  ];
}
