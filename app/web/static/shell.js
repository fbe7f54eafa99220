// What is around every view: name, navigation, theme, who is signed in, and the keys.

import { dialog, el } from "./dom.js";

const THEME = "lungnodule-theme";

/** The one thing kept in this browser: light or dark. */
export function applyTheme() {
  const kept = localStorage.getItem(THEME);
  document.documentElement.dataset.theme = kept === "light" ? "light" : "dark";
}

function themeButton(words, announce) {
  const button = el("button", { type: "button", class: "quiet" });
  const label = () => {
    button.textContent = document.documentElement.dataset.theme === "light" ? words.toDark : words.toLight;
  };
  button.addEventListener("click", () => {
    const next = document.documentElement.dataset.theme === "light" ? "dark" : "light";
    localStorage.setItem(THEME, next);
    applyTheme();
    label();
    announce(next === "light" ? words.lightNow : words.darkNow);
  });
  label();
  return button;
}

/** The keys of the page, and those of the view that is shown. */
export function showKeys(strings, groups) {
  const list = (group) =>
    el(
      "section",
      {},
      el("h3", {}, group.title),
      el("dl", { class: "keys" }, ...group.keys.flatMap(([key, what]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, what)])),
    );
  dialog(strings.keys.title, strings.close, el("div", { class: "key-groups" }, ...groups.map(list)));
}

/**
 * @param {HTMLElement} top
 * @param {{strings: any, announce: (text: string) => void, session: any, keys: () => any[], api: any}} parts
 */
export function mountShell(top, { strings, announce, session, keys, api }) {
  const words = strings.shell;
  const links = [["#/", words.home], ["#/dashboard", words.dashboard]].map(([href, text]) => el("a", { href }, text));
  const model = el("a", { hidden: true });
  const account = el("span", { class: "account" });
  const help = el(
    "button",
    { type: "button", class: "quiet", "aria-keyshortcuts": "?", onClick: () => showKeys(strings, keys()) },
    words.keys,
  );
  top.replaceChildren(
    el("a", { href: "#/", class: "brand" }, words.name),
    el("nav", { "aria-label": words.navigation }, ...links, model),
    el("span", { class: "spread" }),
    account,
    help,
    themeButton(words, announce),
  );

  async function showAccount() {
    const who = await session.who();
    account.replaceChildren();
    if (who?.access !== "required") return;
    const leave = el("button", { type: "button", class: "quiet", onClick: () => session.leave() }, words.signOut);
    const enter = el("button", { type: "button", class: "quiet", onClick: () => session.signIn().catch(() => {}) }, words.signIn);
    account.append(...(who.authenticated ? [words.signedInAs(who.name ?? ""), leave] : [enter]));
  }

  async function showModel() {
    const [first] = (await api.json("v1/models")).models;
    model.href = `#/models/${first.name}/${encodeURIComponent(first.version)}`;
    model.textContent = words.model(first.name, first.version);
    model.hidden = false;
  }

  session.onChange(showAccount);
  showAccount();
  showModel().catch(() => {});
  document.addEventListener("keydown", (event) => {
    if (event.key === "?" && !isTyping(event.target)) showKeys(strings, keys());
  });
  return {
    /** Mark where we are. */
    at: (hash) => {
      for (const link of [...links, model]) {
        if (link.getAttribute("href") === (hash || "#/")) link.setAttribute("aria-current", "page");
        else link.removeAttribute("aria-current");
      }
    },
  };
}

/** Whether a key belongs to what is being written, or to an open dialog. */
export function isTyping(target) {
  if (document.querySelector("dialog[open]")) return true;
  return target instanceof HTMLElement && target.matches("input:not([type=checkbox]):not([type=radio]), textarea, select");
}
