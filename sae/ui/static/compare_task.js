// The whole task: accuracies, where the gain comes from, the scatter of counts, masking curves.

import { bus } from "./bus.js";
import { headName } from "./compare_explain.js";
import { make, setText, shareText, svg } from "./dom.js";

const FAMILIES = [
  ["oracle", "true class (oracle)"],
  ["predicted", "predicted class"],
  ["dataset", "whole data set's"],
  ["random", "random"],
];

const DASHES = ["", "6 4", "2 3", "8 3 2 3"];

const SHADES = ["#0072b2", "#d55e00", "#009e73", "#7f7f7f"];

function curveOf(found) {
  const width = 360;
  const height = 128;
  const left = 42;
  const bottom = 22;
  const plot = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "pl-curve", role: "img" });
  const last = Math.log(found.ks[found.ks.length - 1]);
  const x = (k) => left + ((width - left - 8) * Math.log(k)) / last;
  const y = (value) => 8 + (height - bottom - 8) * (1 - value);
  plot.setAttribute(
    "aria-label",
    FAMILIES.map(
      ([key, text]) =>
        `${text}: ${found.ks.map((k, i) => `top ${k} ${shareText((found.curves[`${key}/none/on`] || [])[i] || 0)}`).join(", ")}`,
    ).join("; "),
  );
  plot.append(
    svg("line", { x1: left, x2: width - 8, y1: y(found.plain), y2: y(found.plain), class: "pl-curve-plain" }),
  );
  for (const value of [0, 0.5, 1]) {
    const label = svg("text", { x: left - 5, y: y(value) + 4, "text-anchor": "end" });
    label.textContent = `${100 * value} %`;
    plot.append(label);
  }
  for (const k of [found.ks[0], found.ks[Math.floor(found.ks.length / 2)], found.ks[found.ks.length - 1]]) {
    const label = svg("text", {
      x: x(k),
      y: height - 6,
      "text-anchor": k === found.ks[0] ? "start" : k === found.ks[found.ks.length - 1] ? "end" : "middle",
    });
    label.textContent = `top ${k}`;
    plot.append(label);
  }
  FAMILIES.forEach(([key], i) => {
    const values = found.curves[`${key}/none/on`];
    if (values)
      plot.append(
        svg("polyline", {
          points: found.ks.map((k, n) => `${x(k)},${y(values[n])}`).join(" "),
          fill: "none",
          stroke: SHADES[i],
          "stroke-width": 2.2,
          "stroke-dasharray": DASHES[i],
        }),
      );
  });
  return plot;
}

export class WholeTask {
  constructor(tab) {
    this.tab = tab;
    this.panel = tab.panel;
    this.view = tab.view;
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
      setText(
        this.tipOfScatter,
        `${this.scatter.names[point[1]] || `Concept ${point[1]}`} in “${this.scatter.classes[point[0]]}”: ${point[2]} → ${point[3]}`,
      );
      this.tipOfScatter.style.left = `${Math.max(90, Math.min(size - 90, this.place(point[2], size)))}px`;
      this.tipOfScatter.style.top = `${size - this.place(point[3], size) + 12}px`;
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
    for (const text of ["", "trained on", "new"]) {
      const cell = make("th", "", text);
      cell.scope = "col";
      head.append(cell);
    }
    table.append(head);
    for (const one of task.heads) {
      const row = make("tr", this.view.heads.includes(one.name) ? "pl-chosen" : "");
      const name = make("th", "", headName(one.name));
      const accuracy = one.accuracy || {};
      name.scope = "row";
      row.append(name);
      for (const split of ["base", "novel"]) {
        const found = accuracy[split];
        row.append(
          make(
            "td",
            "",
            found
              ? `${(100 * found.mean).toFixed(1) + (found.std ? ` ± ${(100 * found.std).toFixed(1)}` : "")} %`
              : "–",
          ),
        );
      }
      table.append(row);
    }
    box.replaceChildren(table);
  }

