// Exemplars of a concept: a row of small pictures with the map over each, and one of them at large.
// Knows the dialogs of card.html; knows nothing of figures or of what else a card says.

import { bus } from "./bus.js";
import { amountText, make, makeButton, makePicture, setText, showPicture } from "./dom.js";
import { look } from "./look.js";
import { coverWith } from "./overlay.js";

function strongestOf(facts) {
  return Math.max(...Object.values(facts.exemplars).flatMap((row) => row.flatMap((one) => one.values)), 1e-9);
}

// The map of an exemplar over its picture, on one scale for all pictures of the concept.
function showWhere(canvas, exemplar, facts) {
  const [rows, columns] = facts.grid;
  const map = new Float32Array(rows * columns);
  exemplar.patches.forEach((patch, i) => {
    map[patch] = exemplar.values[i];
  });
  coverWith(canvas, map, { rows, columns }, { top: strongestOf(facts), opacity: look.opacity });
}

export function exemplarRow(facts, exemplars, title, hint, open) {
  const section = make("section", "pl-exemplars");
  const head = make("h3", "", title);
  const row = make("div", "pl-exemplar-row");
  head.append(make("small", "", hint));
  head.hidden = !title;
  exemplars.forEach((exemplar, at) => {
    const figure = make("figure");
    const picture = makeButton("pl-exemplar", "", () => open({ facts, exemplars, at, row }));
    const map = make("canvas");
    const image = makePicture("", exemplar.label || "example picture");
    showPicture(image, facts.images[exemplar.image]);
    map.setAttribute("aria-hidden", "true");
    picture.title = "Open large";
    picture.append(image, map);
    showWhere(map, exemplar, facts);
    const caption = make("figcaption");
    caption.title = exemplar.label || "";
    caption.append(make("span", "", exemplar.label || ""), make("b", "", amountText(exemplar.activation)));
    figure.append(picture, caption);
    row.append(figure);
  });
  section.append(head, row);
  return section;
}

// One exemplar at large, over the card: arrows go on to its neighbours in the row.
export class ExemplarViewer {
  constructor(dialog, { leave }) {
    this.dialog = dialog;
    this.leave = leave;
    this.shown = null;
    this.masked = true;
    this.title = make("h2", "pl-viewer-title");
    this.words = make("p", "pl-viewer-words");
    this.picture = makePicture("", "example picture");
    this.map = make("canvas");
    this.mask = make("input");
    this.close = makeButton("pl-quiet pl-card-close", "×", () => dialog.close());
    this.back = makeButton("pl-button", "← Previous", () => this.step(-1));
    this.next = makeButton("pl-button", "Next →", () => this.step(1));
    this.open = makeButton("pl-button pl-primary", "Open in Concepts", () => this.openInConcepts());
    this.lay();
    this.listen();
  }

  lay() {
    const head = make("header", "pl-card-head");
    const words = make("div");
    const frame = make("div", "pl-viewer-frame");
    const foot = make("div", "pl-viewer-foot");
    const label = make("label", "pl-check");
    this.title.id = "pl-viewer-title";
    this.close.setAttribute("aria-label", "Close the picture");
    this.map.setAttribute("aria-hidden", "true");
    this.mask.type = "checkbox";
    this.mask.className = "pl-viewer-mask";
    label.append(this.mask, " Mask: where it fires");
    words.append(this.title, this.words);
    head.append(words, this.close);
    frame.append(this.picture, this.map);
    foot.append(this.back, this.next, label, this.open);
    this.dialog.append(head, frame, foot);
  }

  listen() {
    this.mask.addEventListener("change", () => {
      this.masked = this.mask.checked;
      this.draw();
    });
    this.dialog.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      this.step(step);
    });
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.dialog.close();
    });
    this.dialog.addEventListener("close", () => {
      const opener = this.shown.row.children[this.shown.at];
      if (opener && opener.isConnected) opener.querySelector("button").focus({ preventScroll: true });
    });
    new ResizeObserver(() => this.dialog.open && this.draw()).observe(this.map);
  }

  show(shown) {
    this.shown = shown;
    this.dialog.showModal();
    this.close.focus();
    this.draw();
  }

  step(by) {
    const { exemplars, at } = this.shown;
    this.shown.at = (at + by + exemplars.length) % exemplars.length;
    this.draw();
  }

  draw() {
    const { facts, exemplars, at } = this.shown;
    const exemplar = exemplars[at];
    setText(this.title, exemplar.label || "Example picture");
    const place = `${at + 1} of ${exemplars.length}`;
    const name = facts.name || `Concept ${facts.latent}`;
    setText(this.words, `${place} · ${name} fires up to ${amountText(exemplar.activation)} here`);
    this.picture.alt = exemplar.label || "example picture";
    showPicture(this.picture, facts.images[exemplar.image]);
    this.mask.checked = this.masked;
    this.map.hidden = !this.masked;
    if (this.masked) showWhere(this.map, exemplar, facts);
    this.open.hidden = !exemplar.kept;
    this.back.hidden = exemplars.length < 2;
    this.next.hidden = exemplars.length < 2;
  }

  // The picture, as small as the index keeps it, with this concept chosen in it.
  openInConcepts() {
    const { facts, exemplars, at } = this.shown;
    this.dialog.close();
    this.leave();
    bus.goTo("concepts");
    const picture = { kind: "exemplar", data: Number(exemplars[at].image), concept: facts.latent };
    bus.send("concepts", { picture });
  }
}
