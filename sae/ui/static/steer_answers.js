// What the model says: texts side by side with changed words marked, next words, the dose ladder.

import { bus } from "./bus.js";
import { make, makeButton, makePicture, setText, shareText, showPicture, svg } from "./dom.js";
import { hinted } from "./hints.js";
import { doseText } from "./steer_rack.js";
import { ofRegion } from "./steer_state.js";

const WIDTH = 420;
const HEIGHT = 120;
const PAD = 26;
const STRONG = 0.6; // an edit of more than this share of the activations is far from what the model knows
const CANDIDATE_COLUMNS = [
  ["Concept", ""],
  ["Edit", ""],
  ["Expected", "Change of the word's score (logit) that the gradient foretells, before anything is run"],
  ["Measured", "Change of the word's score (logit) when the model is run with the edit"],
  ["Probability", "Of the word, without and with the edit"],
];

function ladderPlot(doses, word) {
  const plot = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "pl-curve", role: "img" });
  const low = Math.min(...doses.map((one) => one.dose));
  const high = Math.max(...doses.map((one) => one.dose));
  const x = (dose) => PAD + ((dose - low) / (high - low || 1)) * (WIDTH - 2 * PAD);
  const y = (p) => HEIGHT - PAD - p * (HEIGHT - 2 * PAD + 8);
  const spoken = doses.map((one) => `${doseText(one.dose)} ${shareText(one.p_word)}`).join(", ");
  plot.setAttribute("aria-label", `Probability of “${word}” by dose: ${spoken}`);
  plot.append(svg("line", { x1: PAD, x2: WIDTH - PAD, y1: y(0), y2: y(0), class: "pl-curve-axis" }));
  const line = (key, name) => {
    const points = doses.map((one) => `${x(one.dose)},${y(one[key])}`).join(" ");
    plot.append(svg("polyline", { points, class: name }));
  };
  line("fluency", "pl-curve-fluency");
  line("p_word", "pl-curve-line");
  for (const one of doses) {
    const dot = svg("circle", { cx: x(one.dose), cy: y(one.p_word), r: 4.5, class: "pl-curve-dot" });
    const label = svg("text", { x: x(one.dose), y: HEIGHT - 8, "text-anchor": "middle" });
    const title = svg("title", {});
    label.textContent = doseText(one.dose);
    title.textContent = shareText(one.p_word);
    dot.append(title);
    plot.append(dot, label);
  }
  const legend = svg("text", { x: PAD, y: 12 });
  legend.textContent = `— probability of “${word}”   ┄ fluency`;
  plot.append(legend);
  return plot;
}

// A text with the words marked that are not in `other`.
function marked(text, other) {
  return changedWords(text, other).flatMap(([word, isNew], i) => {
    const node = isNew ? make("mark", "pl-changed", word) : word;
    return i ? [" ", node] : [node];
  });
}

const signed = (value) => (value > 0 ? "+" : "") + value.toFixed(2);

export const WRITING = "writing …";
export const RECORDED = "an answer from before, kept with the page; the live one is being written";

export function changeSentence(shown, { writing, recorded }) {
  if (writing) return WRITING;
  if (!shown.control) return "No concept is turned, so there is one text.";
  if (recorded) return RECORDED;
  if (shown.steered === shown.original) return "The text is the same.";
  return shown.control === shown.original
    ? "Changed; the control did not change it."
    : "Changed, but a random concept changed it too, so the edit says little.";
}

// A multiple of the rack in words: what is below nothing turns every concept the other way.
function atDose(dose) {
  const size = Math.abs(dose);
  const way = dose < 0 ? "with all strengths of the list reversed" : "at the strengths of the list";
  return size === 1 ? way : `${way}, times ${doseText(size).replace(/[+ ×]/g, "")}`;
}

export function flipSentence({ flip, word, monotonic }) {
  const which = word ? ` to or from “${word}”` : "";
  const flips =
    flip === null ? `None of these strengths changes the text${which}.` : `The text changes${which} ${atDose(flip)}.`;
  if (typeof monotonic !== "boolean") return flips;
  const grows = monotonic ? "never falls with the dose" : "does not simply grow with the dose";
  return `${flips} The word's probability ${grows}.`;
}

function noneDoesIt(candidates, word, less) {
  const [best] = candidates;
  const hardly = less && best && best.before < 0.01;
  if (hardly) return `The model would hardly say “${word}” here: ${shareText(best.before)}.`;
  const way = less ? "keeps it from saying" : "makes it say";
  const reach = best ? `; the best brings the word from ${shareText(best.before)} to ${shareText(best.after)}` : "";
  return `No single concept ${way} “${word}” here${reach}.`;
}

