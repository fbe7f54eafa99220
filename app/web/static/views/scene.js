// Lungs, airways and nodules to turn, cut and fade; beside them the nodules in words.

import { readGlb, GlbError } from "../scene/glb.js";
import { arOffers, startAr } from "../scene/ar.js";
import { el } from "../dom.js";
import { filledIn, sheet, swatch } from "../sheet.js";
import { direction, whereabouts } from "../scene/words.js";
import { createViewer } from "../scene/viewer.js";
import { mark, noduleColor } from "../scene/parts.js";

export async function mount(root, { api, strings, params, announce, keys }) {
  const words = strings.scene;
  keys?.([words.keyList]);
  const ground = await sheet(root, words.title, "scene.css");
  const wait = el("p", { role: "status" }, words.loading);
  ground.append(wait);
  let result, parts, fault;
  try {
    result = await api.json(`v1/jobs/${params.job}/result`);
  } catch (problem) {
    wait.replaceWith(el("p", { role: "alert" }, problem.message));
    return () => {};
  }
  try {
    parts = readGlb((await api.bytes(`v1/jobs/${params.job}/scene.glb`)).buffer);
  } catch (problem) {
    fault = problem instanceof GlbError ? filledIn(words.unreadable, { why: problem.message }) : problem.message;
  }
  const stage = el("div", { class: "scene-stage" });
  const panel = el("div", { class: "scene-panel" });
  wait.replaceWith(
    el("nav", { class: "sheet-links", "aria-label": words.links }, ...linksTo(params.job, words, result)),
    el("div", { class: "scene-view" }, stage, panel),
  );
  const chosen = new URLSearchParams(location.hash.split("?")[1] ?? "").get("nodule");
  const buttons = new Map();
  const choose = (id) => {
    for (const [nodule, button] of buttons) button.setAttribute("aria-pressed", String(nodule === id));
    viewer?.select(id);
    const nodule = result.nodules.find((one) => one.id === id);
    announce(nodule ? filledIn(words.chosen, { id, where: whereabouts(nodule, strings.places) }) : words.noneChosen);
  };
  const viewer = parts ? createViewer(stage, parts, result.nodules, { words, onPick: choose }) : null;
  const lungs = lungsOf(parts);
  panel.append(noduleList(result, lungs, { job: params.job, words, places: strings.places, buttons, choose }));
  if (viewer) {
    stage.append(el("p", { class: "scene-hint" }, words.keys));
    panel.append(controls(viewer, words));
    offerAr({ api, job: params.job, viewer, panel, stage, words });
    if (chosen) choose(chosen);
  } else stage.append(el("p", { class: "scene-fault", role: "alert" }, fault ?? words.noWebgl));
  return () => viewer?.free();
}

const linksTo = (job, words, result) =>
  [["", words.reading], ["/patient", words.patient], ...(result.comparison ? [["/prior", words.prior]] : [])].map(
    ([end, text]) => el("a", { href: `#/jobs/${job}${end}` }, text),
  );

/** The lungs' box in LPS mm, from the scene's metres; null without them. */
function lungsOf(parts) {
  const lungs = (parts ?? []).filter((part) => part.name.startsWith("lung"));
  if (!lungs.length) return null;
  const low = [0, 1, 2].map((k) => 1000 * Math.min(...lungs.map((part) => part.min[k])));
  const high = [0, 1, 2].map((k) => 1000 * Math.max(...lungs.map((part) => part.max[k])));
  return { min: [-high[0], low[2], low[1]], max: [-low[0], high[2], high[1]] };
}

function noduleList(result, lungs, { job, words, places, buttons, choose }) {
  const items = result.nodules.map((nodule, number) => {
    const button = el(
      "button",
      { type: "button", "aria-pressed": "false", onClick: () => choose(nodule.id) },
      swatch(mark(number), noduleColor(number)),
      filledIn(words.nodule, { mark: mark(number), id: nodule.id, diameter: nodule.diameter_mm.toFixed(1) }),
    );
    buttons.set(nodule.id, button);
    const away = direction(nodule.center_lps_mm, lungs, places);
    const where = filledIn(away ? words.where : words.whereOnly, { where: whereabouts(nodule, places), direction: away });
    return el("li", {}, button, el("p", {}, where), el("a", { href: `#/jobs/${job}?nodule=${nodule.id}` }, filledIn(words.read, { id: nodule.id })));
  });
  const count = filledIn(items.length === 1 ? words.countOne : words.count, { count: items.length });
  return el(
    "section",
    { "aria-labelledby": "scene-nodules" },
    el("h2", { id: "scene-nodules" }, words.nodules),
    el("p", {}, items.length ? count : words.none),
    result.nodules.some(({ volume_mm3: volume }) => volume === null) && el("p", {}, words.noOutlines),
    el("ol", { class: "scene-nodules" }, items),
  );
}

