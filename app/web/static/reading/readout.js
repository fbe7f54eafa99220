// What lies under the pointer: position in the patient, and the HU that the service reads there.

import { el } from "../dom.js";

const ASK_EVERY_MS = 80;

/** @param {any} words @param {{api: any, job: string}} parts */
export function createReadout(words, { api, job }) {
  const place = el("span", { class: "place" }, words.pointHere);
  const density = el("span", { class: "density" });
  const element = el("p", { class: "readout no-print" }, place, density);
  let timer = 0;
  let asked = null;
  let known = true;

  async function ask(lps) {
    asked?.abort();
    asked = new AbortController();
    const { signal } = asked;
    try {
      const found = await api.jsonOrNull(`v1/jobs/${job}/volume/hu?lps=${lps.map((mm) => mm.toFixed(2)).join(",")}`, { signal });
      known = found !== null;
      if (!signal.aborted) density.textContent = typeof found?.hu === "number" ? words.hu(found.hu) : "";
    } catch {
      if (!signal.aborted) density.textContent = ""; // the next movement asks again
    }
  }

  return {
    element,
    /** @param {number[] | null} lps */
    show: (lps) => {
      clearTimeout(timer);
      place.textContent = lps ? words.point3(lps) : words.pointHere;
      if (!lps) density.textContent = "";
      else if (known) timer = setTimeout(ask, ASK_EVERY_MS, lps);
    },
    close: () => {
      clearTimeout(timer);
      asked?.abort();
    },
  };
}
