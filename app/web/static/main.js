// Which view is shown: the hash of the address says it, so that every view has a link. Only job ids are in it.

import { createApi } from "./api.js";
import { el } from "./dom.js";
import { createSession } from "./session.js";
import { applyTheme, mountShell } from "./shell.js";
import { strings } from "./strings.js";

const ROUTES = [
  { pattern: /^#\/?$/, names: [], title: "home", load: () => import("./views/home.js") },
  { pattern: /^#\/jobs\/([0-9a-z-]+)$/, names: ["job"], title: "reading", load: () => import("./views/reading.js") },
  { pattern: /^#\/jobs\/([0-9a-z-]+)\/3d$/, names: ["job"], title: "scene", load: () => import("./views/scene.js") },
  { pattern: /^#\/jobs\/([0-9a-z-]+)\/patient$/, names: ["job"], title: "patient", load: () => import("./views/patient.js") },
  { pattern: /^#\/jobs\/([0-9a-z-]+)\/prior$/, names: ["job"], title: "prior", load: () => import("./views/prior.js") },
  { pattern: /^#\/dashboard$/, names: [], title: "dashboard", load: () => import("./views/dashboard.js") },
  { pattern: /^#\/models\/([a-z0-9-]+)\/([^/]+)$/, names: ["name", "version"], title: "model", load: () => import("./views/model.js") },
];

applyTheme();
const view = document.getElementById("view");
const announcer = document.getElementById("announcer");
const base = new URL("..", document.baseURI);
const session = createSession(base, strings);
let unmount = () => {};
let shown = 0;
let viewKeys = [];

const context = {
  api: createApi(base, session.signInOnce),
  strings,
  /** Kept while the page is open, and nowhere else. */
  memory: { reviewer: "" },
  navigate: (hash) => {
    location.hash = hash;
  },
  announce: (text) => {
    announcer.textContent = text;
  },
  /** A view tells which keys it knows: [{title, keys: [[key, what]]}]. */
  keys: (groups) => {
    viewKeys = groups;
  },
};

const shell = mountShell(document.getElementById("top"), {
  ...context,
  session,
  keys: () => [...viewKeys, strings.keys.everywhere],
});

async function show() {
  const mine = ++shown;
  const hash = (location.hash || "#/").split("?")[0]; // what follows is for the view
  const route = ROUTES.find(({ pattern }) => pattern.test(hash)) ?? ROUTES[0];
  const values = hash.match(route.pattern)?.slice(1) ?? [];
  const params = Object.fromEntries(route.names.map((name, number) => [name, decodeURIComponent(values[number])]));
  unmount();
  unmount = () => {};
  viewKeys = [];
  view.replaceChildren();
  view.className = route.title;
  document.title = strings.titles[route.title];
  shell.at(hash);
  try {
    const { mount } = await route.load();
    if (mine !== shown) return;
    const left = (await mount(view, { ...context, params })) ?? (() => {});
    if (mine !== shown) return left();
    unmount = left;
  } catch (error) {
    if (mine === shown) showRefusal(error);
  }
  // A first visit begins where every page begins; whoever goes on to another view begins in it.
  if (mine > 1) view.focus({ preventScroll: true });
}

/** A view that cannot be shown says why, in the service's words. */
function showRefusal(error) {
  const back = el("a", { href: "#/", class: "button" }, strings.problem.back);
  const what = error.document?.title ?? strings.problem.title;
  view.replaceChildren(el("section", { class: "refusal", role: "alert" }, el("h1", {}, what), el("p", {}, error.message), back));
}

const skip = document.getElementById("skip");
skip.textContent = strings.skip;
skip.addEventListener("click", (event) => {
  event.preventDefault(); // its hash would be taken for a view
  view.focus();
});
document.getElementById("disclaimer").textContent = strings.disclaimer;
window.addEventListener("hashchange", show);
show();
