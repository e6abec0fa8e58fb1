// The rack: one row a concept, with its dose in multiples of its own maximum.

import { bus } from "./bus.js";
import { make, makeButton, makePicture, setChildren, setText, showPicture } from "./dom.js";
import { notes } from "./notes.js";
import { newRow } from "./steer_state.js";
import { undoByKeys } from "./undo.js";

const NOTHING_CALLED_THAT = "No concept is called that. Try its number, or look in the Map tab.";
const PLACES = [
  ["all", "everywhere"],
  ["region", "chosen patches"],
  ["only", "chosen patches, nothing else there"],
  ["patches", "all patches"],
  ["cls", "summary token"],
];

export function doseText(dose) {
  const sign = dose > 0 ? "+" : dose < 0 ? "−" : "";
  const digits = Math.abs(dose).toFixed(2);
  return `${sign}${digits.replace(/\.?0+$/, "")} ×`;
}

function strongestHere(n) {
  if (!bus.picture) return [];
  const { code } = bus.picture;
  const slots = [...code.ids.keys()].filter((slot) => !code.dense.has(slot));
  return slots
    .sort((a, b) => code.max[b] - code.max[a])
    .slice(0, n)
    .map((slot) => code.ids[slot]);
}

export class Rack {
  constructor(tab) {
    this.tab = tab;
    this.panel = tab.panel;
    this.experiment = tab.experiment;
    this.rackNode = this.panel.find(".pl-rack");
    this.rackRows = new Map();
    // Adding: what fires in the picture when the field is empty, matches while one types.
    this.adder = this.panel.find(".pl-add");
    this.suggestions = this.panel.find(".pl-suggestions");
    this.suggestTurn = 0;
    this.suggestWait = 0;
    this.marked = -1;
    this.listen();
  }

  listen() {
    const back = () => this.restore(this.experiment.undo.back());
    const forward = () => this.restore(this.experiment.undo.forward());
    this.panel.find(".pl-undo").addEventListener("click", back);
    this.panel.find(".pl-redo").addEventListener("click", forward);
    undoByKeys(() => this.panel.isVisible(), back, forward);
    this.adder.placeholder = "Add a concept: name or number, or take one from the picture";
    this.adder.addEventListener("focus", () => this.suggest());
    this.adder.addEventListener("input", () => this.suggest());
    this.adder.addEventListener("blur", () => this.showSuggestions([]));
    this.adder.addEventListener("keydown", (event) => {
      const items = [...this.suggestions.querySelectorAll("[data-latent]")];
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (step && items.length) {
        event.preventDefault();
        this.marked = (this.marked + step + items.length) % items.length;
        items.forEach((item, i) => item.setAttribute("aria-selected", String(i === this.marked)));
      }
      if (event.key === "Enter" && items.length) {
        this.takeSuggestion(Number(items[Math.max(0, this.marked)].dataset.latent));
      }
      if (event.key === "Escape") {
        this.adder.value = "";
        this.adder.blur();
      }
    });
  }

  restore(kept) {
    if (!kept) return;
    const { prompt } = this.experiment.state;
    this.experiment.restore(kept);
    if (this.experiment.state.prompt !== prompt) this.tab.beginAnswer();
    this.learn(this.experiment.state.rows.map((row) => row.latent));
    this.tab.changed();
  }

  nameOfConcept(latent) {
    return notes.word(latent, (this.experiment.known.get(latent) || {}).name);
  }

  async learn(latents) {
    const missing = [...new Set(latents)].filter((latent) => !this.experiment.known.has(latent));
    if (!missing.length) return;
    try {
      const answer = await this.tab.server.ask({ way: "suggest", latents: missing });
      for (const about of answer.found || []) this.experiment.known.set(about.latent, about);
    } catch {
      return;
    }
    this.drawRack();
  }

