// What the model says: texts side by side with changed words marked, next words, the dose ladder.

import { make, makeButton, setText, shareText, svg } from "./dom.js";
import { doseText } from "./steer_rack.js";

function ladderPlot(doses, word) {
  const width = 420;
  const height = 120;
  const pad = 26;
  const plot = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "pl-curve", role: "img" });
  const low = Math.min(...doses.map((one) => one.dose));
  const high = Math.max(...doses.map((one) => one.dose));
  const x = (dose) => pad + ((dose - low) / (high - low || 1)) * (width - 2 * pad);
  const y = (p) => height - pad - p * (height - 2 * pad + 8);
  plot.setAttribute(
    "aria-label",
    `Probability of “${word}” by dose: ${doses.map((one) => `${doseText(one.dose)} ${shareText(one.p_word)}`).join(", ")}`,
  );
  plot.append(svg("line", { x1: pad, x2: width - pad, y1: y(0), y2: y(0), class: "pl-curve-axis" }));
  const line = (key, name) =>
    plot.append(
      svg("polyline", { points: doses.map((one) => `${x(one.dose)},${y(one[key])}`).join(" "), class: name }),
    );
  line("fluency", "pl-curve-fluency");
  line("p_word", "pl-curve-line");
  for (const one of doses) {
    const dot = svg("circle", { cx: x(one.dose), cy: y(one.p_word), r: 4.5, class: "pl-curve-dot" });
    const label = svg("text", { x: x(one.dose), y: height - 8, "text-anchor": "middle" });
    label.textContent = doseText(one.dose);
    dot.append(svg("title", {}));
    dot.firstChild.textContent = shareText(one.p_word);
    plot.append(dot, label);
  }
  const legend = svg("text", { x: pad, y: 12 });
  legend.textContent = `— probability of “${word}”   ┄ fluency`;
  plot.append(legend);
  return plot;
}

