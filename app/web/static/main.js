// Which view is shown: the hash of the address says it, so that every view has a link. Only job ids are in it.

import { createApi } from "./api.js";
import { strings } from "./strings.js";

const ROUTES = [
  { pattern: /^#\/?$/, names: [], load: () => import("./views/home.js") },
  { pattern: /^#\/jobs\/([0-9a-z-]+)$/, names: ["job"], load: () => import("./views/reading.js") },
  { pattern: /^#\/jobs\/([0-9a-z-]+)\/3d$/, names: ["job"], load: () => import("./views/scene.js") },
  { pattern: /^#\/jobs\/([0-9a-z-]+)\/patient$/, names: ["job"], load: () => import("./views/patient.js") },
  { pattern: /^#\/jobs\/([0-9a-z-]+)\/prior$/, names: ["job"], load: () => import("./views/prior.js") },
  { pattern: /^#\/dashboard$/, names: [], load: () => import("./views/dashboard.js") },
  { pattern: /^#\/models\/([a-z0-9-]+)\/([^/]+)$/, names: ["name", "version"], load: () => import("./views/model.js") },
];

const view = document.getElementById("view");
const announcer = document.getElementById("announcer");
const api = createApi(new URL("..", document.baseURI));
let unmount = () => {};
let shown = 0;

const context = {
  api,
  strings,
  navigate: (hash) => {
    location.hash = hash;
  },
  announce: (text) => {
    announcer.textContent = text;
  },
};

async function show() {
  const mine = ++shown;
  const hash = (location.hash || "#/").split("?")[0]; // what follows is for the view
  const route = ROUTES.find(({ pattern }) => pattern.test(hash)) ?? ROUTES[0];
  const values = hash.match(route.pattern)?.slice(1) ?? [];
  const params = Object.fromEntries(route.names.map((name, number) => [name, decodeURIComponent(values[number])]));
  unmount();
  unmount = () => {};
  view.replaceChildren();
  const { mount } = await route.load();
  if (mine === shown) {
    unmount = (await mount(view, { ...context, params })) ?? (() => {});
    view.focus({ preventScroll: true });
  }
}

document.getElementById("skip").textContent = strings.skip;
document.getElementById("disclaimer").textContent = strings.disclaimer;
window.addEventListener("hashchange", show);
show();
