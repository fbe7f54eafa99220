// Where a person starts: drop a scan, watch it work, open the answer.

import { el, freshId } from "../dom.js";
import { droppedFiles, meant } from "../home/dropped.js";
import { createOptions } from "../home/options.js";
import { refusal, send } from "../home/sending.js";
import { createStudies } from "../home/studies.js";

export async function mount(root, context) {
  const { api, strings, memory } = context;
  const words = strings.home;
  const [{ models }, capabilities] = await Promise.all([api.json("v1/models"), api.json("v1/capabilities")]);
  const options = createOptions(words.options, models);
  // What was sent goes on while another view is open, and is there again on return.
  const sendings = (memory.sendings ??= []);
  const sent = el("div", { "aria-label": words.sent, role: "group" });
  const studies = createStudies(context, (jobs) => options.offerPriors(jobs.filter((job) => job.state === "succeeded")));

  function take(files) {
    const usable = meant(files);
    const problem = tooMuch(usable, capabilities.request_limits, words);
    if (problem) {
      const card = el("article", { class: "sent refused", role: "alert" }, ...refusal(problem, strings));
      sent.prepend(card);
      return;
    }
    const sending = send(context, {
      files: usable,
      fields: options.fields(),
      eachSeries: options.eachSeries(),
      onChange: () => memory.onSent?.(),
    });
    sendings.push(sending);
    sent.prepend(sending.element);
    sending.element.focus();
  }

  // What a person opens next is fetched meanwhile: the first slice then waits for no module.
  import("./reading.js").catch(() => {});
  memory.onSent = studies.look;
  sendings.forEach((sending) => sent.prepend(sending.element));

  root.append(
    el("h1", {}, words.title),
    el("section", { "aria-label": words.drop.label }, dropZone(words.drop, take), options.element),
    sent,
    studies.element,
  );
  return () => {
    studies.close();
    memory.onSent = null;
    // What has ended is in the list of studies from now on.
    memory.sendings = sendings.filter((sending) => !sending.isOver());
  };
}

function tooMuch(files, limits, words) {
  const bytes = files.reduce((sum, file) => sum + file.size, 0);
  const say = (code, detail) => ({ status: 413, code, message: detail, document: { title: words.refusedHere, detail } });
  if (bytes === 0) return say("empty_upload", words.empty);
  if (files.length > limits.max_files) return say("too_many_files", words.tooMany(files.length, limits.max_files));
  if (bytes > limits.max_request_bytes) return say("too_large", words.tooLarge(bytes, limits.max_request_bytes));
  return null;
}

/** Drop, or choose with the keyboard: a folder, or files. */
function dropZone(words, take) {
  const picker = (properties) => {
    const input = el("input", { type: "file", multiple: true, class: "visually-hidden", tabIndex: -1, "aria-hidden": "true", id: freshId("pick"), ...properties });
    input.addEventListener("change", () => {
      take([...input.files]);
      input.value = "";
    });
    return input;
  };
  const files = picker({});
  const folder = picker({ webkitdirectory: true });
  const zone = el(
    "div",
    { class: "drop" },
    el("p", { class: "lead" }, words.lead),
    el("p", { class: "soft" }, words.formats),
    el(
      "div",
      { class: "row" },
      el("button", { type: "button", class: "primary", onClick: () => folder.click() }, words.folder),
      el("button", { type: "button", onClick: () => files.click() }, words.files),
    ),
    el("p", { class: "soft" }, words.privacy),
    folder,
    files,
  );
  const over = (isOver) => (event) => {
    event.preventDefault();
    zone.classList.toggle("over", isOver);
  };
  zone.addEventListener("dragenter", over(true));
  zone.addEventListener("dragover", over(true));
  zone.addEventListener("dragleave", over(false));
  zone.addEventListener("drop", async (event) => {
    over(false)(event);
    take(await droppedFiles(event.dataTransfer));
  });
  return zone;
}
