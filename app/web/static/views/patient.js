// The answer for the person who was scanned: plain words, a picture, no probabilities and no codes. It neither promises
// nor frightens, and sends them to their doctor.

import { el } from "../dom.js";
import { filledIn, sheet, swatch } from "../sheet.js";
import { readGlb } from "../scene/glb.js";
import { mark, noduleColor } from "../scene/parts.js";
import { createViewer } from "../scene/viewer.js";
import { likeness, whereabouts } from "../scene/words.js";

export async function mount(root, { api, strings, params }) {
  const words = strings.patientPage;
  const ground = await sheet(root, words.title, "scene.css", "patient.css");
  ground.classList.add("patient");
  const wait = el("p", { role: "status" }, words.loading);
  ground.append(wait);
  let result;
  try {
    result = await api.json(`v1/jobs/${params.job}/result`);
  } catch (problem) {
    wait.replaceWith(el("p", { role: "alert" }, problem.message));
    return () => {};
  }
  const review = await api.json(`v1/jobs/${params.job}/review`).catch(() => null);
  const told = marksOf(result, review);
  const stage = el("div", { class: "scene-stage" });
  wait.replaceWith(
    el("nav", { class: "sheet-links patient-links", "aria-label": strings.scene.links },
      el("a", { href: `#/jobs/${params.job}` }, words.back),
      el("button", { type: "button", onClick: () => window.print() }, words.print)),
    el("p", { class: "patient-notice" }, review?.finished ? words.noticeChecked : words.notice),
    section(words.looked.title, words.looked.text.map((text) => el("p", {}, filledIn(text, { slices: result.series.shape_zyx[0] })))),
    section(words.found.title, found(told, strings)),
    el("section", { class: "patient-picture", hidden: true }, el("h2", {}, told.length ? words.picture.title : words.picture.titleNone), el("p", {}, told.length ? `${words.picture.text} ${words.picture.letters}` : words.picture.text), stage),
    section(words.means.title, el("ul", {}, (told.length ? words.means.some : words.means.none).map((text) => el("li", {}, text)))),
    section(words.ask.title, words.ask.text.map((text) => el("p", {}, text)), el("p", {}, words.ask.lead), el("ul", {}, words.ask.questions.map((text) => el("li", {}, text)))),
    el("p", { class: "patient-notice" }, words.end),
  );
  return picture(stage, api, params.job, told, result, strings);
}

const section = (title, ...content) => el("section", {}, el("h2", {}, title), ...content);

/** What is told: the program's marks, or what is left and added once a person has finished checking them. */
function marksOf(result, review) {
  if (!review?.finished) return result.nodules;
  const rejected = new Set(review.decisions.filter(({ decision }) => decision === "rejected").map(({ nodule_id: id }) => id));
  const added = review.added.map(({ diameter_mm }, number) => ({ id: `added-${number + 1}`, diameter_mm, isAdded: true }));
  return [...result.nodules.filter(({ id }) => !rejected.has(id)), ...added];
}

function found(told, strings) {
  const words = strings.patientPage.found;
  if (!told.length) return words.nothing.map((text) => el("p", {}, text));
  const items = told.map((nodule, number) => {
    const size = { mm: Math.max(1, Math.round(nodule.diameter_mm)), thing: likeness(nodule.diameter_mm, words.likenesses) };
    const where = nodule.isAdded ? words.added : whereabouts(nodule, strings.places);
    return el("li", {}, swatch(mark(number), noduleColor(number)), el("span", {}, `${where}. ${filledIn(words.size, size)}`));
  });
  const count = told.length === 1 ? words.one : filledIn(words.several, { count: told.length });
  return [el("p", {}, count), el("ol", { class: "patient-marks" }, items)];
}

/** The scene, where there is one; on paper a still picture of it stands in its place. */
async function picture(stage, api, job, told, result, strings) {
  let parts;
  try {
    parts = readGlb((await api.bytes(`v1/jobs/${job}/scene.glb`)).buffer);
  } catch {
    return () => {};
  }
  const kept = new Set(told.map(({ id }) => id));
  const gone = result.nodules.filter(({ id }) => !kept.has(id)).flatMap(({ id }) => [id, `nodule-${id}`]);
  stage.parentElement.hidden = false;
  const shown = parts.filter(({ name }) => !gone.includes(name));
  const viewer = createViewer(stage, shown, told, { words: { canvas: strings.patientPage.picture.canvas } });
  if (!viewer) {
    stage.parentElement.hidden = true;
    return () => {};
  }
  const still = el("img", { class: "patient-still", alt: strings.patientPage.picture.still });
  stage.after(still);
  const onPaper = () => (still.src = viewer.picture());
  window.addEventListener("beforeprint", onPaper);
  return () => {
    window.removeEventListener("beforeprint", onPaper);
    viewer.free();
  };
}
