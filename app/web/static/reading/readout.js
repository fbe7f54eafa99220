// What lies under the pointer: position in the patient, and the HU that the service reads there.

import { el } from "../dom.js";
import { apply, distanceMm } from "./geometry.js";

const ASK_EVERY_MS = 80;

/** @param {any} words @param {{api: any, job: string, volume: any, store: any}} parts */
export function createReadout(words, { api, job, volume, store }) {
  const place = el("span", { class: "place" }, words.pointHere);
  const density = el("span", { class: "density" });
  const lengths = el("span", { class: "measures", role: "status" });
  const element = el("p", { class: "readout no-print" }, place, density, lengths);
  // What is measured is told in words, too.
  store.listen(({ measures }, change) => {
    if (!change.measures) return;
    const inMm = measures.map(({ plane, from, to }) => [from, to].map((end) => apply(volume.planes[plane].to_lps_mm, end)));
    lengths.textContent = inMm.map(([from, to]) => words.mm(distanceMm(from, to))).join(", ");
  });
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
