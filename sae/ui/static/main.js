// The view: one state, what it means for list and map, and what arrives from the server.

let keepConcept = false;
const pointing = !window.matchMedia("(hover: none)").matches;

function placesInView() {
  if (state.dragged) return state.dragged.size ? [...state.dragged] : null;
  if (state.patches.size) return [...state.patches];
  return state.hover >= 0 ? [state.hover] : null;
}
function patchesInView() {
  if (state.dragged) return [...state.dragged];
  const places = [...state.patches];
  if (state.hover >= 0 && !state.patches.has(state.hover)) places.push(state.hover);
  return places;
}
function slotInView() {
  if (state.preview >= 0) return state.preview;
  return state.concept === null ? undefined : state.code.slotOf.get(state.concept);
}

function previewConcept(slot) {
  if (!state.code) return;
  state.preview = slot;
  bus.card.prefetch(slot >= 0 ? state.code.ids[slot] : null);
  renderMap();
  renderSentence();
}

function lockConcept(latent) {
  state.concept = state.concept === latent ? null : latent;
  render();
  say(state.concept === null ? "No concept chosen" : "Showing where " + nameOfLatent(latent) + " fires");
}

function renderHover() {
  renderMap();
  renderTip();
  if (!state.patches.size || state.dragged) { state.showAll = false; renderList(); renderSentence(); }
}

const tipLines = [0, 1, 2].map(() => {
  const line = make("span", "pl-tip-line"), name = make("span", ""), amount = make("b", "");
  line.append(name, amount);
  tip.append(line);
  return { line, name, amount };
});

function renderTip() {
  const { code, hover } = state;
  if (hover < 0) { tip.hidden = true; return; }
  const { slots, amounts } = rankPatches(code, [hover], "max");
  const shown = slots.filter((slot) => !code.dense.has(slot)).slice(0, 3);
  tipLines.forEach(({ line, name, amount }, i) => {
    line.hidden = i >= shown.length;
    if (line.hidden) return;
    setText(name, nameOf(shown[i]));
    setText(amount, amountText(amounts[shown[i]]));
  });
  tip.hidden = shown.length === 0;
  const [l, t, r, b] = state.value.box, row = Math.floor(hover / code.columns), column = hover % code.columns;
  const y = t + (row + 0.5) / code.rows * (b - t), x = l + (column + 0.5) / code.columns * (r - l);
  tip.style.left = Math.min(86, Math.max(14, 100 * x)) + "%";
  tip.style.top = 100 * y + "%";
  tip.classList.toggle("pl-below", y < 0.3);
}

function patchSentence(patch) {
  const { slots, amounts } = rankPatches(state.code, [patch], "max");
  const top = slots.filter((slot) => !state.code.dense.has(slot)).slice(0, 3);
  const words = top.map((slot) => nameOf(slot) + " " + amountText(amounts[slot])).join(", ");
  return patchWords(patch) + ": " + (words || "no concept");
}

function placeSentence() {
  const places = placesInView();
  if (!places) return "Whole picture";
  return places.length === 1 ? patchSentence(places[0]) : plural(places.length, "patch", "patches") + " chosen";
}

function renderSentence() {
  const { code } = state, places = placesInView();
  const share = explained(code, places || Array.from({ length: code.patches }, (_, i) => i));
  const what = !places ? "this picture" : places.length === 1 ? "this patch" : "these patches";
  setText(find(".pl-share-text"), "Concepts explain " + shareText(share) + " of " + what);
  find(".pl-meter i").style.transform = "scaleX(" + share.toFixed(3) + ")";
  const slot = slotInView();
  let sentence = pointing ? "Point at a patch, or at a concept in the list. A click keeps it." : "Tap a patch, or a concept in the list.";
  if (state.concept !== null && slot === undefined) sentence = nameOfLatent(state.concept) + " does not fire in this picture.";
  else if (slot !== undefined) {
    const map = mapOf(code, slot), n = map.reduce((count, amount) => count + (amount > 0), 0);
    sentence = n ? nameOf(slot) + " fires in " + n + " of " + code.patches + " patches." : nameOf(slot) + " fires in the summary token only.";
  }
  setText(find(".pl-sentence"), sentence);
}

function renderTools() {
  showRank(state.rank);
  showScale(state.code.datasetMax ? state.scale : "image");
  find(".pl-scale [data-value=dataset]").disabled = !state.code.datasetMax;
  find(".pl-clear").disabled = !state.patches.size && state.concept === null;
}

function render() {
  if (!state.code) return;
  renderMap();
  renderTip();
  renderList();
  renderSentence();
  renderTools();
  cells.forEach((cell, patch) => cell.setAttribute("aria-selected", String(state.patches.has(patch))));
  if (state.patches.size && props.setup.has_index) bus.askIcons(server, rows.filter((row) => !row.item.hidden).map((row) => state.code.ids[row.slot]));
  writeQuery(LENS_KEYS, lensPairs());
}

function clearView() {
  state.patches = new Set();
  state.concept = null;
  state.hover = -1;
  state.showAll = false;
  render();
  say("Whole picture, no concept chosen");
}

