// The list of concepts: for the whole picture, a patch or a region. Rows are made once and refilled.

import { bus } from "./bus.js";
import { mapOf, rankPatches, rankPicture } from "./code.js";
import { orderConcepts } from "./concepts_order.js";
import { amountText, make, makeButton, makePicture, plural, setText, shareText, showPicture } from "./dom.js";
import { look } from "./look.js";
import { tinyMap, tintColour } from "./overlay.js";
import { notes, showName } from "./notes.js";

// Which of the three tints a concept has: its own where it leads, or else the first.
export const tintOf = (code, slot) => Math.max(0, code.leading.indexOf(slot));

const folded = (showing) => (showing ? "shown · hide" : "hidden · show");

export class ConceptList {
  constructor(tab) {
    this.tab = tab;
    this.panel = tab.panel;
    this.state = tab.state;
    this.rows = [];
    this.listNode = this.panel.find(".pl-list");
    this.listen();
  }

  listen() {
    bus.on("icons", () => {
      if (this.state.code) this.render();
    });
  }

  conceptName(slot) {
    return (slot !== undefined && this.state.code.names[slot]) || "";
  }

  nameOf(slot) {
    return notes.word(this.state.code.ids[slot], this.conceptName(slot));
  }

  nameOfLatent(latent) {
    const slot = this.state.code.slotOf.get(latent);
    return slot === undefined ? notes.word(latent, "") : this.nameOf(slot);
  }

  makeRow() {
    const item = make("li", "pl-row");
    const main = makeButton("pl-concept");
    const icon = makePicture("pl-icon");
    const tiny = make("canvas", "pl-tiny");
    const words = make("span", "pl-words");
    const name = make("span", "pl-name");
    const number = make("span", "pl-number");
    const bar = make("span", "pl-bar");
    const fill = make("i");
    const amount = make("span", "pl-amount");
    bar.append(fill);
    const head = make("span", "pl-words-head");
    head.append(name, number, amount);
    words.append(head, bar);
    main.append(icon, words, tiny);
    const open = makeButton("pl-open");
    open.innerHTML = '<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M9 5l7 7-7 7"/></svg>';
    item.append(main, open);
    const row = { item, main, open, icon, tiny, name, number, fill, amount, slot: -1, picture: null };
    main.addEventListener("click", () => this.tab.lockConcept(this.state.code.ids[row.slot]));
    open.addEventListener("click", () => bus.card.open(this.state.code.ids[row.slot], open));
    item.addEventListener("pointerenter", (event) => {
      if (event.pointerType !== "touch") this.tab.previewConcept(row.slot);
    });
    item.addEventListener("pointerleave", () => this.tab.previewConcept(-1));
    main.addEventListener("focus", () => {
      this.rove(row);
      if (main.matches(":focus-visible")) this.tab.previewConcept(row.slot);
    });
    main.addEventListener("blur", () => this.tab.previewConcept(-1));
    item.addEventListener("keydown", (event) => this.rowKey(event, row));
    main.tabIndex = -1;
    open.tabIndex = -1;
    this.listNode.append(item);
    this.rows.push(row);
    return row;
  }

  rove(row) {
    for (const one of this.rows) {
      one.main.tabIndex = one === row ? 0 : -1;
      one.open.tabIndex = one.main.tabIndex;
    }
  }