function controls(viewer, words) {
  const cutSide = el("select", { id: "scene-cut-side", onChange: () => cut() }, ["front", "left", "head"].map((side) => el("option", { value: side }, words.cutFrom[side])));
  const cutShare = slider("scene-cut", 0, () => cut());
  const cut = () => viewer.setCut(cutSide.value, cutShare.value / 100);
  const fade = slider("scene-fade", 50, () => viewer.setFade(fade.value / 100));
  const groups = [...new Set(viewer.known.map(({ part, group }) => (group === "nodule" ? "nodules" : part.name)))];
  const toggles = groups.map((name) => toggle(viewer, name, words));
  const reset = () => {
    viewer.reset();
    [cutShare.value, fade.value, cutSide.value] = [0, 50, "front"];
    for (const { box } of toggles) box.checked = true;
  };
  const views = ["front", "side", "top"].map((name) => el("button", { type: "button", onClick: () => viewer.look(name) }, words.views[name]));
  return el(
    "section",
    { "aria-labelledby": "scene-controls", class: "scene-controls" },
    el("h2", { id: "scene-controls" }, words.controls),
    el("div", { class: "scene-row", role: "group", "aria-label": words.viewsOf }, views, el("button", { type: "button", onClick: reset }, words.reset)),
    el("label", { for: "scene-fade" }, words.fade),
    fade,
    el("label", { for: "scene-cut-side" }, words.cutSide),
    cutSide,
    el("label", { for: "scene-cut" }, words.cut),
    cutShare,
    el("fieldset", {}, el("legend", {}, words.parts), toggles.map(({ whole }) => whole)),
  );
}

const slider = (id, value, input) => el("input", { id, type: "range", min: 0, max: 100, value, onInput: input });

function toggle(viewer, name, words) {
  const names = viewer.known.filter(({ part, group }) => (name === "nodules" ? group === "nodule" : part.name === name)).map(({ part }) => part.name);
  const box = el("input", { type: "checkbox", checked: true, onChange: () => viewer.show(names, box.checked) });
  return { box, whole: el("label", { class: "scene-check" }, box, words.part[name] ?? name) };
}

async function offerAr({ api, job, viewer, panel, stage, words }) {
  const offers = await arOffers(api, job);
  const ways = [];
  if (offers.webxr) ways.push(webxrControls(viewer, stage, words));
  if (offers.sceneViewer) ways.push(el("a", { href: offers.sceneViewer }, words.ar.sceneViewer));
  if (offers.quickLook) {
    const picture = el("img", { src: viewer.picture(), alt: words.ar.quickLook });
    ways.push(el("a", { rel: "ar", href: offers.quickLook, class: "scene-quicklook" }, picture));
  }
  if (!ways.length || !panel.isConnected) return;
  panel.append(
    el("section", { "aria-labelledby": "scene-ar" }, el("h2", { id: "scene-ar" }, words.ar.title), el("p", {}, words.ar.hint), ways),
  );
}

function webxrControls(viewer, stage, words) {
  let factor = 1;
  let stop = null;
  const fault = el("p", { role: "alert" });
  const end = el("button", { type: "button", onClick: () => stop?.() }, words.ar.end);
  const sizes = [1, 2].map((size) => el("button", { type: "button", onClick: () => (factor = size) }, words.ar.sizes[size]));
  const overlay = el("div", { class: "scene-ar-overlay", hidden: true }, el("p", {}, words.ar.disclaimer), sizes, end);
  overlay.addEventListener("beforexrselect", (event) => event.preventDefault()); // a button is no tap on the room
  stage.append(overlay);
  const onEnd = () => {
    [stop, overlay.hidden] = [null, true];
  };
  const start = async () => {
    fault.replaceChildren();
    overlay.hidden = false;
    try {
      stop = await startAr({ viewer, overlay, factor: () => factor, onEnd });
    } catch (error) {
      onEnd();
      fault.replaceChildren(filledIn(words.ar.failed, { why: error.message }));
    }
  };
  return el("div", {}, el("button", { type: "button", class: "scene-ar", onClick: start }, words.ar.start), fault);
}
