// One picture through two heads: maps on one scale, predictions, and the margin concept by concept.

import { bus } from "./bus.js";
import {
  amountText,
  make,
  makeButton,
  makePicture,
  plural,
  setChildren,
  setText,
  shareText,
  showPicture,
} from "./dom.js";
import { hinted } from "./hints.js";
import { look } from "./look.js";
import { coverWith } from "./overlay.js";
import { notes } from "./notes.js";

export const LINES = 12;
const GUESSES = 5;
const REASONS = 3;
const POINT_AT = "Point at a concept to see where it fires.";
const UNTOLD = "Nobody has told what this picture is of; both versions know only the task's classes.";
const EXACT = "Shares are exact: from this layer on the path to the score is linear.";
const INTEGRATED =
  "Shares are integrated gradients through the layers behind the SAE; what is left over is shown as not explained.";

const SUMS = {
  start: ["What any picture gives", "What is said with no concept at all, whatever the picture"],
  behind: [
    "Without a name, or always on",
    "Concepts for which no word was found, or that fire nearly everywhere: they say little",
  ],
  rest: ["All other concepts", "Named concepts that are not in the list above"],
  unexplained: ["Not explained by concepts", "What of the picture the concepts do not rebuild"],
  margin: ["Margin", "By how much the first class's score is above that of the second; the lines above add up to it"],
  match: ["Match", "How well the picture fits the words; the lines above add up to it"],
  after: ["… with those switched off", "The same, once the concepts without a tick are taken out"],
};

const signed = (value) => {
  const text = Math.abs(value).toFixed(2);
  return (text === "0.00" ? "" : value > 0 ? "+" : "−") + text;
};

const rowName = (concept) => notes.word(concept.latent, concept.name);

// What the first bar is, and what "not explained" is made of, in words.
function unexplainedParts(heads) {
  const of = (name) => heads.map((head) => signed(head.residual_parts[name])).join(" and ");
  const gap = heads.some((head) => Math.abs(head.residual_parts.gap) >= 0.005)
    ? `, and rounding of the integral ${of("gap")}`
    : "";
  const who = heads.length > 1 ? "each version" : "the model";
  const start = `What any picture gives is what ${who} says with no concept at all.`;
  return `${start} Not explained is what the SAE leaves out (${of("error")})${gap}.`;
}

// Where a box of shares [left, top, right, bottom] lies in its frame.
const placed = ([l, t, r, b]) => ({
  left: `${100 * l}%`,
  top: `${100 * t}%`,
  width: `${100 * (r - l)}%`,
  height: `${100 * (b - t)}%`,
});

function strongestSentence(concept) {
  const amounts = concept.activations.map(amountText);
  const scale = amounts.length > 1 ? ", one scale for both" : "";
  return `${rowName(concept)}: strongest patch ${amounts.join(" and ")}${scale}`;
}

// A class with its probability; `was` are the probabilities before concepts were switched off.
function guessLine(guess, side, was, label) {
  const item = make("li", guess.class === label ? "pl-right" : "");
  const bar = make("span", "pl-guess-bar");
  const fill = make("i", side ? "pl-fill-b" : "pl-fill-a");
  fill.style.width = `${100 * guess.probability}%`;
  bar.append(fill);
  if (was) {
    const ghost = make("em");
    ghost.style.left = `${100 * (was.get(guess.class) || 0)}%`;
    ghost.title = "before";
    bar.append(ghost);
  }
  item.append(make("span", "pl-guess", guess.class), bar, make("b", "", shareText(guess.probability)));
  return item;
}

function bars(shares, most) {
  return shares.map((share, side) => {
    const cell = make("span", "pl-fall-cell");
    const track = make("span", "pl-fall-track");
    const fill = make("i", side ? "pl-fill-b" : "pl-fill-a");
    const width = 50 * Math.min(1, Math.abs(share) / most);
    fill.style.width = `${width}%`;
    fill.style.left = `${share < 0 ? 50 - width : 50}%`;
    cell.setAttribute("role", "cell");
    track.append(fill);
    cell.append(track, make("b", "", signed(share)));
    return cell;
  });
}

function inRole(role, node) {
  node.setAttribute("role", role);
  return node;
}

