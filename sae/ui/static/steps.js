// Back and Forward: which changes of the address are steps of their own. What one does on purpose is a
// step, one at most for each act; what follows by itself, typing and dragging replace the step one is at.
// Knows people's acts and the browser's history; knows nothing of what an address says.

const SAME_WALK_MS = 1000;
const WITHIN_MS = 10000;
const MOST_REPLACED = 25; // in WITHIN_MS: browsers refuse, or throw, from about 100 in 30 s
const TYPED = "input:not([type=checkbox], [type=radio], [type=range], [type=file]), textarea, [contenteditable]";
const SLID = "input[type=range]";

const travellers = [];
const viewers = [];
const replaced = [];
let act = { spent: true };
let walk = { key: "", at: 0 };
const stepOf = (state) => (state && state.step) || 0;
let shown = location.search;
let step = stepOf(history.state);
let waiting = 0;

const address = () => location.pathname + shown + location.hash;
const isIn = (event, selector) => Boolean(event.target.closest && event.target.closest(selector));

// The query of the view, which the address bar may follow a moment later.
export const query = () => shown;

// The view is now told by `text`; with `deliberate` it is a new step if somebody has just done something.
export function record(text, deliberate) {
  if (text === shown) return;
  const isStep = deliberate && !act.spent;
  if (isStep) replaceNow();
  shown = text;
  if (isStep) {
    act.spent = true;
    step += 1;
    attempt(() => history.pushState({ step }, "", address()));
  } else replaceSoon();
  tellParent();
  for (const hear of viewers) hear();
}

// Call `hear()` whenever the view is told anew, however it came about.
export function onView(hear) {
  viewers.push(hear);
}

// Call `hear(before)` with the query of the view that was left, after every Back and Forward.
export function onTravel(hear) {
  travellers.push(hear);
}

function attempt(write) {
  try {
    write();
  } catch {
    // A browser that has had enough of changes: the view is right, its address follows with the next one.
  }
}

function replaceSoon() {
  const now = performance.now();
  while (replaced.length && now - replaced[0] > WITHIN_MS) replaced.shift();
  if (waiting) return;
  if (replaced.length < MOST_REPLACED) replaceNow();
  else waiting = setTimeout(replaceNow, WITHIN_MS - (now - replaced[0]));
}

function replaceNow() {
  clearTimeout(waiting);
  waiting = 0;
  if (location.search === shown) return;
  replaced.push(performance.now());
  attempt(() => history.replaceState({ step }, "", address()));
}

// A Space shows the app in a frame, and the query in its own address bar.
function tellParent() {
  if (window.parent === window) return;
  window.parent.postMessage({ queryString: shown.slice(1) }, "https://huggingface.co");
}

function acted() {
  act = { spent: false };
}

// Steps with one key in quick succession are one walk; a key that is held is no new act.
function keyPressed(event) {
  const { key, repeat } = event;
  if (repeat || event.ctrlKey || event.metaKey || event.altKey || isIn(event, SLID)) return;
  if (isIn(event, TYPED) && key !== "Enter") return;
  const now = performance.now();
  const goesOn = key === walk.key && key !== "Enter" && key !== " " && now - walk.at < SAME_WALK_MS;
  walk = { key, at: now };
  if (!goesOn) acted();
}

// A step that shows what is on screen already (its dialog was closed, say) is passed over.
function travelled(event) {
  clearTimeout(waiting);
  waiting = 0;
  act = { spent: true };
  const before = shown;
  const from = step;
  step = stepOf(event.state);
  shown = location.search;
  if (before === shown && step !== from) {
    history.go(step > from ? 1 : -1);
    return;
  }
  tellParent();
  for (const hear of travellers) hear(before);
}

const early = { capture: true };
document.addEventListener(
  "pointerup",
  () => {
    if (waiting) replaceNow(); // what was dragged is told when it is let go
    acted();
  },
  early,
);
document.addEventListener("keydown", keyPressed, early);
document.addEventListener("click", (event) => event.isTrusted && event.detail === 0 && acted(), early);
for (const kind of ["drop", "paste"]) document.addEventListener(kind, acted, early);
document.addEventListener("change", (event) => !isIn(event, SLID) && acted(), early);
document.addEventListener(
  "input",
  (event) => {
    if (isIn(event, `${TYPED}, ${SLID}`)) act = { spent: true };
  },
  early,
);
window.addEventListener("pagehide", replaceNow);
window.addEventListener("popstate", travelled);
