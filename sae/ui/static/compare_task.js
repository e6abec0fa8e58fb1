// The whole task: accuracies, where the gain comes from, the scatter of counts, masking curves.

import { bus } from "./bus.js";
import { colour, make, setText, shareText, svg } from "./dom.js";

// Curves of masking: key, words, dashes, class of the colour.
const FAMILIES = [
  ["oracle", "true class (oracle)", "", "pl-curve-oracle"],
  ["predicted", "predicted class", "6 4", "pl-curve-predicted"],
  ["dataset", "whole data set's", "2 3", "pl-curve-dataset"],
  ["random", "random", "8 3 2 3", "pl-curve-random"],
];
const WIDTH = 360;
const HEIGHT = 128;
const LEFT = 42;
const BOTTOM = 22;
const EDGE = 26;

function accuracyText({ mean, std }) {
  return std ? `${(100 * mean).toFixed(1)} ± ${percent(std)}` : percent(mean);
}

// Does keeping only concepts that fired before say more than switching off as much of any others?
function chanceText({ per_token: found, removed }) {
  const [existing, random, difference] = ["existing", "random", "difference"].map((name) => found[name]);
  let verdict = "the two cannot be told apart, so it does not matter which concepts are new";
  if (difference[2] < 0) verdict = "the new concepts matter more than chance";
  if (difference[1] > 0) verdict = "the new concepts matter less than chance";
  const [seeds, off] = [found.seeds, removed["new mass"].reduce((sum, part) => sum + part, 0) / found.seeds];
  return (
    `Its control: over ${seeds} ${seeds > 1 ? "trainings" : "training"} and ${found.images} pictures that leaves ` +
    `${withInterval(existing)} of the gain, and switching off random concepts ` +
    `that weigh as much (${percent(off)} of the ` +
    `activation) leaves ${withInterval(random)}: ${verdict}. In brackets: 95 % intervals.`
  );
}

const rounded = (value) => Math.round(100 * value);
const withInterval = ([value, low, high]) => `${rounded(value)} % (${rounded(low)} to ${rounded(high)})`;
const percent = (value) => `${(100 * value).toFixed(1)} %`;

function curveOf(masked) {
  const { ks, curves, plain } = masked;
  const x = (k) => LEFT + ((WIDTH - LEFT - 8) * Math.log(k)) / Math.log(ks.at(-1));
  const y = (value) => 8 + (HEIGHT - BOTTOM - 8) * (1 - value);
  const plot = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "pl-curve", role: "img" });
  plot.setAttribute("aria-label", FAMILIES.map(([key, text]) => `${text}: ${curveText(masked, key)}`).join("; "));
  plot.append(svg("line", { x1: LEFT, x2: WIDTH - 8, y1: y(plain), y2: y(plain), class: "pl-curve-plain" }));
  const write = (text, attributes) => {
    const label = svg("text", attributes);
    label.textContent = text;
    plot.append(label);
  };
  for (const value of [0, 0.5, 1]) write(`${100 * value} %`, { x: LEFT - 5, y: y(value) + 4, "text-anchor": "end" });
  const marks = [ks[0], ks[Math.floor(ks.length / 2)], ks.at(-1)];
  marks.forEach((k, i) => write(`top ${k}`, { x: x(k), y: HEIGHT - 6, "text-anchor": ["start", "middle", "end"][i] }));
  FAMILIES.forEach(([key, , dashes, name]) => {
    const values = curves[`${key}/none/on`];
    if (!values) return;
    const points = ks.map((k, i) => `${x(k)},${y(values[i])}`).join(" ");
    plot.append(svg("polyline", { points, class: `pl-curve-family ${name}`, "stroke-dasharray": dashes }));
  });
  return plot;
}

function curveText({ ks, curves }, key) {
  const values = curves[`${key}/none/on`] || [];
  return ks.map((k, i) => `top ${k} ${shareText(values[i] || 0)}`).join(", ");
}