function sumLine([text, help], shares, most, kind) {
  const line = make("div", `pl-fall-line pl-fall-sum ${kind}`);
  line.setAttribute("role", "row");
  line.append(inRole("cell", make("span")), inRole("rowheader", make("span", "pl-fall-name")));
  line.lastChild.append(hinted(make("span", "", text), help));
  line.append(...bars(shares, most));
  return line;
}

const isPlain = (concept) => Boolean(concept.name || notes.name(concept.latent)) && !concept.always;
const listOf = (names) => names.join(", ").replace(/, ([^,]*)$/, " and $1");

// What speaks most for a head's answer, among concepts that have a name and are not always on.
function reasonsFor(explained, side, sign) {
  return explained.concepts
    .filter((concept) => isPlain(concept) && sign * concept.shares[side] > 0)
    .sort((a, b) => sign * (b.shares[side] - a.shares[side]))
    .slice(0, REASONS)
    .map(rowName);
}

// "MaPLe says monkey, because of a, b and c." For a class outside of the question no reason is known.
export function becauseSentence(explained, side, headName) {
  const says = explained.heads[side].predictions[0].class;
  const { classes } = explained;
  const sign = !classes || says === classes[0] ? 1 : says === classes[1] ? -1 : 0;
  const names = sign ? [...new Set(reasonsFor(explained, side, sign))] : [];
  const score = classes ? `says ${says}` : "fits the words";
  return names.length ? `${headName} ${score}, because of ${listOf(names)}.` : `${headName} ${score}.`;
}

// Said wherever concepts explain less of a score than they leave unexplained, or than any picture gives.
export function unexplainedSentence(explained, side, headName) {
  const { margin, start, residual } = explained.heads[side];
  const concepts = margin - start - residual;
  const most = Math.max(Math.abs(start), Math.abs(residual));
  if (most <= Math.abs(concepts)) return "";
  if (most > Math.abs(residual)) {
    return `${headName} gives ${signed(start)} to any picture and ${signed(concepts)} for the concepts of this one.`;
  }
  const parts = `${signed(concepts)} by concepts, ${signed(residual)} not`;
  return `Most of ${headName}'s score is not explained by concepts (${parts}), so its reasons are weak.`;
}

export class Explanation {
  constructor(tab) {
    this.tab = tab;
    this.panel = tab.panel;
    this.view = tab.view;
    this.lines = new Map();
    this.linesOf = null;
    this.listen();
  }

  // Hovering either picture shows, for the concept in view, the same patch in both.
  listen() {
    const resized = new ResizeObserver(() => this.view.explained && this.drawMaps());
    for (const frame of this.panel.findAll(".pl-one-frame")) {
      resized.observe(frame);
      frame.addEventListener("pointermove", (event) => {
        if (this.view.explained) this.pointAt(event, frame.getBoundingClientRect());
      });
      frame.addEventListener("pointerleave", () => {
        for (const mark of this.panel.findAll(".pl-patch-mark")) mark.remove();
        if (this.view.explained) this.drawMaps();
      });
    }
  }

  pointAt(event, area) {
    const { explained } = this.view;
    const [l, t, r, b] = explained.box;
    const [rows, columns] = explained.grid;
    const column = Math.floor((((event.clientX - area.left) / area.width - l) / (r - l)) * columns);
    const row = Math.floor((((event.clientY - area.top) / area.height - t) / (b - t)) * rows);
    if (row < 0 || column < 0 || row >= rows || column >= columns) return;
    this.markPatch(row, column);
    const concept = this.conceptInView();
    if (concept < 0) return;
    const top = explained.scale[concept] / 255;
    const value = (side) => amountText(this.mapCodes(concept, side)[row * columns + column] * top);
    const where = `${rowName(explained.concepts[concept])} in row ${row + 1}, column ${column + 1}`;
    const values = explained.heads.map((_, side) => value(side)).join(" and ");
    setText(this.panel.find(".pl-map-says"), `${where}: ${values}`);
  }

  // Its number in the list: the one that is pointed at, or else the one that was clicked; -1 for none.
  conceptInView() {
    return this.view.hover >= 0 ? this.view.hover : this.view.locked;
  }

  hover(row) {
    this.view.hover = row;
    this.drawMaps();
  }

