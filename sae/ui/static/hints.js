// Hints for those without a mouse: what an element's title says is shown beside it while it has the focus
// by key, and for a moment after a touch. A mouse has the browser's own. Knows nothing of what they say.

import { make } from "./dom.js";

const SHOWN_MS = 6000;
const FAR = 8;
let box = null;
let shownFor = null;
let away = 0;

// A word that is explained: it can be reached by key, and looks as if there were more to know.
export function hinted(node, help) {
  node.title = help;
  node.dataset.hint = "";
  node.tabIndex = 0;
  return node;
}

// The nearest element that has a hint which its own words do not say already.
function explainedAt(target) {
  const node = target.closest && target.closest(".pl [title], .pl-header [title]");
  return node && node.title && node.title !== node.textContent.trim() ? node : null;
}

function hide() {
  clearTimeout(away);
  shownFor = null;
  if (box) box.hidden = true;
}

function place() {
  const at = shownFor.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = box;
  const below = at.bottom + FAR + height < innerHeight;
  box.style.left = `${Math.max(FAR, Math.min(innerWidth - width - FAR, at.left + at.width / 2 - width / 2))}px`;
  box.style.top = `${Math.max(FAR, below ? at.bottom + FAR : at.top - FAR - height)}px`;
}

function show(node) {
  if (!box) {
    box = make("div", "pl-hint");
    box.setAttribute("aria-hidden", "true"); // the title itself is what is read aloud
  }
  (node.closest("dialog") || document.body).append(box);
  shownFor = node;
  box.textContent = node.title;
  box.hidden = false;
  place();
  clearTimeout(away);
  away = setTimeout(hide, SHOWN_MS);
}

// From now on, for all there is and will be on the page.
export function giveHints() {
  document.addEventListener("focusin", ({ target }) => {
    const node = explainedAt(target);
    if (node && target.matches(":focus-visible")) show(node);
    else if (node !== shownFor) hide();
  });
  document.addEventListener("focusout", ({ target }) => {
    if (shownFor && target.contains(shownFor)) hide();
  });
  document.addEventListener("pointerup", ({ target, pointerType }) => {
    if (pointerType !== "touch") return;
    const node = explainedAt(target);
    if (node && node !== shownFor) setTimeout(() => show(node));
    else hide();
  });
  document.addEventListener("keydown", ({ key }) => {
    if (key === "Escape") hide();
  });
  document.addEventListener("scroll", () => shownFor && place(), { capture: true, passive: true });
}
