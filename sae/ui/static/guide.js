// The first visit's task: one line that goes on when one does what it says. Knows what the address says of the
// view, so that it does not matter how one gets there; knows nothing of tabs.

import { make, makeButton, setText } from "./dom.js";
import { onView, query } from "./steps.js";

const KEPT = "patchlens-guide";
const OFF = /\*(?:0|-[\d.]+)[pcro]?a?(?:,|$)|x(?:,|$)/;
const TASKS = [
  ["Click a spot in the picture: what does the model see there?", (view) => view.has("p")],
  ["Choose the first concept of the list: where else is it?", (view) => view.has("z")],
  [
    "Open it with the arrow at its end, and press “Steer with it”.",
    (view) => view.get("tab") === "steer" && Boolean(view.get("steer")),
  ],
  [
    "Drag its slider to 0, so that the model does without it, and watch the bars.",
    (view) => OFF.test(view.get("steer")),
  ],
];
const END = "That is how much of the answer was this concept. Now try a picture of your own.";

// How many tasks are done; a browser that keeps nothing begins again.
function kept() {
  try {
    return Math.min(TASKS.length + 1, Math.max(0, Number(localStorage.getItem(KEPT)) || 0));
  } catch {
    return 0;
  }
}

export function guide(node) {
  let done = kept();
  if (done >= TASKS.length) return;
  const text = make("span");
  const place = make("b");
  const close = makeButton("pl-guide-close", "×", () => {
    keep(TASKS.length + 1);
    node.hidden = true;
  });
  close.setAttribute("aria-label", "Put the first task away");
  node.append(place, text, close);

  function keep(n) {
    done = n;
    try {
      localStorage.setItem(KEPT, String(n));
    } catch {
      // A browser that keeps nothing.
    }
  }

  function show() {
    setText(place, done < TASKS.length ? `Try it, ${done + 1} of ${TASKS.length}` : "Done");
    setText(text, done < TASKS.length ? TASKS[done][0] : END);
  }

  onView(() => {
    if (done >= TASKS.length || !TASKS[done][1](new URLSearchParams(query()))) return;
    keep(done + 1);
    show();
  });
  show();
  node.hidden = false;
}
