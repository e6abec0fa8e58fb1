// One picture through two heads: maps on one scale, predictions, and the margin concept by concept.

import { bus } from "./bus.js";
import { fromBase64 } from "./code.js";
import { amountText, make, makeButton, plural, setText, shareText } from "./dom.js";

const HEADS = {
  zero_shot: "Zero-shot (as it is)",
  coop: "CoOp (learned words)",
  vpt: "VPT (learned patches)",
  maple: "MaPLe (both, coupled)",
  linear: "Linear probe",
};

export const headName = (name) => HEADS[name] || name;

const signed = (value) => {
  const text = Math.abs(value).toFixed(2);
  return (text === "0.00" ? "" : value > 0 ? "+" : "−") + text;
};

const rowName = (concept) => concept.name || `Concept ${concept.latent}`;

// What "not explained" is made of, in words.
function unexplainedParts(heads) {
  const of = (name) => heads.map((head) => signed(head.residual_parts[name])).join(" and ");
  const gap = heads.some((head) => Math.abs(head.residual_parts.gap) >= 0.005)
    ? `, and rounding of the integral ${of("gap")}`
    : "";
  return ` It is what the head says with no concept at all (${of("start")}), what the SAE leaves out (${of("error")})${gap}.`;
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

function sumLine(text, shares, most, kind) {
  const line = make("div", `pl-fall-line pl-fall-sum ${kind}`);
  line.setAttribute("role", "row");
  line.append(make("span"), make("span", "pl-fall-name", text), ...bars(shares, most));
  return line;
}

export class Explanation {
  constructor(tab) {
    this.tab = tab;
    this.panel = tab.panel;
    this.view = tab.view;
    this.tableOfColours = fromBase64(this.tab.props.setup.colours, Uint8Array);
    this.listen();
  }

  listen() {
    // Hovering either picture shows, for the concept in view, the same patch in both.
    for (const frame of this.panel.root.querySelectorAll(".pl-one-frame")) {
      frame.addEventListener("pointermove", (event) => {
        if (!this.view.found) return;
        const area = frame.getBoundingClientRect();
        const [l, t, r, b] = this.view.found.box;
        const [nRows, nColumns] = this.view.found.grid;
        const column = Math.floor((((event.clientX - area.left) / area.width - l) / (r - l)) * nColumns);
        const row = Math.floor((((event.clientY - area.top) / area.height - t) / (b - t)) * nRows);
        if (row < 0 || column < 0 || row >= nRows || column >= nColumns) return;
        this.markPatch(row, column);
        const concept = this.view.hover >= 0 ? this.view.hover : this.view.locked;
        if (concept < 0) return;
        const at = row * nColumns + column;
        const top = this.view.found.scale[concept] / 255;
        const value = (side) => amountText(this.mapCodes(concept, side)[at] * top);
        setText(
          this.panel.find(".pl-map-says"),
          `${rowName(this.view.found.concepts[concept])} in row ${row + 1}, column ${column + 1}: ${value(0)} and ${value(1)}`,
        );
      });
      frame.addEventListener("pointerleave", () => {
        for (const mark of this.panel.root.querySelectorAll(".pl-patch-mark")) mark.remove();
        if (this.view.found) this.drawMaps();
      });
    }
  }

  mapCodes(row, side) {
    const { codes, grid } = this.view.found;
    const cells = grid[0] * grid[1];
    return codes.subarray((2 * row + side) * cells, (2 * row + side + 1) * cells);
  }

  drawMaps() {
    const { found } = this.view;
    const row = this.view.hover >= 0 ? this.view.hover : this.view.locked;
    for (const figure of this.panel.root.querySelectorAll(".pl-one")) {
      const canvas = figure.querySelector("canvas");
      const side = Number(figure.dataset.side);
      canvas.width = found.grid[1];
      canvas.height = found.grid[0];
      const context = canvas.getContext("2d");
      context.clearRect(0, 0, canvas.width, canvas.height);
      if (row < 0) continue;
      const image = context.createImageData(canvas.width, canvas.height);
      const codes = this.mapCodes(row, side);
      for (let i = 0; i < codes.length; i++) {
        const at = codes[i] * 3;
        image.data.set(
          [
            this.tableOfColours[at],
            this.tableOfColours[at + 1],
            this.tableOfColours[at + 2],
            95 + (130 * codes[i]) / 255,
          ],
          i * 4,
        );
      }
      context.putImageData(image, 0, 0);
      const [l, t, r, b] = found.box;
      Object.assign(canvas.style, {
        left: `${100 * l}%`,
        top: `${100 * t}%`,
        width: `${100 * (r - l)}%`,
        height: `${100 * (b - t)}%`,
      });
    }
    const concept = row >= 0 ? found.concepts[row] : null;
    setText(
      this.panel.find(".pl-map-says"),
      concept
        ? `${rowName(concept)}: strongest patch ${amountText(concept.activations[0])} and ${amountText(concept.activations[1])}, one scale for both`
        : "Point at a concept to see where it fires, in both.",
    );
  }

  drawGuesses() {
    const { found } = this.view;
    const after = this.view.after;
    for (const list of this.panel.root.querySelectorAll(".pl-guesses")) {
      const side = Number(list.dataset.side);
      const plain = found.heads[side].predictions;
      const now = after ? after.predictions[side] : plain;
      const was = new Map(plain.map((one) => [one.class, one.probability]));
      list.replaceChildren();
      for (const guess of now.slice(0, 5)) {
        const item = make("li", guess.class === this.view.label ? "pl-right" : "");
        const bar = make("span", "pl-guess-bar");
        const fill = make("i", side ? "pl-fill-b" : "pl-fill-a");
        fill.style.width = `${100 * guess.probability}%`;
        bar.append(fill);
        if (after) {
          const ghost = make("em");
          ghost.style.left = `${100 * (was.get(guess.class) || 0)}%`;
          ghost.title = "before";
          bar.append(ghost);
        }
        item.append(make("span", "pl-guess", guess.class), bar, make("b", "", shareText(guess.probability)));
        list.append(item);
      }
    }
    const truth = this.view.label
      ? `The picture is of: ${this.view.label}.`
      : "Nobody has told what this picture is of; the heads know only the task's classes.";
    setText(
      this.panel.find(".pl-truth"),
      truth +
        (after
          ? ` With ${plural(this.view.off.size, "concept", "concepts")} off; the thin mark is where it stood.`
          : ""),
    );
  }

  // The waterfall: concepts, then all others, then what concepts do not explain; it adds up to the margin.
  drawFall() {
    const { found } = this.view;
    const box = this.panel.find(".pl-fall");
    const pool = found.concepts
      .map((concept, row) => ({ concept, row }))
      .filter(({ concept }) => this.view.used === "all" || concept.used_by === this.view.used);
    const listed = pool.slice(0, this.view.shown);
    const heads = found.heads;
    const most = Math.max(
      1e-6,
      ...found.concepts.map((one) => Math.max(Math.abs(one.shares[0]), Math.abs(one.shares[1]))),
      ...heads.flatMap((head) => [Math.abs(head.residual)]),
    );
    box.replaceChildren(this.fallHead());
    for (const { concept, row } of listed) box.append(this.conceptLine(concept, row, most));
    const rest = [0, 1].map(
      (side) =>
        heads[side].margin - heads[side].residual - listed.reduce((sum, { concept }) => sum + concept.shares[side], 0),
    );
    box.append(sumLine("All other concepts", rest, most, "pl-rest"));
    box.append(
      sumLine(
        "Not explained by concepts",
        heads.map((head) => head.residual),
        most,
        "pl-unexplained",
      ),
    );
    box.append(
      sumLine(
        found.classes ? "Margin" : "Match",
        heads.map((head) => head.margin),
        Math.max(most, ...heads.map((head) => Math.abs(head.margin))),
        "pl-total",
      ),
    );
    if (this.view.after)
      box.append(
        sumLine(
          "… with those switched off",
          this.view.after.scores,
          Math.max(most, ...heads.map((head) => Math.abs(head.margin))),
          "pl-total",
        ),
      );
    const more = this.panel.find(".pl-more");
    more.hidden = pool.length <= this.view.shown;
    setText(more, `Show ${Math.min(12, pool.length - this.view.shown)} more of ${pool.length}`);
    this.panel.find(".pl-all-on").hidden = !this.view.off.size;
    setText(this.panel.find(".pl-why .pl-subtitle"), found.question.charAt(0).toUpperCase() + found.question.slice(1));
    setText(
      this.panel.find(".pl-method"),
      (heads[0].exact && heads[1].exact
        ? "Shares are exact: from this layer on the path to the score is linear."
        : "Shares are integrated gradients through the layers behind the SAE; what is left over is shown as not explained.") +
        unexplainedParts(heads),
    );
  }

  fallHead() {
    const line = make("div", "pl-fall-line pl-fall-head");
    line.setAttribute("role", "row");
    for (const text of ["", "Concept", headName(this.view.heads[0]), headName(this.view.heads[1])]) {
      const cell = make("span", "", text);
      cell.setAttribute("role", "columnheader");
      line.append(cell);
    }
    return line;
  }

  conceptLine(concept, row, most) {
    const line = make("div", "pl-fall-line");
    const on = make("input");
    const name = make("span", "pl-fall-name");
    const open = makeButton("pl-rack-name", rowName(concept), () => bus.card.open(concept.latent, open));
    const icon = make("img", "pl-mini");
    on.type = "checkbox";
    on.checked = !this.view.off.has(concept.latent);
    on.setAttribute("aria-label", `Keep ${rowName(concept)} on`);
    on.title = "Switch this concept off and ask both again";
    on.addEventListener("change", () => {
      if (on.checked) this.view.off.delete(concept.latent);
      else this.view.off.add(concept.latent);
      line.classList.toggle("pl-off", !on.checked);
      this.tab.askOff();
    });
    icon.alt = "";
    if (this.view.found.icons[concept.latent]) icon.src = this.view.found.icons[concept.latent];
    name.append(icon, open);
    const box = make("label", "pl-check");
    box.append(on);
    line.append(box, name, ...bars(concept.shares, most));
    line.setAttribute("role", "row");
    line.classList.toggle("pl-off", this.view.off.has(concept.latent));
    line.classList.toggle("pl-locked", this.view.locked === row);
    line.addEventListener("pointerenter", () => {
      this.view.hover = row;
      this.drawMaps();
      bus.card.prefetch(concept.latent);
    });
    line.addEventListener("pointerleave", () => {
      this.view.hover = -1;
      this.drawMaps();
    });
    line.addEventListener("focusin", () => {
      this.view.hover = row;
      this.drawMaps();
    });
    line.addEventListener("click", (event) => {
      if (event.target.closest("input, button, label")) return;
      this.view.locked = this.view.locked === row ? -1 : row;
      this.drawFall();
      this.drawMaps();
    });
    return line;
  }

  markPatch(row, column) {
    const [l, t, r, b] = this.view.found.box;
    const [nRows, nColumns] = this.view.found.grid;
    const w = (r - l) / nColumns;
    const h = (b - t) / nRows;
    for (const frame of this.panel.root.querySelectorAll(".pl-one-frame")) {
      const mark = frame.querySelector(".pl-patch-mark") || frame.appendChild(make("span", "pl-patch-mark"));
      Object.assign(mark.style, {
        left: `${100 * (l + column * w)}%`,
        top: `${100 * (t + row * h)}%`,
        width: `${100 * w}%`,
        height: `${100 * h}%`,
      });
    }
  }
}