let askedPatches = null; // the patches to choose in the picture that another tab asked for
const LENS_KEYS = ["img", "p", "z", "rank", "scale"];

function lensPairs() {
  const pairs = [], { link } = state.value.source;
  if (link) pairs.push(["img", link]);
  if (state.patches.size) pairs.push(["p", patchRanges(state.patches)]);
  if (state.concept !== null) pairs.push(["z", state.concept]);
  if (state.rank !== props.setup.rank) pairs.push(["rank", state.rank]);
  if (state.scale !== "dataset") pairs.push(["scale", state.scale]);
  return pairs;
}

// What other tabs may know of the picture in view.
function sharedPicture() {
  const { code, value } = state;
  return {
    code, value, source: value.source, request: requestFor(value),
    patches: () => [...state.patches],
    name: (latent) => conceptName(code.slotOf.get(latent)),
    maximum: (latent) => { const slot = code.slotOf.get(latent); return slot === undefined ? 0 : code.max[slot]; },
  };
}

// Take what the server sent: a picture, or one sentence about what went wrong.
function receive(value) {
  if (!value || value.ticket < ticketOf.last) return;
  if (value.problem) { failed(value.ticket, value.problem); return; }
  ticketOf.last = Math.max(ticketOf.last, value.ticket);
  clearTimeout(waitTimer);
  const before = { concept: state.concept, patches: state.patches };
  state.value = value;
  state.code = readCode(value);
  const view = value.view, known = (patch) => patch < state.code.patches;
  state.patches = new Set((keepConcept ? [...before.patches] : askedPatches || view.patches).filter(known));
  askedPatches = null;
  state.concept = keepConcept ? before.concept : view.concept;
  if (value.ticket === 0) Object.assign(state, { rank: view.rank || state.rank, scale: view.scale || state.scale });
  if (state.rank === "cls" && !state.code.hasSummary) state.rank = "max";
  Object.assign(state, { hover: -1, preview: -1, dragged: null, showAll: false });
  const photo = find(".pl-photo");
  photo.src = value.picture.src;
  photo.alt = value.picture.alt;
  root.dataset.state = "ready";
  if (!performance.getEntriesByName("patchlens-usable").length) performance.mark("patchlens-usable");
  bus.picture = sharedPicture();
  layStage();
  forgetArea();
  fitCanvas();
  markSource();
  render();
  if (value.notes && value.notes.length) notice(value.notes, "info");
  if (Number.isInteger(view.card)) bus.card.open(view.card, rows[0] && rows[0].main);
  bus.emit("picture");
  const idle = window.requestIdleCallback || ((act) => setTimeout(act, 120));
  idle(() => fetchIcons());
}

const showRank = switchGroup(find(".pl-rank"), (value) => { state.rank = value; render(); });
const showScale = switchGroup(find(".pl-scale"), (value) => { state.scale = value; render(); });
find(".pl-opacity input").addEventListener("input", (event) => { state.opacity = event.target.value / 100; renderMap(); });
find(".pl-clear").addEventListener("click", clearView);
find(".pl-copy").addEventListener("click", (event) => {
  copyLink(event.currentTarget);
  if (!state.value.source.link) notice("The link keeps the patches and the concept. Your picture stays with you: it is not part of the link.");
});
find(".pl-more").addEventListener("click", () => { state.showAll = !state.showAll; renderList(); });
find(".pl-dense").addEventListener("click", () => { state.showDense = !state.showDense; renderList(); });
find(".pl-notice-close").addEventListener("click", () => notice([]));
document.addEventListener("keydown", (event) => {
  if (!visible() || bus.card.isOpen() || event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.closest && event.target.closest("input:not([type=range]), textarea, select, [contenteditable]");
  if (typing || !state.code) return;
  if (event.key === "Escape") clearView();
  if (event.key === "[" || event.key === "]") stepConcept(event.key === "]" ? 1 : -1);
});

function stepConcept(step) {
  const { slots } = state.ranked, at = slots.findIndex((slot) => state.code.ids[slot] === state.concept);
  const next = slots[at < 0 ? (step > 0 ? 0 : slots.length - 1) : Math.min(slots.length - 1, Math.max(0, at + step))];
  if (next === undefined) return;
  state.concept = state.code.ids[next];
  render();
  say("Showing where " + nameOf(next) + " fires");
}

bus.receive("lens", ({ kind, data, patches }) => { keepConcept = false; askedPatches = patches || null; ask(kind, data, "Opening the picture"); });
bus.receive("concepts", ({ concept }) => { state.concept = concept; render(); });

setText(find(".pl-keys"), "Keyboard: arrows move over patches, Enter keeps one, Space adds one, [ and ] step through concepts, Esc clears. Drag to choose a region, Shift-drag to take away.");
drawRamp(find(".pl-ramp"));
listNode.classList.toggle("pl-bare", !props.setup.has_index);
layExamples();
watch("value", () => receive(props.value));

// A link that names a view is answered by the server's load event; until then nothing is drawn.
const linked = [...new URLSearchParams(bus.opened).keys()].some((key) => [...LENS_KEYS, "v", "card"].includes(key));
if (!linked) receive(props.value);
else setTimeout(() => { if (!state.code) receive(props.value); }, 5000);