  async drawTask() {
    this.drawAccuracies();
    const head = this.view.heads.find((name) => name !== "zero_shot");
    const whole = this.panel.find(".pl-whole-subtitle");
    const answer = head ? await this.tab.ask({ way: "task", task: this.view.task, head }) : null;
    const results = answer && answer.results;
    for (const node of [".pl-scatter-box", ".pl-curves"]) this.panel.find(node).parentElement.hidden = !results;
    this.panel.find(".pl-gain").replaceChildren();
    if (!results) {
      setText(
        whole,
        head
          ? "No task-level results were made for this head."
          : "Choose a tuned head to see what it changed over the whole task.",
      );
      this.scatter.points = [];
      return;
    }
    setText(whole, `Zero-shot against ${headName(head)}, over ${results.base.gain.n_images} test pictures`);
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
    const percent = (value) => `${(100 * value).toFixed(1)} %`;
    const line = (text) => list.append(make("li", "", text));
    line(`From ${percent(gain.first)} to ${percent(gain.second)} on the classes trained on.`);
    if (gain.remapped_share !== null)
      line(
        `Reading the untouched activations with the tuned head reaches ${percent(gain.remapped)}: ${Math.round(100 * gain.remapped_share)} % of the gain.`,
      );
    if (gain.existing_share !== null)
      line(
        `Keeping only concepts that fired before as well reaches ${percent(gain.existing)}: ${Math.round(100 * gain.existing_share)} % of the gain.`,
      );
    line(
      `Per class, ${overlap.high.toFixed(1)} concepts are frequent in both models, ${overlap.high_to_low.toFixed(2)} only before, ${overlap.low_to_high.toFixed(2)} only after.`,
    );
    line(`Counts over all classes correlate at ${correlation.toFixed(3)}.`);
  }

  // Counts on a logarithmic axis; what never fired in one of the models lies on its edge.
  place(count, size) {
    return (
      26 +
      (size - 40) *
        Math.max(0, Math.log(Math.max(count, 1e-9) / this.scatter.low) / Math.log(this.scatter.top / this.scatter.low))
    );
  }

  drawScatter() {
    const { canvas, points } = this.scatter;
    const size = canvas.clientWidth;
    if (!size) return;
    canvas.width = canvas.height = size * devicePixelRatio;
    const counts = points.flatMap((point) => [point[2], point[3]]).filter((count) => count > 0);
    this.scatter.top = Math.max(2, ...counts);
    this.scatter.low = Math.min(this.scatter.top / 2, ...counts) / 1.15;
    const context = canvas.getContext("2d");
    const styles = getComputedStyle(this.panel.root);
    const soft = styles.getPropertyValue("--pl-soft");
    context.scale(devicePixelRatio, devicePixelRatio);
    context.strokeStyle = styles.getPropertyValue("--pl-line");
    context.beginPath();
    context.moveTo(26, size - 26);
    context.lineTo(size - 14, 14);
    context.moveTo(26, 10);
    context.lineTo(26, size - 26);
    context.lineTo(size - 10, size - 26);
    context.stroke();
    for (const [, , first, second] of points) {
      const more = second > first;
      const even = Math.abs(second - first) <= 0.25 * Math.max(first, second);
      context.beginPath();
      context.arc(this.place(first, size), size - this.place(second, size), 3, 0, 7);
      context.fillStyle = even ? soft : more ? "#d55e00" : "#0072b2";
      context.globalAlpha = even ? 0.35 : 0.8;
      context.fill();
    }
    context.globalAlpha = 1;
    context.fillStyle = soft;
    context.font = "11px system-ui, sans-serif";
    context.fillText("count, first (log)", size - 104, size - 10);
    context.save();
    context.translate(14, 110);
    context.rotate(-Math.PI / 2);
    context.fillText("count, second (log)", 0, 0);
    context.restore();
    canvas.setAttribute(
      "aria-label",
      `${points.length} concepts by class: how often they fire in the first and the second model`,
    );
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
    for (const name of ["zero_shot", head]) {
      const found = masking && masking[name];
      if (!found) continue;
      box.append(make("h4", "pl-curve-title", headName(name)), curveOf(found));
    }
    const legend = make("ul", "pl-curve-legend");
    FAMILIES.forEach(([, text], i) => {
      const item = make("li");
      const line = svg("svg", { viewBox: "0 0 26 6", width: 26, height: 6 });
      line.append(
        svg("line", {
          x1: 0,
          x2: 26,
          y1: 3,
          y2: 3,
          stroke: SHADES[i],
          "stroke-width": 2.5,
          "stroke-dasharray": DASHES[i],
        }),
      );
      item.append(line, text);
      legend.append(item);
    });
    box.append(legend);
  }
}
