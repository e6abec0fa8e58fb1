// What the model says: texts side by side with changed words marked, next words, the dose ladder.

import { make, makeButton, setText, shareText } from "./dom.js";
import { doseText } from "./steer_rack.js";
import { atDose, editColumn, ladderPlot, probabilityColumn, signed, Tables } from "./steer_tables.js";

const COLUMNS = [
  editColumn,
  [
    "Expected",
    "Change of the word's score (logit) that the gradient foretells, before anything is run",
    (one) => signed(one.predicted),
  ],
  ["Measured", "Change of the word's score (logit) when the model is run with the edit", (one) => signed(one.actual)],
  probabilityColumn("Of the word, without and with the edit"),
];

// A text with the words marked that are not in `other`.
function marked(text, other) {
  return changedWords(text, other).flatMap(([word, isNew], i) => {
    const node = isNew ? make("mark", "pl-changed", word) : word;
    return i ? [" ", node] : [node];
  });
}

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

export function flipSentence({ flip, word, monotonic }) {
  const which = word ? ` to or from “${word}”` : "";
  const flips =
    flip === null ? `None of these strengths changes the text${which}.` : `The text changes${which} ${atDose(flip)}.`;
  if (typeof monotonic !== "boolean") return flips;
  const grows = monotonic ? "never falls with the dose" : "does not simply grow with the dose";
  return `${flips} The word's probability ${grows}.`;
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

export class Answers extends Tables {
  constructor(tab) {
    super(tab, COLUMNS);
    this.texts = Object.fromEntries(this.panel.findAll(".pl-text").map((node) => [node.dataset.row, node]));
    this.shown = { original: "", steered: "", control: "" };
    this.recorded = false;
  }

  sayState(sentence) {
    setText(this.panel.find(".pl-answers .pl-subtitle"), sentence);
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
}