// Words of `text` that are not in `other` in this order: [[word, changed], …] (longest common part).
function changedWords(text, other) {
  const a = text.split(/\s+/).filter(Boolean);
  const b = other.split(/\s+/).filter(Boolean);
  const best = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      best[i][j] = a[i] === b[j] ? best[i + 1][j + 1] + 1 : Math.max(best[i + 1][j], best[i][j + 1]);
    }
  }
  const out = [];
  for (let i = 0, j = 0; i < a.length; i++) {
    while (j < b.length && a[i] !== b[j] && best[i][j + 1] >= best[i + 1][j]) j++;
    const same = j < b.length && a[i] === b[j];
    out.push([a[i], !same]);
    if (same) j++;
  }
  return out;
}

export class Answers {
  constructor(tab) {
    this.tab = tab;
    this.panel = tab.panel;
    this.texts = Object.fromEntries(this.panel.findAll(".pl-text").map((node) => [node.dataset.row, node]));
    this.experiment = tab.experiment;
    this.shown = { original: "", steered: "", control: "" };
    this.recorded = false;
    this.ladderOf = null; // what the ladder and the list of concepts on screen were asked of
    this.candidatesOf = null;
  }

  sayState(sentence) {
    setText(this.panel.find(".pl-answers .pl-subtitle"), sentence);
  }

  // What the ladder depends on; a rung only scales its rows.
  ladderQuestion() {
    const { prompt, rows, errorTerm } = this.experiment.state;
    const patches = rows.some(ofRegion) && bus.picture ? bus.picture.patches() : [];
    const kept = rows.map((row) => ({ ...row }));
    return { picture: bus.picture, rest: JSON.stringify([prompt, errorTerm, patches]), rows: kept };
  }

  candidatesQuestion() {
    return { picture: bus.picture, rest: JSON.stringify([this.experiment.state.prompt, this.tab.answerStart()]) };
  }

  // Takes away what was an answer to something else than what is asked now.
  dropStale() {
    const { ladderOf, candidatesOf } = this;
    if (ladderOf && !this.isRung(ladderOf, this.ladderQuestion())) {
      this.ladderOf = null;
      this.panel.find(".pl-ladder").replaceChildren(make("p", "pl-note", "Something has changed since. Run it again."));
    }
    const asked = this.candidatesQuestion();
    if (candidatesOf && (candidatesOf.picture !== asked.picture || candidatesOf.rest !== asked.rest)) {
      this.dropCandidates();
    }
  }

  dropCandidates() {
    this.candidatesOf = null;
    this.panel.find(".pl-would-list").replaceChildren();
  }

  isRung(of, now) {
    const rows = (dose) => JSON.stringify(this.scaled(of.rows, dose));
    const same = of.picture === now.picture && of.rest === now.rest;
    return same && [1, ...(of.doses || [])].some((dose) => rows(dose) === JSON.stringify(now.rows));
  }

  drawAnswers(answers, how = {}) {
    this.shown = { original: answers.original, steered: answers.steered, control: answers.control || "" };
    const { original, steered, control } = this.shown;
    this.texts.original.textContent = original;
    this.texts.steered.replaceChildren(...marked(steered, original));
    this.texts.control.replaceChildren(...marked(control, original));
    this.panel.find(".pl-answers").classList.toggle("pl-writing", Boolean(how.writing));
    this.recorded = Boolean(how.recorded);
    this.sayState(changeSentence(this.shown, how));
    const random = answers.control_latent;
    const title = Number.isInteger(random) ? `Control: ${this.tab.rack.nameOfConcept(random)}` : "Control";
    setText(this.panel.find(".pl-control-title"), title);
  }

  drawGauge(share) {
    const strong = share > STRONG;
    const far = strong ? ": far from anything the model has seen" : "";
    const changes = `The edit changes the activations by ${Math.round(100 * share)} % of their size${far}`;
    setText(this.panel.find(".pl-gauge-text"), share > 0 ? changes : "Nothing is changed");
    this.panel.find(".pl-gauge").classList.toggle("pl-strong", strong);
    this.panel.find(".pl-gauge .pl-meter i").style.transform = `scaleX(${Math.min(1, share).toFixed(3)})`;
  }