  mapCodes(row, side) {
    const { codes, grid, heads } = this.view.explained;
    const cells = grid[0] * grid[1];
    const at = heads.length * row + side;
    return codes.subarray(at * cells, (at + 1) * cells);
  }

  drawMaps() {
    const { explained } = this.view;
    const [rows, columns] = explained.grid;
    const row = this.conceptInView();
    for (const figure of this.panel.findAll(".pl-one")) {
      const canvas = figure.querySelector("canvas");
      Object.assign(canvas.style, placed(explained.box));
      const map = row < 0 ? [] : this.mapCodes(row, Number(figure.dataset.side));
      coverWith(canvas, map, { rows, columns }, { top: 255, opacity: look.opacity });
    }
    setText(this.panel.find(".pl-map-says"), row < 0 ? POINT_AT : strongestSentence(explained.concepts[row]));
  }

  drawGuesses() {
    const { explained, after, label, off } = this.view;
    for (const list of this.panel.findAll(".pl-guesses")) {
      const side = Number(list.dataset.side);
      const plain = explained.heads[side].predictions;
      const now = after ? after.predictions[side] : plain;
      const was = new Map(plain.map((one) => [one.class, one.probability]));
      const lines = now.slice(0, GUESSES).map((guess) => guessLine(guess, side, after ? was : null, label));
      list.replaceChildren(...lines);
    }
    const untold = explained.heads.length > 1 ? UNTOLD : "";
    const truth = label ? `The picture is of: ${label}.` : untold;
    const without = `With ${plural(off.size, "concept", "concepts")} off; the thin mark is where it stood.`;
    setText(this.panel.find(".pl-truth"), after ? `${truth} ${without}`.trim() : truth);
  }

  // The waterfall: what any picture gives, concepts, all others, what stays unexplained; it adds up to the margin.
  drawFall() {
    const { explained, used, shown, off } = this.view;
    const { heads } = explained;
    const pool = explained.concepts
      .map((concept, row) => ({ concept, row }))
      .filter(({ concept }) => used === "all" || concept.used_by === used);
    const ordered = [
      ...pool.filter(({ concept }) => isPlain(concept)),
      ...pool.filter(({ concept }) => !isPlain(concept)),
    ];
    const listed = ordered.slice(0, shown);
    this.drawBecause();
    const shares = explained.concepts.flatMap((concept) => concept.shares);
    const ends = heads.flatMap((head) => [head.start, head.residual]);
    const most = Math.max(1e-6, ...[...shares, ...ends].map(Math.abs));
    const starts = heads.map((head) => head.start);
    const first = sumLine(SUMS.start, starts, most, "pl-any-picture");
    if (this.linesOf !== explained) this.lines.clear();
    this.linesOf = explained;
    const lines = listed.map(({ concept, row }) => this.conceptLine(concept, row, most));
    setChildren(this.panel.find(".pl-fall"), [this.fallHead(), first, ...lines, ...this.sumLines(listed, most)]);
    const more = this.panel.find(".pl-more");
    more.hidden = pool.length <= shown;
    setText(more, `Show ${Math.min(LINES, pool.length - shown)} more of ${pool.length}`);
    this.panel.find(".pl-all-on").hidden = !off.size;
    setText(
      this.panel.find(".pl-why .pl-subtitle"),
      explained.question.charAt(0).toUpperCase() + explained.question.slice(1),
    );
    const method = heads.every((head) => head.exact) ? EXACT : INTEGRATED;
    setText(this.panel.find(".pl-method"), `${method} ${unexplainedParts(heads)}`);
  }

  // Concepts are called otherwise now.
  drawAnew() {
    this.lines.clear();
    this.drawFall();
    this.drawMaps();
  }

  drawBecause() {
    const explained = this.view.explained;
    const names = this.view.heads.map((head) => this.tab.headName(head));
    const sides = [...names.keys()].toReversed();
    const sentences = sides.map((side) => becauseSentence(explained, side, names[side]));
    const doubts = sides.map((side) => unexplainedSentence(explained, side, names[side])).filter(Boolean);
    setText(this.panel.find(".pl-because"), [...sentences, ...doubts].join(" "));
  }

