// Who reads, whether it is saved, and when it is done.

import { el, field } from "../dom.js";

/**
 * @param {any} words
 * @param {{review: any, memory: {reviewer: string}, onFinish: () => void}} parts
 */
export function createReviewBar(words, { review, memory, onFinish }) {
  const name = el("input", { type: "text", maxLength: 64, value: memory.reviewer, autocomplete: "off", spellcheck: false });
  name.addEventListener("input", () => {
    memory.reviewer = name.value.trim();
  });
  const status = el("p", { class: "soft", role: "status" });
  const finish = el("button", { type: "button", onClick: onFinish }, words.finish);
  const element = el(
    "section",
    { class: "review", "aria-label": words.title },
    el("div", { class: "row" }, field(words.reviewer, name), finish),
    status,
  );
  let total = 0;
  // What was said of the review: until that changes, a message to the reader stays, whatever else arrives.
  let told = null;
  const state = () => {
    const { decisions, added, finished, updated_at, reviewer } = review.state();
    return review.exists() ? words.saved({ reviewer, decided: decisions.length, total, added: added.length, finished, at: updated_at }) : words.unsaved;
  };
  const say = (text) => {
    told = state();
    status.textContent = text;
  };
  return {
    element,
    /** Whether there is a name; asks for one where there is none. */
    named: () => {
      if (memory.reviewer) return true;
      say(words.nameFirst);
      name.focus();
      return false;
    },
    show: (nodules) => {
      total = nodules;
      if (document.activeElement !== name) name.value = memory.reviewer;
      finish.disabled = review.state().finished;
      if (state() === told) return;
      told = state();
      status.textContent = told;
    },
    saving: () => {
      told = null;
      status.textContent = words.saving;
    },
    say,
  };
}