// Words of `text` that are not in `other` in this order: [[word, changed], …] (longest common part).
function changedWords(text, other) {
  const a = text.split(/\s+/).filter(Boolean);
  const b = other.split(/\s+/).filter(Boolean);
  const best = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--) {
      best[i][j] = a[i] === b[j] ? best[i + 1][j + 1] + 1 : Math.max(best[i + 1][j], best[i][j + 1]);
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
    this.texts = Object.fromEntries(
      [...this.panel.root.querySelectorAll(".pl-text")].map((node) => [node.dataset.row, node]),
    );
    this.shown = { original: "", steered: "", control: "", recorded: false };
  }

  drawText(row, text, against) {
    const node = this.texts[row];
    node.replaceChildren();
    if (against === undefined) {
      node.textContent = text;
      return;
    }
    changedWords(text, against).forEach(([word, isNew], i) => {
      if (i) node.append(" ");
      node.append(isNew ? make("mark", "pl-changed", word) : word);
    });
  }

  drawAnswers(found, { writing = false, recorded = false } = {}) {
    Object.assign(this.shown, {
      original: found.original,
      steered: found.steered,
      control: found.control || "",
      recorded,
    });
    this.drawText("original", this.shown.original);
    this.drawText("steered", this.shown.steered, this.shown.original);
    this.drawText("control", this.shown.control, this.shown.original);
    this.panel.find(".pl-answers").classList.toggle("pl-writing", writing);
    const same = this.shown.steered === this.shown.original;
    let words = writing
      ? "writing …"
      : recorded
        ? "a recorded answer; the live one is being written"
        : same
          ? "The text is the same."
          : this.shown.control === this.shown.original
            ? "Changed; the control did not change it."
            : "Changed.";
    if (!found.control && !writing) words = "No concept is turned, so there is one text.";
    setText(this.panel.find(".pl-answers .pl-subtitle"), words);
    setText(
      this.panel.find(".pl-control-title"),
      found.control_latent === null || found.control_latent === undefined
        ? "Control"
        : `Control: ${this.tab.rack.nameOfConcept(found.control_latent)}`,
    );
  }

  drawGauge(share) {
    const text = this.panel.find(".pl-gauge-text");
    const strong = share > 0.6;
    setText(
      text,
      share > 0
        ? `The edit changes the activations by ${Math.round(100 * share)} % of their size${strong ? ": far from anything the model has seen" : ""}`
        : "Nothing is changed",
    );
    this.panel.find(".pl-gauge").classList.toggle("pl-strong", strong);
    this.panel.find(".pl-gauge .pl-meter i").style.transform = `scaleX(${Math.min(1, share).toFixed(3)})`;
  }

  drawNext(found) {
    const box = this.panel.find(".pl-next");
    box.replaceChildren();
    const most = Math.max(0.02, ...[...found.gained, ...found.lost].map((one) => Math.abs(one.after - one.before)));
    for (const [title, list, sign] of [
      ["Gains", found.gained, 1],
      ["Loses", found.lost, -1],
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
    this.drawGauge(found.relative_change || 0);
  }

  drawLadder(found) {
    const box = this.panel.find(".pl-ladder");
    box.replaceChildren();
    const doses = found.doses;
    const withWord = doses.some((one) => one.p_word !== null);
    if (withWord) box.append(ladderPlot(doses, found.word));
    const list = make("ol", "pl-rungs");
    for (const one of doses) {
      const item = make("li");
      const go = makeButton("pl-rung", "", () => this.scaleRack(one.dose));
      go.title = "Take this strength";
      go.append(
        make("b", "", doseText(one.dose)),
        make("span", "pl-rung-text"),
        make(
          "small",
          "",
          `fluency ${one.fluency.toFixed(2)}${one.similarity === null ? "" : ` · like the word ${one.similarity.toFixed(2)}`}`,
        ),
      );
      changedWords(one.caption, found.original).forEach(([word, isNew], i) => {
        if (i) go.children[1].append(" ");
        go.children[1].append(isNew ? make("mark", "pl-changed", word) : word);
      });
      if (one.caption === found.original) go.children[1].classList.add("pl-soft");
      item.append(go);
      list.append(item);
    }
    box.append(list);
    const flip =
      found.flip === null
        ? `No dose of these flips the text${found.word ? ` to or from “${found.word}”` : ""}.`
        : `The text flips at ${doseText(found.flip)} of the rack.`;
    box.append(
      make(
        "p",
        "pl-note",
        flip +
          (found.monotonic === null || found.monotonic === undefined
            ? ""
            : found.monotonic
              ? " The word's probability never falls with the dose."
              : " The word's probability does not simply grow with the dose."),
      ),
    );
  }

  scaleRack(dose) {
    this.tab.rack.changeRack((rows) =>
      rows.map((row) => ({
        ...row,
        strength: Math.max(
          -this.tab.experiment.doseMost,
          Math.min(this.tab.experiment.doseMost, Number((row.strength * dose).toFixed(3))),
        ),
      })),
    );
  }

  drawCandidates(answer) {
    const box = this.panel.find(".pl-would-list");
    box.replaceChildren();
    if (!answer.found.length) {
      box.append(make("p", "pl-note", "No concept moves that word here."));
      return;
    }
    const table = make("table", "pl-table");
    const head = make("tr");
    for (const word of ["Concept", "Edit", "Guessed", "Truly", "Probability"]) {
      const cell = make("th", "", word);
      cell.scope = "col";
      head.append(cell);
    }
    head.children[2].title = "change of the word's logit by its gradient";
    head.children[3].title = "change of the word's logit when run";
    table.append(head);
    for (const one of answer.found) {
      this.tab.experiment.known.set(one.latent, {
        latent: one.latent,
        name: one.name,
        maximum: one.maximum,
        icon: one.icon,
      });
      const row = make("tr");
      const cell = make("th");
      const icon = make("img", "pl-mini");
      const take = makeButton("pl-rack-name", this.tab.rack.nameOfConcept(one.latent), () =>
        this.tab.rack.addConcept(one.latent, one.edit.mode === "ablate" ? 0 : one.edit.strength),
      );
      cell.scope = "row";
      icon.alt = "";
      if (one.icon) icon.src = one.icon;
      take.title = "Put it into the rack";
      cell.append(icon, take);
      const sign = (value) => (value > 0 ? "+" : "") + value.toFixed(2);
      row.append(
        cell,
        make("td", "", one.edit.mode === "ablate" ? "off" : doseText(one.edit.strength)),
        make("td", "", sign(one.predicted)),
        make("td", "", sign(one.actual)),
        make("td", "", `${shareText(one.before)} → ${shareText(one.after)}`),
      );
      table.append(row);
    }
    box.append(table);
  }
}