  rowKey(event, row) {
    const at = this.rows.indexOf(row);
    const used = this.rows.filter((one) => !one.item.hidden);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: used.length - 1 }[event.key];
    if (to !== undefined && used[to]) {
      event.preventDefault();
      used[to].main.focus();
    }
    if (event.key === "ArrowRight" || event.key === "i") {
      event.preventDefault();
      bus.card.open(this.state.code.ids[row.slot], row.main);
    }
  }

  fillRow(row, slot, share, text) {
    const { code } = this.state;
    const id = code.ids[slot];
    row.item.hidden = false;
    if (row.slot !== slot || row.code !== code || row.turn !== notes.turn) {
      Object.assign(row, { slot, code, turn: notes.turn });
      const name = this.conceptName(slot) || notes.name(id);
      showName(row.name, id, this.conceptName(slot));
      row.item.classList.toggle("pl-unnamed", !name);
      setText(row.number, name ? `#${id}` : "");
      row.open.setAttribute("aria-label", `Open the card of ${this.nameOf(slot)}`);
      this.drawTiny(row.tiny, slot);
      const tint = code.leading.indexOf(slot);
      row.item.classList.toggle("pl-leads", tint >= 0);
      if (tint >= 0) row.item.style.setProperty("--tint", tintColour(tint));
    }
    const picture = bus.icons.get(id) || "";
    if (row.picture !== picture) {
      row.picture = picture;
      showPicture(row.icon, picture);
    }
    row.item.classList.toggle("pl-always", code.dense.has(slot));
    setText(row.amount, text);
    row.fill.style.transform = `scaleX(${Math.min(1, share).toFixed(4)})`;
    const locked = this.state.concept === id;
    if (row.locked === locked) return;
    row.locked = locked;
    row.item.classList.toggle("pl-locked", locked);
    row.main.setAttribute("aria-pressed", String(locked));
  }

  // Where it fires, drawn once a picture: whoever points at patches fills these rows again and again.
  drawTiny(canvas, slot) {
    const { code } = this.state;
    if (canvas.width !== code.columns || canvas.height !== code.rows) {
      Object.assign(canvas, { width: code.columns, height: code.rows });
    }
    const context = canvas.getContext("2d");
    if (!code.tiny.has(slot)) code.tiny.set(slot, tinyMap(context, mapOf(code, slot), code, tintOf(code, slot)));
    context.putImageData(code.tiny.get(slot), 0, 0);
  }

  // Fill the list for the places in view; weak and always-on concepts are folded with their count.
  render() {
    const { code, rank, showAll, showDense } = this.state;
    const places = this.tab.placesInView();
    const isKept = (slot) => code.ids[slot] === this.state.concept || notes.isPinned(code.ids[slot]);
    const order = orderConcepts(code, places, { rank, bars: look.bars, showDense, isKept }, this.tab.limits);
    const listed = showAll ? [...order.strong, ...order.weak] : order.strong;
    const shown = notes.pinnedFirst(listed, (slot) => code.ids[slot]);
    const most = order.asShares ? 1 : Math.max(0, ...order.strong.map((slot) => order.amounts[slot]));
    const text = order.asShares ? shareText : amountText;
    shown.forEach((slot, i) => {
      this.fillRow(this.rows[i] || this.makeRow(), slot, order.amounts[slot] / (most || 1), text(order.amounts[slot]));
    });
    for (let i = shown.length; i < this.rows.length; i++) this.rows[i].item.hidden = true;
    if (shown.length && !this.rows.slice(0, shown.length).some((row) => row.main.tabIndex === 0)) {
      this.rove(this.rows[0]);
    }
    this.renderFoot(order, shown.length);
    this.renderHead(places, order);
    this.state.ranked = { slots: [...order.strong, ...order.weak] };
  }

  renderFoot({ weak, always }, shown) {
    const { showAll, showDense, code } = this.state;
    const moreButton = this.panel.find(".pl-more");
    const denseButton = this.panel.find(".pl-dense");
    moreButton.hidden = !weak.length;
    moreButton.setAttribute("aria-expanded", String(showAll));
    setText(moreButton, `${plural(weak.length, "weaker concept", "weaker concepts")} ${folded(showAll)}`);
    denseButton.hidden = always === 0;
    denseButton.setAttribute("aria-expanded", String(showDense));
    setText(denseButton, `${plural(always, "always-on concept", "always-on concepts")} ${folded(showDense)}`);
    const note = this.panel.find(".pl-weak-note");
    const { weak_share: share, n_strong: n } = this.tab.limits;
    const below = code.datasetMax ? `below ${shareText(share)} of its own maximum here, or ` : "";
    note.hidden = !weak.length;
    setText(note, `Weaker: ${below}after the first ${n}.`);
    const empty = this.panel.find(".pl-empty");
    empty.hidden = shown > 0;
    const why = always > 0 ? "Only always-on concepts fire here." : "No concept fires here. Try another patch.";
    setText(empty, shown > 0 ? "" : why);
  }

  renderHead(places, { strong, weak }) {
    const n = strong.length + weak.length;
    const one = places && places.length === 1;
    const title = one ? "One patch" : places ? plural(places.length, "patch", "patches") : "Whole picture";
    setText(this.panel.find(".pl-title"), title);
    const where = one ? `${this.patchWords(places[0])} · ` : "";
    const cut = one && n === this.tab.limits.per_place ? "the strongest " : "";
    const kind = n === 1 ? "concept" : "concepts";
    const what = !places && this.state.rank === "cls" ? "concepts in the summary token" : kind;
    setText(this.panel.find(".pl-subtitle"), `${where}${cut}${n} ${what}`);
    this.panel.find(".pl-rank [data-value=cls]").hidden = !this.state.code.hasSummary || Boolean(places);
    this.panel.find(".pl-rank").classList.toggle("pl-off", Boolean(one));
  }

  askIconsShown() {
    const shown = this.rows.filter((row) => !row.item.hidden);
    this.askIcons(shown.map((row) => this.state.code.ids[row.slot]));
  }

  askIcons(latents) {
    if (this.tab.limits.has_index) bus.askIcons(this.tab, latents);
  }

  patchWords(patch) {
    return `row ${Math.floor(patch / this.state.code.columns) + 1}, column ${(patch % this.state.code.columns) + 1}`;
  }

  // Pictures of the concepts that can come up while pointing: asked once, when the page is idle.
  fetchIcons() {
    const { code } = this.state;
    const wanted = new Set();
    for (const slot of rankPicture(code, "max").slots.slice(0, 40)) wanted.add(code.ids[slot]);
    for (let patch = 0; patch < code.patches; patch++) {
      for (const slot of rankPatches(code, [patch], "max").slots.slice(0, 6)) wanted.add(code.ids[slot]);
    }
    this.askIcons([...wanted].slice(0, this.tab.limits.icons));
  }
}