  // A row lives on while its concept is in the rack: whoever drags or types in it is not interrupted.
  drawRack() {
    const { rows } = this.experiment.state;
    const wanted = new Set(rows.map((row) => row.latent));
    for (const latent of this.rackRows.keys()) if (!wanted.has(latent)) this.rackRows.delete(latent);
    const items = rows.map((row) => {
      const made = this.rackRows.get(row.latent) || this.makeRackRow(row.latent);
      this.fillRackRow(made, row);
      return made.item;
    });
    setChildren(this.rackNode, items);
    const empty = this.panel.find(".pl-rack-empty");
    empty.hidden = rows.length > 0;
    setText(empty, "Nothing is turned yet. Take a concept from the list below, or search for one.");
    const { past, future } = this.experiment.undo; // a disabled button would lose the focus
    this.panel.find(".pl-undo").setAttribute("aria-disabled", String(!past.length));
    this.panel.find(".pl-redo").setAttribute("aria-disabled", String(!future.length));
  }

  rowOf(latent) {
    return this.experiment.state.rows.find((row) => row.latent === latent);
  }

  makeRackRow(latent) {
    const item = make("li", "pl-rack-row");
    const on = make("input");
    const icon = makePicture("pl-mini");
    const name = makeButton("pl-rack-name", "", () => bus.card.open(latent, name));
    const raw = make("small", "pl-raw");
    const where = this.placeChoice(latent);
    const slider = this.doseSlider(latent);
    const number = this.doseField(latent);
    const away = makeButton("pl-quiet pl-remove", "×", (event) => this.removeRow(latent, event.detail === 0));
    on.type = "checkbox";
    on.addEventListener("change", () => this.changeRow(latent, { on: on.checked }));
    const top = make("div", "pl-rack-top");
    const bottom = make("div", "pl-rack-bottom");
    const switchBox = make("label", "pl-check");
    switchBox.append(on);
    top.append(switchBox, icon, name, where, away);
    bottom.append(slider, number, raw);
    item.append(top, bottom);
    const made = { item, on, icon, name, slider, number, raw, where, away };
    this.rackRows.set(latent, made);
    return made;
  }

  placeChoice(latent) {
    const where = make("select", "pl-where pl-input");
    for (const [value, word] of PLACES) {
      if (value === "cls" && !this.tab.limits.has_summary) continue;
      const option = make("option", "", word);
      option.value = value;
      where.append(option);
    }
    where.addEventListener("change", () => this.changeRow(latent, { where: where.value }));
    return where;
  }

  // Under the pointer the slider snaps to nothing near its middle; keys take every step.
  doseSlider(latent) {
    const most = this.experiment.sliderMost;
    const slider = make("input", "pl-dose");
    let held = false;
    Object.assign(slider, { type: "range", min: -most, max: most, step: most / 60 });
    slider.addEventListener("pointerdown", () => {
      held = true;
    });
    slider.addEventListener("keydown", () => {
      held = false;
    });
    slider.addEventListener("input", () => {
      const strength = Number(slider.value);
      this.changeRow(latent, { strength: held && Math.abs(strength) < most / 38 ? 0 : strength });
    });
    return slider;
  }

  doseField(latent) {
    const most = this.experiment.doseMost;
    const number = make("input", "pl-dose-number pl-input");
    Object.assign(number, { type: "number", min: -most, max: most, step: this.experiment.sliderMost / 30 });
    number.addEventListener("change", () => {
      this.changeRow(latent, { strength: Math.max(-most, Math.min(most, Number(number.value) || 0)) });
    });
    return number;
  }

  // A row in words, as on a saved picture.
  editText({ latent, strength }) {
    return `${this.nameOfConcept(latent)} #${latent}  ${doseText(strength)} max`;
  }

  fillRackRow(made, row) {
    const about = this.experiment.known.get(row.latent) || {};
    const label = this.nameOfConcept(row.latent);
    made.item.classList.toggle("pl-off", !row.on);
    made.on.checked = row.on;
    made.on.setAttribute("aria-label", `Switch ${label} on or off`);
    setText(made.name, label);
    made.name.title = `Open the card of concept ${row.latent}`;
    made.slider.setAttribute("aria-label", `Dose of ${label}, in multiples of its maximum`);
    made.slider.setAttribute("aria-valuetext", doseText(row.strength));
    if (Number(made.slider.value) !== row.strength) made.slider.value = row.strength;
    if (document.activeElement !== made.number) made.number.value = row.strength;
    made.number.setAttribute("aria-label", `Dose of ${label} as a number`);
    const unit = this.tab.limits.has_index ? "× max" : "raw";
    setText(made.raw, about.maximum ? `× max = ${(row.strength * about.maximum).toFixed(2)}` : unit);
    made.where.value = row.where;
    made.where.setAttribute("aria-label", `Where ${label} is changed`);
    made.away.setAttribute("aria-label", `Remove ${label}`);
    made.icon.hidden = !this.tab.limits.has_index;
    showPicture(made.icon, about.icon);
  }