function curveLegend() {
  const legend = make("ul", "pl-curve-legend");
  for (const [, text, dashes, name] of FAMILIES) {
    const item = make("li");
    const sample = svg("svg", { viewBox: "0 0 26 6", width: 26, height: 6 });
    const line = { x1: 0, x2: 26, y1: 3, y2: 3, class: `pl-curve-family ${name}`, "stroke-dasharray": dashes };
    sample.append(svg("line", line));
    item.append(sample, text);
    legend.append(item);
  }
  return legend;
}

// The scatter's diagonal, its two axes and what they stand for.
function drawAxes(context, size) {
  context.strokeStyle = colour("line");
  context.beginPath();
  context.moveTo(EDGE, size - EDGE);
  context.lineTo(size - 14, 14);
  context.moveTo(EDGE, 10);
  context.lineTo(EDGE, size - EDGE);
  context.lineTo(size - 10, size - EDGE);
  context.stroke();
  context.fillStyle = colour("soft");
  context.font = "11px system-ui, sans-serif";
  context.fillText("count, first (log)", size - 104, size - 10);
  context.save();
  context.translate(14, 110);
  context.rotate(-Math.PI / 2);
  context.fillText("count, second (log)", 0, 0);
  context.restore();
}

export class WholeTask {
  constructor(tab) {
    this.tab = tab;
    this.panel = tab.panel;
    this.view = tab.view;
    this.reference = tab.props.setup.reference;
    this.scatter = { points: [], names: {}, classes: [], canvas: this.panel.find(".pl-scatter"), low: 1, top: 2 };
    this.tipOfScatter = this.panel.find(".pl-scatter-box .pl-tip");
    this.listen();
  }

  listen() {
    this.scatter.canvas.addEventListener("pointermove", (event) => {
      const point = this.scatterPick(event);
      this.tipOfScatter.hidden = !point;
      if (!point) return;
      const size = this.scatter.canvas.clientWidth;
      const [label, latent, first, second] = point;
      const name = this.scatter.names[latent] || `Concept ${latent}`;
      setText(this.tipOfScatter, `${name} in “${this.scatter.classes[label]}”: ${first} → ${second}`);
      this.tipOfScatter.style.left = `${Math.max(90, Math.min(size - 90, this.place(first, size)))}px`;
      this.tipOfScatter.style.top = `${size - this.place(second, size) + 12}px`;
    });
    this.scatter.canvas.addEventListener("pointerleave", () => {
      this.tipOfScatter.hidden = true;
    });
    this.scatter.canvas.addEventListener("click", (event) => {
      const point = this.scatterPick(event);
      if (point) bus.card.open(point[1], this.scatter.canvas);
    });
    new ResizeObserver(() => {
      if (this.scatter.points.length) this.drawScatter();
    }).observe(this.scatter.canvas);
  }

  drawAccuracies() {
    const task = this.tab.taskNow();
    const box = this.panel.find(".pl-accuracies");
    const table = make("table", "pl-table");
    const head = make("tr");
    for (const text of ["Version", "trained on", "new"]) {
      const cell = make("th", "", text);
      cell.scope = "col";
      head.append(cell);
    }
    table.append(head);
    for (const one of task.heads) {
      const row = make("tr", this.view.heads.includes(one.name) ? "pl-chosen" : "");
      const name = make("th", "", this.tab.headName(one.name));
      const accuracy = one.accuracy || {};
      name.scope = "row";
      row.append(name);
      for (const split of ["base", "novel"]) {
        row.append(make("td", "", accuracy[split] ? accuracyText(accuracy[split]) : "–"));
      }
      table.append(row);
    }
    box.replaceChildren(table);
  }