  // Below the listed concepts: what else there is, and what it all adds up to.
  sumLines(listed, most) {
    const { explained, after } = this.view;
    const { heads } = explained;
    const residuals = heads.map((head) => head.residual);
    const margins = heads.map((head) => head.margin);
    const explainedBy = heads.map((head) => head.margin - head.start - head.residual);
    const rest = explainedBy.map((all, side) => listed.reduce((sum, { concept }) => sum - concept.shares[side], all));
    const widest = Math.max(most, ...margins.map(Math.abs));
    const behind = explained.concepts.filter(
      (concept) => !isPlain(concept) && !listed.some((one) => one.concept === concept),
    );
    const unnamed = margins.map((_, side) => behind.reduce((sum, concept) => sum + concept.shares[side], 0));
    const others = rest.map((share, side) => share - unnamed[side]);
    const lines = [
      sumLine(SUMS.behind, unnamed, most, "pl-rest"),
      sumLine(SUMS.rest, others, most, "pl-rest"),
      sumLine(SUMS.unexplained, residuals, most, "pl-unexplained"),
      sumLine(explained.classes ? SUMS.margin : SUMS.match, margins, widest, "pl-total"),
    ];
    if (after) lines.push(sumLine(SUMS.after, after.scores, widest, "pl-total"));
    return lines;
  }

  fallHead() {
    const line = make("div", "pl-fall-line pl-fall-head");
    line.setAttribute("role", "row");
    for (const text of ["On", "Concept", ...this.view.heads.map((head) => this.tab.headName(head))]) {
      const cell = make("span", "", text);
      cell.setAttribute("role", "columnheader");
      line.append(cell);
    }
    return line;
  }

  // An answer's lines live on, so that whoever switches a concept stays at its box.
  conceptLine(concept, row, most) {
    const made = this.lines.get(row) || this.makeConceptLine(concept, row, most);
    const off = this.view.off.has(concept.latent);
    this.lines.set(row, made);
    made.line.classList.toggle("pl-off", off);
    made.line.classList.toggle("pl-locked", this.view.locked === row);
    made.on.checked = !off;
    return made.line;
  }

  makeConceptLine(concept, row, most) {
    const line = make("div", "pl-fall-line");
    const { box, on } = this.onBox(concept);
    const name = make("span", "pl-fall-name");
    const open = makeButton("pl-rack-name", rowName(concept), () => bus.card.open(concept.latent, open));
    const icon = makePicture("pl-mini");
    showPicture(icon, this.view.explained.icons[concept.latent]);
    name.append(icon, open);
    const cell = inRole("cell", make("span"));
    cell.append(box);
    line.append(cell, inRole("rowheader", name), ...bars(concept.shares, most));
    line.setAttribute("role", "row");
    line.addEventListener("pointerenter", () => {
      this.hover(row);
      bus.card.prefetch(concept.latent);
    });
    line.addEventListener("pointerleave", () => this.hover(-1));
    line.addEventListener("focusin", () => this.hover(row));
    line.addEventListener("click", (event) => {
      if (event.target.closest("input, button, label")) return;
      this.view.locked = this.view.locked === row ? -1 : row;
      this.drawFall();
      this.drawMaps();
    });
    return { line, on };
  }

  // The box that switches a concept off and asks both heads again.
  onBox(concept) {
    const box = make("label", "pl-check");
    const on = make("input");
    on.type = "checkbox";
    on.setAttribute("aria-label", `Keep ${rowName(concept)} on`);
    on.title = "Switch this concept off and ask again";
    on.addEventListener("change", () => {
      if (on.checked) this.view.off.delete(concept.latent);
      else this.view.off.add(concept.latent);
      this.drawFall();
      this.tab.askOff();
    });
    box.append(on);
    return { box, on };
  }

  markPatch(row, column) {
    const [l, t, r, b] = this.view.explained.box;
    const [rows, columns] = this.view.explained.grid;
    const left = l + (column * (r - l)) / columns;
    const top = t + (row * (b - t)) / rows;
    for (const frame of this.panel.findAll(".pl-one-frame")) {
      const mark = frame.querySelector(".pl-patch-mark") || frame.appendChild(make("span", "pl-patch-mark"));
      Object.assign(mark.style, placed([left, top, left + (r - l) / columns, top + (b - t) / rows]));
    }
  }
}
