// Signing in with a key, where the installation asks for one. The key goes to the service once and is kept nowhere.

import { createApi } from "./api.js";
import { dialog, el, field } from "./dom.js";

/**
 * @param {URL} base
 * @param {typeof import("./strings.js").strings} strings
 */
export function createSession(base, strings) {
  const words = strings.session;
  const api = createApi(base);
  let asking = null;
  let declined = false;
  let changed = () => {};

  function ask() {
    return new Promise((resolve, reject) => {
      const key = el("input", { type: "password", autocomplete: "current-password", required: true });
      const fault = el("p", { class: "fault", role: "alert" });
      const form = el("form", {}, field(words.key, key, words.hint), fault, el("button", { class: "primary" }, words.enter));
      const box = dialog(words.title, strings.close, el("p", {}, words.why), form);
      let signedIn = false;
      form.addEventListener("submit", async (event) => {
        event.preventDefault();
        try {
          await api.send("POST", "v1/session", { key: key.value });
          signedIn = true;
          box.close();
        } catch (problem) {
          fault.textContent = problem.status === 401 || problem.status === 422 ? words.refused : problem.message;
          key.select();
        }
      });
      box.addEventListener("close", () => {
        declined = !signedIn;
        if (declined) return reject(new Error(words.needed));
        changed();
        resolve();
      });
      key.focus();
    });
  }

  /** Ask once, however many requests were refused at the same time. */
  const signIn = () => (asking ??= ask().finally(() => (asking = null)));
  window.addEventListener("hashchange", () => {
    declined = false;
  });

  return {
    signIn,
    /** For requests that were refused: whoever has closed the dialog is left alone until another view is opened. */
    signInOnce: () => (declined ? Promise.reject(new Error(words.needed)) : signIn()),
    /** @returns {Promise<{access: string, authenticated: boolean, name?: string} | null>} null: there is no such thing */
    who: () => api.jsonOrNull("v1/session").catch(() => null),
    /** Nothing of what was seen stays in the page. */
    leave: async () => {
      await api.send("DELETE", "v1/session");
      location.hash = "#/";
      location.reload();
    },
    onChange: (listener) => {
      changed = listener;
    },
  };
}