  async drawTask() {
    this.drawAccuracies();
    const head = this.view.heads.find((name) => name !== this.reference);
    const whole = this.panel.find(".pl-whole-subtitle");
    const answer = head ? await this.panel.ask({ way: "task", task: this.view.task, head }) : null;
    const results = answer && answer.results;
    for (const node of [".pl-scatter-box", ".pl-curves"]) this.panel.find(node).parentElement.hidden = !results;
    this.panel.find(".pl-gain").replaceChildren();
    if (!results) {
      setText(
        whole,
        head
          ? "Nobody has measured this version over the whole task."
          : "Choose a tuned version to see what it changed over the whole task.",
      );
      this.scatter.points = [];
      return;
    }
    const pair = `${this.tab.headName(this.reference)} against ${this.tab.headName(head)}`;
    setText(whole, `${pair}, over ${results.base.gain.n_images} test pictures`);
    this.drawGain(results);
    this.scatter.names = answer.names;
    this.scatter.classes = results.base.scatter.class_names;
    this.scatter.points = results.base.scatter.points;
    this.drawScatter();
    this.drawCurves(results.masking, head);
  }

  drawGain(results) {
    const { gain, overlap, correlation } = results.base;
    const list = this.panel.find(".pl-gain");
    const line = (text) => list.append(make("li", "", text));
    line(`From ${percent(gain.first)} to ${percent(gain.second)} on the classes trained on.`);
    const part = (way, accuracy, share) => {
      if (share === null) return;
      line(`${way} reaches ${percent(accuracy)}: ${Math.round(100 * share)} % of the gain.`);
    };
    part("Reading the untouched activations as the tuned version does", gain.remapped, gain.remapped_share);
    part("Keeping only concepts that fired before as well", gain.existing, gain.existing_share);
    const { chance } = results.base;
    if (chance && chance.per_token.difference) line(chanceText(chance));
    const { high, high_to_low: before, low_to_high: after } = overlap;
    const only = `${before.toFixed(2)} only before, ${after.toFixed(2)} only after`;
    line(`Per class, ${high.toFixed(1)} concepts are frequent in both models, ${only}.`);
    line(`Counts over all classes correlate at ${correlation.toFixed(3)}.`);
  }

  // Counts on a logarithmic axis; what never fired in one of the models lies on its edge.
  place(count, size) {
    const { low, top } = this.scatter;
    const share = Math.log(Math.max(count, 1e-9) / low) / Math.log(top / low);
    return EDGE + (size - EDGE - 14) * Math.max(0, share);
  }

  drawScatter() {
    const { canvas, points } = this.scatter;
    const size = canvas.clientWidth;
    if (!size) return;
    Object.assign(canvas, { width: size * devicePixelRatio, height: size * devicePixelRatio });
    const counts = points.flatMap((point) => [point[2], point[3]]).filter((count) => count > 0);
    this.scatter.top = Math.max(2, ...counts);
    this.scatter.low = Math.min(this.scatter.top / 2, ...counts) / 1.15;
    const context = canvas.getContext("2d");
    context.scale(devicePixelRatio, devicePixelRatio);
    drawAxes(context, size);
    const [soft, more, less] = ["soft", "second", "first"].map(colour);
    for (const [, , first, second] of points) {
      const even = Math.abs(second - first) <= 0.25 * Math.max(first, second);
      context.beginPath();
      context.arc(this.place(first, size), size - this.place(second, size), 3, 0, 7);
      context.fillStyle = even ? soft : second > first ? more : less;
      context.globalAlpha = even ? 0.35 : 0.8;
      context.fill();
    }
    const what = "concepts by class: how often they fire in the first and the second model";
    canvas.setAttribute("aria-label", `${points.length} ${what}`);
  }

  scatterPick(event) {
    const area = this.scatter.canvas.getBoundingClientRect();
    const x = event.clientX - area.left;
    const y = event.clientY - area.top;
    let best = null;
    let nearest = 144;
    for (const point of this.scatter.points) {
      const far =
        (this.place(point[2], area.width) - x) ** 2 + (area.width - this.place(point[3], area.width) - y) ** 2;
      if (far < nearest) {
        nearest = far;
        best = point;
      }
    }
    return best;
  }

  drawCurves(masking, head) {
    const box = this.panel.find(".pl-curves");
    box.replaceChildren();
    for (const name of [this.reference, head]) {
      const masked = masking && masking[name];
      if (masked) box.append(make("h4", "pl-curve-title", this.tab.headName(name)), curveOf(masked));
    }
    box.append(curveLegend());
  }
}
