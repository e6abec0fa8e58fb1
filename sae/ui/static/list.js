// The list of concepts: for the whole picture, a patch or a region. Rows are made once and refilled.

const rows = [];
const SHOWN = 14;
const listNode = find(".pl-list");
const { icons } = bus;

function conceptName(slot) {
  return (slot !== undefined && state.code.names[slot]) || "";
}
function nameOf(slot) {
  return conceptName(slot) || "Concept " + state.code.ids[slot];
}
function nameOfLatent(latent) {
  const slot = state.code.slotOf.get(latent);
  return slot === undefined ? "Concept " + latent : nameOf(slot);
}

function makeRow() {
  const item = make("li", "pl-row"), main = makeButton("pl-concept");
  const icon = make("img", "pl-icon"), tiny = make("canvas", "pl-tiny");
  const words = make("span", "pl-words"), name = make("span", "pl-name"), number = make("span", "pl-number");
  const bar = make("span", "pl-bar"), fill = make("i"), amount = make("span", "pl-amount");
  icon.alt = ""; icon.draggable = false;
  bar.append(fill);
  const head = make("span", "pl-words-head");
  head.append(name, number, amount);
  words.append(head, bar);
  main.append(icon, words, tiny);
  const open = makeButton("pl-open");
  open.innerHTML = '<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M9 5l7 7-7 7"/></svg>';
  item.append(main, open);
  const row = { item, main, open, icon, tiny, name, number, fill, amount, slot: -1, picture: null };
  main.addEventListener("click", () => lockConcept(state.code.ids[row.slot]));
  open.addEventListener("click", () => bus.card.open(state.code.ids[row.slot], open));
  item.addEventListener("pointerenter", (event) => { if (event.pointerType !== "touch") previewConcept(row.slot); });
  item.addEventListener("pointerleave", () => previewConcept(-1));
  main.addEventListener("focus", () => { rove(row); if (main.matches(":focus-visible")) previewConcept(row.slot); });
  main.addEventListener("blur", () => previewConcept(-1));
  item.addEventListener("keydown", (event) => rowKey(event, row));
  main.tabIndex = open.tabIndex = -1;
  listNode.append(item);
  rows.push(row);
  return row;
}

function rove(row) {
  for (const one of rows) one.main.tabIndex = one.open.tabIndex = one === row ? 0 : -1;
}

function rowKey(event, row) {
  const at = rows.indexOf(row), used = rows.filter((one) => !one.item.hidden);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: used.length - 1 }[event.key];
  if (to !== undefined && used[to]) { event.preventDefault(); used[to].main.focus(); }
  if (event.key === "ArrowRight" || event.key === "i") { event.preventDefault(); bus.card.open(state.code.ids[row.slot], row.main); }
}

function fillRow(row, slot, amount, most) {
  const { code } = state, id = code.ids[slot];
  row.item.hidden = false;
  if (row.slot !== slot || row.code !== code) {
    row.slot = slot; row.code = code;
    const name = conceptName(slot);
    setText(row.name, name || "Concept " + id);
    row.item.classList.toggle("pl-unnamed", !name);
    setText(row.number, name ? "#" + id : "");
    row.open.setAttribute("aria-label", "Open the card of " + nameOf(slot));
    drawTiny(row.tiny, slot, code);
  }
  const picture = icons.get(id) || "";
  if (row.picture !== picture) {
    row.picture = picture;
    row.icon.classList.toggle("pl-has", Boolean(picture));
    if (picture) row.icon.src = picture; else row.icon.removeAttribute("src");
  }
  row.item.classList.toggle("pl-always", code.dense.has(slot));
  setText(row.amount, amountText(amount));
  row.fill.style.transform = "scaleX(" + (most > 0 ? amount / most : 0).toFixed(4) + ")";
  const locked = state.concept === id;
  if (row.locked === locked) return;
  row.locked = locked;
  row.item.classList.toggle("pl-locked", locked);
  row.main.setAttribute("aria-pressed", String(locked));
}

// Fill the list for the places in view; the always-on concepts are folded with their count.
function renderList() {
  const { code } = state, places = placesInView();
  const ranked = places ? rankPatches(code, places, state.rank) : rankPicture(code, state.rank);
  const plain = ranked.slots.filter((slot) => !code.dense.has(slot));
  const always = ranked.slots.length - plain.length;
  const slots = state.showDense ? ranked.slots : plain;
  const shown = Math.min(slots.length, state.showAll ? slots.length : SHOWN);
  const most = slots.length ? ranked.amounts[slots[0]] : 0;
  for (let i = 0; i < shown; i++) fillRow(rows[i] || makeRow(), slots[i], ranked.amounts[slots[i]], most);
  for (let i = shown; i < rows.length; i++) rows[i].item.hidden = true;
  if (shown && !rows.slice(0, shown).some((row) => row.main.tabIndex === 0)) rove(rows[0]);
  renderListFoot(slots.length - shown, always, shown);
  renderListHead(places, slots);
  state.ranked = { slots, amounts: ranked.amounts };
}

function renderListFoot(more, always, shown) {
  const moreButton = find(".pl-more"), denseButton = find(".pl-dense"), empty = find(".pl-empty");
  moreButton.hidden = more <= 0 && !(state.showAll && shown > SHOWN);
  setText(moreButton, more > 0 ? "Show " + more + " more" : "Show fewer");
  denseButton.hidden = always === 0;
  denseButton.setAttribute("aria-expanded", String(state.showDense));
  setText(denseButton, plural(always, "always-on concept", "always-on concepts") + (state.showDense ? " shown · hide" : " hidden · show"));
  empty.hidden = shown > 0;
  setText(empty, shown > 0 ? "" : always > 0 ? "Only always-on concepts fire here." : "No concept fires here. Try another patch.");
}

function renderListHead(places, slots) {
  const { code } = state;
  setText(find(".pl-title"), !places ? "Whole picture" : places.length === 1 ? "One patch" : plural(places.length, "patch", "patches"));
  const where = !places ? "" : places.length === 1 ? patchWords(places[0]) + " · " : "";
  const kind = !places && state.rank === "cls" ? "concepts in the summary token" : slots.length === 1 ? "concept" : "concepts";
  const cut = places && places.length === 1 && slots.length === props.setup.per_place;
  setText(find(".pl-subtitle"), where + (cut ? "the strongest " : "") + slots.length + " " + kind);
  find(".pl-rank [data-value=cls]").hidden = !code.hasSummary || Boolean(places);
  find(".pl-rank").classList.toggle("pl-off", Boolean(places) && places.length === 1);
}

function patchWords(patch) {
  return "row " + (Math.floor(patch / state.code.columns) + 1) + ", column " + (patch % state.code.columns + 1);
}

// Pictures of the concepts that can come up while pointing: asked once, when the page is idle.
function fetchIcons() {
  const { code } = state, wanted = new Set();
  for (const slot of rankPicture(code, "max").slots.slice(0, 40)) wanted.add(code.ids[slot]);
  for (let patch = 0; patch < code.patches; patch++) {
    for (const slot of rankPatches(code, [patch], "max").slots.slice(0, 6)) wanted.add(code.ids[slot]);
  }
  if (props.setup.has_index) bus.askIcons(server, [...wanted].slice(0, 256));
}

bus.on("icons", () => { if (state.code) renderList(); });