  drawNext(next) {
    const box = this.panel.find(".pl-next");
    box.replaceChildren();
    const most = Math.max(0.02, ...[...next.gained, ...next.lost].map((one) => Math.abs(one.after - one.before)));
    for (const [title, list, sign] of [
      ["Gains", next.gained, 1],
      ["Loses", next.lost, -1],
    ]) {
      const column = make("div", "pl-next-column");
      const rowsOf = make("ol");
      column.append(make("h4", "", title), rowsOf);
      for (const one of list.slice(0, 6)) {
        const change = one.after - one.before;
        const item = make("li");
        const bar = make("span", "pl-change");
        const fill = make("i");
        if (Math.abs(change) < 0.0005) continue;
        fill.style.width = `${(100 * Math.abs(change)) / most}%`;
        fill.className = sign > 0 ? "pl-up" : "pl-down";
        bar.append(fill);
        item.append(
          make("b", "", one.text),
          bar,
          make("span", "pl-amount", `${shareText(one.before)} → ${shareText(one.after)}`),
        );
        rowsOf.append(item);
      }
      if (!rowsOf.children.length) column.append(make("p", "pl-note", sign > 0 ? "No word gains." : "No word loses."));
      box.append(column);
    }
    this.drawGauge(next.relative_change || 0);
  }

  // `of`: the question that it answers; what has changed meanwhile takes it away again.
  drawLadder(ladder, of) {
    this.ladderOf = { ...of, doses: ladder.doses.map((one) => one.dose) };
    const list = make("ol", "pl-rungs");
    list.append(...ladder.doses.map((one) => this.rung(one, ladder.original)));
    const withWord = ladder.doses.some((one) => one.p_word !== null);
    const plot = withWord ? [ladderPlot(ladder.doses, ladder.word)] : [];
    this.panel.find(".pl-ladder").replaceChildren(...plot, list, make("p", "pl-note", flipSentence(ladder)));
    this.dropStale();
  }

  // A dose with what the model writes at it; a click takes it.
  rung(one, original) {
    const item = make("li");
    const go = makeButton("pl-rung", "", () => this.scaleRack(one.dose));
    const text = make("span", one.caption === original ? "pl-rung-text pl-soft" : "pl-rung-text");
    const like = one.similarity === null ? "" : ` · like the word ${one.similarity.toFixed(2)}`;
    text.append(...marked(one.caption, original));
    go.title = "Take this strength. Fluency, from 0 to 1: how sure the model was of its words, less for repeats";
    go.append(make("b", "", doseText(one.dose)), text, make("small", "", `fluency ${one.fluency.toFixed(2)}${like}`));
    item.append(go);
    return item;
  }

  scaled(rows, dose) {
    const most = this.experiment.doseMost;
    const within = (strength) => Math.max(-most, Math.min(most, Number((strength * dose).toFixed(3))));
    return rows.map((row) => ({ ...row, strength: within(row.strength) }));
  }

  scaleRack(dose) {
    const { rows } = this.ladderOf;
    this.tab.rack.changeRack(() => this.scaled(rows, dose));
  }

  drawCandidates({ found: candidates, word, less }, of) {
    const box = this.panel.find(".pl-would-list");
    this.candidatesOf = of;
    this.dropStale();
    if (!this.candidatesOf) return;
    const parts = candidates.some((one) => one.does) ? [] : [make("p", "pl-note", noneDoesIt(candidates, word, less))];
    if (candidates.length) {
      const table = make("table", "pl-table");
      const head = make("tr");
      for (const [title, help] of CANDIDATE_COLUMNS) {
        const cell = make("th");
        cell.scope = "col";
        cell.append(help ? hinted(make("span", "", title), help) : title);
        head.append(cell);
      }
      table.append(head, ...candidates.map((one) => this.candidate(one)));
      parts.push(table);
    }
    box.replaceChildren(...parts);
  }

  candidate({ latent, name, maximum, icon, edit, predicted, actual, before, after }) {
    this.experiment.known.set(latent, { latent, name, maximum, icon });
    const off = edit.mode === "ablate";
    const row = make("tr");
    const cell = make("th");
    const image = makePicture("pl-mini");
    const take = makeButton("pl-rack-name", this.tab.rack.nameOfConcept(latent), () =>
      this.tab.rack.addConcept(latent, off ? 0 : edit.strength),
    );
    cell.scope = "row";
    showPicture(image, icon);
    take.title = "Put it into the rack";
    cell.append(image, take);
    const change = `${shareText(before)} → ${shareText(after)}`;
    const figures = [off ? "off" : doseText(edit.strength), signed(predicted), signed(actual), change];
    row.append(cell, ...figures.map((text) => make("td", "", text)));
    return row;
  }
}
