// The answer in every form, and the findings as text.

import { dialog, el } from "../dom.js";

/** Fetched first, so that a refusal is told in words and not saved as a file. */
export async function download(api, path, fallbackName) {
  const response = await api.request("GET", path);
  const name = response.headers.get("Content-Disposition")?.match(/filename="([^"]+)"/)?.[1] ?? fallbackName;
  const url = URL.createObjectURL(await response.blob());
  const link = el("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/**
 * @param {any} words
 * @param {{api: any, status: any, review: any, onProblem: (problem: any) => void, announce: (text: string) => void}} parts
 */
export function createDownloads(words, { api, status, review, onProblem, announce }) {
  const forms = Object.entries(status.links.results ?? {});
  const take = (path, name, text) => async (event) => {
    const button = event.currentTarget;
    button.disabled = true;
    try {
      await download(api, path, name);
      announce(words.taken(text));
    } catch (problem) {
      onProblem(problem);
    } finally {
      button.disabled = false;
    }
  };
  const button = (form, path, text) =>
    el("button", { type: "button", "data-form": form, onClick: take(path, `${status.id}-${form}`, text) }, text);
  const corrected = button("corrected-sr", `v1/jobs/${status.id}/review/sr`, words.corrected);
  const element = el(
    "details",
    { class: "downloads no-print" },
    el("summary", {}, words.title),
    el("div", { class: "row" }, ...forms.map(([form, path]) => button(form, path, words.forms[form] ?? form)), corrected),
    el("p", { class: "hint" }, words.correctedHint),
  );
  return {
    element,
    show: () => {
      corrected.disabled = !review.exists();
    },
  };
}

/** The text in a box, selected, and a button that copies it. */
export function showText(strings, text) {
  const words = strings.reading.text;
  const area = el("textarea", { class: "findings-text", rows: 18, readOnly: true, value: text, "aria-label": words.title });
  const said = el("p", { class: "soft", role: "status" });
  const copy = async () => {
    area.select();
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      document.execCommand("copy"); // over plain HTTP there is no clipboard
    }
    said.textContent = words.copied;
  };
  dialog(words.title, strings.close, area, el("div", { class: "row" }, el("button", { type: "button", class: "primary", onClick: copy }, words.copy), said));
  area.select();
}
