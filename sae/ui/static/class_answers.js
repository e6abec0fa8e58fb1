// What a classifier says: a bar a class, as it is, with the changes, and with the control; and the dose ladder.

import { make, makeButton, setChildren, setText, shareText } from "./dom.js";
import { doseText } from "./steer_rack.js";
import { atDose, editColumn, ladderPlot, probabilityColumn, Tables } from "./steer_tables.js";

const COLUMNS = [editColumn, probabilityColumn("Of the class, without and with the edit")];
const KINDS = ["before", "after", "control"];

const SURE = 0.5;

// Of a class that has less than half of the probability it is said that the model is not sure.
export function saidSentence({ original, steered, control, classes }) {
  if (control === null) {
    const said = classes[0].before >= SURE ? `It says ${original}.` : `It is not sure; ${original} is likeliest.`;
    return `${said} Turn a concept and watch the bars.`;
  }
  const [{ before, after, control: random }] = classes;
  if (steered === original) {
    const now = `Still ${original}, with ${shareText(after)} instead of ${shareText(before)}`;
    return `${now}; a random change of the same size gives ${shareText(random)}.`;
  }
  const now = `It says ${steered} instead of ${original}`;
  return control === original
    ? `${now}. A random change of the same size does not do that.`
    : `${now}; but a random change of the same size says ${control}, so this says little.`;
}

// The same in a few words, beside the rack where the bars are out of sight.
export function shortSentence({ original, steered, control, classes }) {
  if (control === null) return "";
  const [{ before, after }] = classes;
  const said = steered === original ? "" : ` Now it says ${steered}.`;
  return `${original}: ${shareText(before)} → ${shareText(after)}.${said}`;
}

export function classFlip({ flip, original }) {
  if (flip === null) return `At none of these strengths it says anything else than ${original}.`;
  return `It says something else than ${original} ${atDose(flip)}.`;
}

export class ClassAnswers extends Tables {
  constructor(tab) {
    super(tab, COLUMNS);
    this.list = this.panel.find(".pl-class-bars");
    this.rows = new Map();
    this.shown = null;
  }

  // A class keeps its row, so that bars move and nothing jumps.
  drawBars(answer) {
    this.shown = answer;
    const wanted = new Set(answer.classes.map((one) => one.name));
    for (const name of this.rows.keys()) if (!wanted.has(name)) this.rows.delete(name);
    setChildren(
      this.list,
      answer.classes.map((one) => this.fill(this.rows.get(one.name) || this.makeRow(one.name), one)),
    );
    const turned = answer.control !== null;
    this.list.classList.toggle("pl-turned", turned);
    this.panel.find(".pl-class-key").hidden = !turned;
    setText(this.panel.find(".pl-answers .pl-subtitle"), saidSentence(answer));
    setText(this.panel.find(".pl-now"), shortSentence(answer));
    this.drawGauge(answer.relative_change);
  }

  makeRow(name) {
    const item = make("li", "pl-class");
    const track = make("span", "pl-class-track");
    const bars = KINDS.map((kind) => {
      const bar = make("i", `pl-class-${kind}`);
      track.append(bar);
      return bar;
    });
    const amount = make("span", "pl-amount");
    item.append(make("b", "", name), track, amount);
    const made = { item, bars, amount };
    this.rows.set(name, made);
    return made;
  }

  fill({ item, bars, amount }, one) {
    KINDS.forEach((kind, i) => {
      bars[i].hidden = one.control === null && kind !== "before";
      bars[i].style.transform = `scaleX(${(one[kind] || 0).toFixed(4)})`;
    });
    const { before, after } = one;
    const both = `${shareText(before)} → ${shareText(after)}`;
    setText(amount, one.control === null ? shareText(before) : both);
    const control = one.control === null ? "" : `; with the random change ${shareText(one.control)}`;
    amount.title = one.control === null ? "" : `${both}${control}`;
    return item;
  }

  drawLadder(ladder, of) {
    this.ladderOf = { ...of, doses: ladder.doses.map((one) => one.dose) };
    const list = make("ol", "pl-rungs");
    list.append(...ladder.doses.map((one) => this.rung(one, ladder.original)));
    const withWord = ladder.doses.some((one) => one.p_word !== null);
    const plot = withWord ? [ladderPlot(ladder.doses, meant(ladder.word, ladder.means))] : [];
    this.panel.find(".pl-ladder").replaceChildren(...plot, list, make("p", "pl-note", classFlip(ladder)));
    this.dropStale();
  }

  // A dose with what the model says at it; a click takes it.
  rung(one, original) {
    const item = make("li");
    const go = makeButton("pl-rung", "", () => this.scaleRack(one.dose));
    go.title = "Take this strength";
    go.append(
      make("b", "", doseText(one.dose)),
      make("span", one.best === original ? "pl-rung-text pl-soft" : "pl-rung-text", one.best),
      make("small", "", shareText(one.p_best)),
    );
    item.append(go);
    return item;
  }

  drawCandidates(answer, of) {
    super.drawCandidates({ ...answer, word: meant(answer.word, answer.means) }, of);
  }
}

// A word that stands for several classes says so.
function meant(word, means) {
  return means.length > 1 ? `${word} (${means.length} classes)` : means[0] || word;
}