  changeRow(latent, change) {
    const row = this.rowOf(latent);
    if (!row) return;
    Object.assign(row, change);
    this.tab.chosen = true;
    this.experiment.keep(latent);
    this.tab.changed();
  }

  // By key, the focus goes to the row that takes its place, or to the question.
  removeRow(latent, byKey) {
    const at = this.experiment.state.rows.findIndex((row) => row.latent === latent);
    this.changeRack((rows) => rows.filter((row) => row.latent !== latent));
    const { rows } = this.experiment.state;
    const next = rows[Math.min(at, rows.length - 1)];
    if (!byKey) return;
    (next ? this.rackRows.get(next.latent).away : this.panel.find(".pl-prompt") || this.adder).focus();
  }

  changeRack(act) {
    this.experiment.state.rows = act(this.experiment.state.rows);
    this.tab.chosen = true;
    this.experiment.keep();
    this.tab.changed();
  }

  addConcept(latent, strength) {
    if (this.tab.isDefault()) this.experiment.state.rows = [];
    if (this.rowOf(latent)) {
      this.changeRow(latent, { on: true });
      const made = this.rackRows.get(latent);
      if (made) made.slider.focus();
      return;
    }
    if (this.experiment.state.rows.length >= this.tab.limits.edits) {
      this.panel.notice(`The rack holds ${this.tab.limits.edits} concepts; remove one first.`);
      return;
    }
    this.learn([latent]);
    this.changeRack((rows) => [...rows, newRow(latent, strength)]);
    this.panel.say(`Added ${this.nameOfConcept(latent)}`);
  }

  showSuggestions(concepts, lead) {
    this.suggestions.replaceChildren();
    this.marked = -1;
    if (lead) this.suggestions.append(make("li", "pl-suggestion-lead", lead));
    for (const about of concepts) {
      this.experiment.known.set(about.latent, { ...this.experiment.known.get(about.latent), ...about });
      const item = make("li", "pl-suggestion");
      const icon = makePicture("pl-mini");
      item.setAttribute("role", "option");
      showPicture(icon, about.icon);
      item.append(
        icon,
        make("span", "", this.nameOfConcept(about.latent)),
        make("small", "pl-number", `#${about.latent}`),
      );
      item.addEventListener("pointerdown", (event) => {
        event.preventDefault();
        this.takeSuggestion(about.latent);
      });
      item.dataset.latent = about.latent;
      this.suggestions.append(item);
    }
    this.suggestions.hidden = !this.suggestions.children.length;
    this.adder.setAttribute("aria-expanded", String(!this.suggestions.hidden));
  }

  takeSuggestion(latent) {
    this.adder.value = "";
    this.showSuggestions([]);
    this.addConcept(latent, 1);
  }

  suggest() {
    clearTimeout(this.suggestWait);
    const text = this.adder.value.trim();
    const turn = ++this.suggestTurn;
    this.suggestWait = setTimeout(() => this.askSuggestions(text, turn), text ? 90 : 0);
  }

  async askSuggestions(text, turn) {
    let answer;
    try {
      answer = await this.tab.server.ask({ way: "suggest", ...(text ? { text } : { latents: strongestHere(10) }) });
    } catch {
      return;
    }
    if (turn !== this.suggestTurn || document.activeElement !== this.adder) return;
    const concepts = answer.found || [];
    const lead = text ? "" : "Strongest in this picture";
    this.showSuggestions(concepts, concepts.length ? lead : NOTHING_CALLED_THAT);
  }
}
