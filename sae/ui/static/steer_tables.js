// What both forms of the Steer tab list below their answers: the dose ladder, and the concepts that would do it.

import { bus } from "./bus.js";
import { make, makeButton, makePicture, setText, shareText, showPicture, svg } from "./dom.js";
import { hinted } from "./hints.js";
import { doseText } from "./steer_rack.js";
import { ofRegion } from "./steer_state.js";

const WIDTH = 420;
const HEIGHT = 120;
const PAD = 26;

const STRONG = 0.6; // an edit of more than this share of the activations is far from what the model knows

const isOff = ({ mode, strength }) => mode === "ablate" || (mode === "set" && strength === 0);

export const editColumn = ["Edit", "", ({ edit }) => (isOff(edit) ? "off" : doseText(edit.strength))];
export const probabilityColumn = (help) => [
  "Probability",
  help,
  ({ before, after }) => `${shareText(before)} → ${shareText(after)}`,
];
export const signed = (value) => (value > 0 ? "+" : "") + value.toFixed(2);

// A multiple of the rack in words: what is below nothing turns every concept the other way.
export function atDose(dose) {
  const size = Math.abs(dose);
  const way = dose < 0 ? "with all strengths of the list reversed" : "at the strengths of the list";
  return size === 1 ? way : `${way}, times ${doseText(size).replace(/[+ ×]/g, "")}`;
}

// The probability of a word at every dose and, of a text, how fluent it is.
export function ladderPlot(doses, word) {
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
  const ofText = doses.every((one) => "fluency" in one);
  if (ofText) line("fluency", "pl-curve-fluency");
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
  legend.textContent = `— probability of “${word}”${ofText ? "   ┄ fluency" : ""}`;
  plot.append(legend);
  return plot;
}

function noneDoesIt(candidates, word, less) {
  const [best] = candidates;
  const hardly = less && best && best.before < 0.01;
  if (hardly) return `The model would hardly say “${word}” here: ${shareText(best.before)}.`;
  const way = less ? "keeps it from saying" : "makes it say";
  const reach = best ? `; the best brings the word from ${shareText(best.before)} to ${shareText(best.after)}` : "";
  return `No single concept ${way} “${word}” here${reach}.`;
}

export class Tables {
  // `columns`: title, help and text of a candidate, after its concept.
  constructor(tab, columns) {
    Object.assign(this, { tab, columns });
    this.panel = tab.panel;
    this.experiment = tab.experiment;
    this.ladderOf = null; // what the ladder and the list of concepts on screen were asked of
    this.candidatesOf = null;
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

  scaled(rows, dose) {
    const most = this.experiment.doseMost;
    const within = (strength) => Math.max(-most, Math.min(most, Number((strength * dose).toFixed(3))));
    return rows.map((row) => ({ ...row, strength: within(row.strength) }));
  }

  scaleRack(dose) {
    const { rows } = this.ladderOf;
    this.tab.rack.changeRack(() => this.scaled(rows, dose));
  }

  drawGauge(share) {
    const strong = share > STRONG;
    const far = strong ? ": far from anything the model has seen" : "";
    const changes = `The edit changes the activations by ${Math.round(100 * share)} % of their size${far}`;
    setText(this.panel.find(".pl-gauge-text"), share > 0 ? changes : "Nothing is changed");
    this.panel.find(".pl-gauge").classList.toggle("pl-strong", strong);
    this.panel.find(".pl-gauge .pl-meter i").style.transform = `scaleX(${Math.min(1, share).toFixed(3)})`;
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
      for (const [title, help] of [["Concept", ""], ...this.columns]) {
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

  candidate(one) {
    const { latent, name, maximum, icon, edit } = one;
    this.experiment.known.set(latent, { latent, name, maximum, icon });
    const off = isOff(edit);
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
    row.append(cell, ...this.columns.map(([, , text]) => make("td", "", text(one))));
    return row;
  }
}
