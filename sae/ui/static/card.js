// The concept card: a dialog over the page, whatever tab is open. Asked from the server once, then kept.

import { bus } from "./bus.js";
import { amountText, figureText, make, makeButton, Panel, setChildren, setText, shareText } from "./dom.js";
import { ExemplarViewer, exemplarRow } from "./exemplars.js";
import { copyLink, followTabs, readCard, restoreWith, writeCard } from "./links.js";
import { notes, showName } from "./notes.js";
import { OwnNotes } from "./notes_card.js";

const ACTIONS = [
  ["concepts", "Show in the picture", true],
  ["latents", "Show on the map", false],
  ["steer", "Steer with it", false],
];

function originSentence(facts) {
  const number = `Concept #${facts.latent}`;
  if (!facts.figures) return number; // still on its way, or there is no index
  if (!facts.name) return `${number} · without a name: no word describes it well enough`;
  const score = typeof facts.name_score === "number" ? ` · score ${facts.name_score.toFixed(2)}` : "";
  const model = facts.model_name ? ` (the model's name: ${facts.model_name})` : "";
  return `${number} · named from ${facts.name_source || "an unknown source"}${score}${model}`;
}

const NUMERALS = ["strongest", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "weakest"];
const TENTHS = Array.from({ length: 10 }, (_, i) => `tenth${i}`);

// Exemplars drawn by chance from every tenth of the pictures in which it fires, strongest tenth first.
function tenthsBox(facts, open) {
  const section = make("section", "pl-tenths");
  const head = make("h3", "", "From strong to weak");
  const slider = make("input", "pl-tenth");
  const words = make("small");
  const row = make("div");
  slider.type = "range";
  slider.min = 1;
  slider.max = 10;
  slider.value = 5;
  slider.setAttribute("aria-label", "Tenth of the pictures, from the strongest to the weakest");
  const draw = () => {
    const exemplars = facts.exemplars[TENTHS[slider.value - 1]] || [];
    setText(words, `${NUMERALS[slider.value - 1]} tenth of the pictures, drawn by chance`);
    row.replaceChildren(
      exemplars.length
        ? exemplarRow(facts, exemplars, "", "", open)
        : make("p", "pl-note", "No picture was kept from this tenth."),
    );
  };
  slider.addEventListener("input", draw);
  head.append(words);
  section.append(head, slider, row);
  draw();
  return section;
}

function figureTiles(facts, statistics) {
  const tiles = make("dl", "pl-figures");
  for (const { name, column, label, explanation, format, required } of statistics) {
    const value = facts.figures[name];
    if (!column || (value === null && !required)) continue;
    const box = make("div");
    const text = figureText(format, value, true);
    box.title = explanation;
    box.append(make("dt", "", label), make("dd", "", text), make("dd", "pl-help", explanation));
    tiles.append(box);
  }
  return tiles;
}

function histogramBox(facts) {
  const section = make("section", "pl-histogram");
  if (!facts.histogram.counts.some((n) => n > 0)) return section;
  const here = bus.picture ? bus.picture.maximum(facts.latent) : 0;
  const { counts, edges } = trimmed(facts.histogram, here);
  section.append(make("h3", "", "How strongly it fires"));
  const most = Math.max(...counts);
  const plot = make("div", "pl-plot");
  counts.forEach((n) => {
    const bar = make("i");
    bar.style.height = n > 0 ? `${Math.max(3, 100 * Math.sqrt(n / most))}%` : "0";
    plot.append(bar);
  });
  if (here > 0) plot.append(hereMark(here, edges));
  const first = amountText(edges[0]);
  const last = amountText(edges[edges.length - 1]);
  const reach = here > 0 ? `this picture reaches ${amountText(here)}` : "it does not fire in this picture";
  plot.setAttribute("role", "img");
  plot.setAttribute("aria-label", `Histogram of activations from ${first} to ${last}; ${reach}`);
  const axis = make("div", "pl-axis");
  axis.append(
    make("span", "", first),
    make("span", "", "activation, log scale; height is the square root of the count"),
    make("span", "", last),
  );
  section.append(plot, axis);
  if (!(here > 0)) section.append(make("p", "pl-note", "It does not fire in this picture."));
  return section;
}

// Where the picture in view lies on the histogram's logarithmic axis.
function hereMark(here, edges) {
  const low = Math.log(edges[0]);
  const high = Math.log(edges[edges.length - 1]);
  const at = Math.max(0, Math.min(1, (Math.log(here) - low) / (high - low)));
  const mark = make("span", "pl-here");
  mark.style.left = `${100 * at}%`;
  mark.classList.toggle("pl-flip", at > 0.6);
  mark.append(make("em", "", `this picture ${amountText(here)}`));
  return mark;
}

// Leave out empty bins at both ends, but keep the one that this picture falls into.
function trimmed({ counts, edges }, here) {
  const used = counts.map((n, i) => n > 0 || (here > 0 && edges[i] <= here && here < edges[i + 1]));
  const from = used.indexOf(true);
  const to = used.lastIndexOf(true) + 1;
  return { counts: counts.slice(from, to), edges: edges.slice(from, to + 1) };
}

export class Card {
  constructor(component) {
    const { element, props, server } = component;
    Object.assign(this, { props, server });
    this.panel = new Panel(element, server);
    this.card = this.panel.find(".pl-card");
    this.cards = new Map();
    this.dwell = 0;
    this.cardOpener = null;
    this.cardTurn = 0;
    this.builtCards = new Map();
    this.head = this.makeHead();
    notes.open(props.setup);
    this.own = new OwnNotes();
    this.shown = null;
    this.viewer = new ExemplarViewer(this.panel.find(".pl-viewer"), { leave: () => this.closeCard() });
  }

  listen() {
    this.card.addEventListener("close", () => {
      if (this.card.open) return;
      this.own.leave();
      this.cardTurn++;
      writeCard(null);
      if (this.cardOpener && this.cardOpener.isConnected) this.cardOpener.focus({ preventScroll: true });
    });
    this.card.addEventListener("click", (event) => {
      if (event.target === this.card) this.closeCard();
    });
    bus.card = {
      open: (latent, opener) => this.openCard(latent, opener),
      isOpen: () => this.card.open,
      prefetch: (latent) => this.prefetchCard(latent),
    };
    bus.on("notes", () => this.shown && this.showTitle(this.shown));
    followTabs(this.props.setup.tabs);
    bus.on("look", () => this.builtCards.clear());
    restoreWith("card", () => this.restore());
  }

  askCard(latent) {
    if (!this.cards.has(latent)) {
      const asked = this.server.ask({ way: "card", latent });
      this.cards.set(latent, asked);
      asked.then(
        (facts) => (facts.problem ? this.cards.delete(latent) : this.cards.set(latent, facts)),
        () => this.cards.delete(latent),
      );
    }
    return this.cards.get(latent);
  }

  prefetchCard(latent) {
    clearTimeout(this.dwell);
    if (latent !== null) this.dwell = setTimeout(() => this.askCard(latent), 80);
  }

  openCard(latent, opener) {
    const turn = ++this.cardTurn;
    const facts = this.askCard(latent);
    this.cardOpener = opener || document.activeElement;
    if (facts instanceof Promise) this.awaitCard(latent, facts, turn);
    else this.drawCard(facts);
    if (!this.card.open) this.card.showModal();
    this.card.scrollTop = 0;
    this.head.close.focus();
    writeCard(latent);
  }

  async awaitCard(latent, asked, turn) {
    const name = bus.picture ? bus.picture.name(latent) : "";
    this.show({ latent, name }, [make("div", "pl-card-wait")]);
    try {
      const facts = await asked;
      if (turn === this.cardTurn && this.card.open) this.drawCard(facts);
    } catch {
      const problem = make("p", "pl-empty", "The card could not be fetched. Close it and try again.");
      if (turn === this.cardTurn) this.show({ latent, name }, [problem]);
    }
  }

  closeCard() {
    if (this.card.open) this.card.close();
  }

  restore() {
    const latent = readCard(this.props.setup.limits);
    if (latent === null) this.closeCard();
    else this.openCard(latent, this.cardOpener);
  }

  // The head is made once: whoever is at its button stays there while a card loads.
  makeHead() {
    const node = make("header", "pl-card-head");
    const words = make("div");
    const title = make("h2", "pl-card-title");
    const origin = make("p", "pl-card-origin");
    title.id = "pl-card-title";
    words.append(title, origin);
    const close = makeButton("pl-quiet pl-card-close", "×", () => this.closeCard());
    close.setAttribute("aria-label", "Close the card");
    node.append(words, close);
    return { node, title, origin, close };
  }

  show(facts, parts) {
    this.shown = facts;
    this.showTitle(facts);
    this.own.show(facts.latent);
    setChildren(this.card, [this.head.node, this.own.node, ...parts]);
  }

  showTitle(facts) {
    showName(this.head.title, facts.latent, facts.name);
    setText(this.head.origin, originSentence(facts));
  }

  drawCard(facts) {
    let built = this.builtCards.get(facts.latent);
    if (!built || built.picture !== bus.picture) {
      built = { picture: bus.picture, parts: this.buildCard(facts) };
      if (this.builtCards.size > 60) this.builtCards.clear();
      this.builtCards.set(facts.latent, built);
    }
    this.show(facts, built.parts);
  }

  buildCard(facts) {
    if (facts.problem) return [make("p", "pl-empty", facts.problem)];
    const body = make("div", "pl-card-body");
    const open = (shown) => this.viewer.show(shown);
    if (facts.dead) body.append(make("p", "pl-card-flag", "This concept never fired on the data set."));
    if (facts.dense) {
      body.append(
        make("p", "pl-card-flag", "Always on: it fires nearly everywhere, so it says little about any one picture."),
      );
    }
    if (facts.note) body.append(make("p", "pl-card-weak", `Noted in the index: ${facts.note}`));
    const doubts = facts.doubts || [];
    if (doubts.length) body.append(make("p", "pl-card-weak", `Weak points: ${doubts.join("; ")}.`));
    if ((facts.exemplars.top || []).length) {
      body.append(exemplarRow(facts, facts.exemplars.top, "Where it fires most", "the strongest pictures", open));
    }
    if (TENTHS.some((level) => (facts.exemplars[level] || []).length)) body.append(tenthsBox(facts, open));
    if (!body.querySelector("figure")) {
      body.append(make("p", "pl-empty", "No example pictures are known for this concept."));
    }
    const { statistics } = this.props.setup;
    if (facts.figures) body.append(figureTiles(facts, statistics), histogramBox(facts), this.relatives(facts));
    return [body, this.cardFoot(facts)];
  }

  // Concepts near this one, and its classes: each a button or a bar.
  relatives(facts) {
    const section = make("section", "pl-relatives");
    const classes = (facts.classes || []).filter(([label]) => label);
    if (classes.length) {
      const box = make("div");
      const list = make("ol", "pl-classes");
      for (const [label, share] of classes) {
        const item = make("li");
        const bar = make("span", "pl-bar");
        const fill = make("i");
        fill.style.transform = `scaleX(${share})`;
        bar.append(fill);
        item.append(make("span", "", label), bar, make("b", "", shareText(share)));
        list.append(item);
      }
      box.append(make("h3", "", "Classes it fires for"), list);
      section.append(box);
    }
    for (const [rowsOf, title, help] of [
      [facts.neighbours, "Points the same way", "cosine of decoder directions"],
      [facts.cofiring, "Fires together with", "share of pictures in common"],
    ]) {
      if (!(rowsOf || []).length) continue;
      const box = make("div");
      const list = make("div", "pl-near");
      for (const [latent, name, score] of rowsOf) {
        const chip = makeButton("pl-chip", name || `Concept ${latent}`, () => this.openCard(latent, this.cardOpener));
        chip.append(make("small", "pl-recorded", score.toFixed(2)));
        chip.title = `Concept ${latent}, ${help} ${score.toFixed(2)}`;
        list.append(chip);
      }
      box.append(make("h3", "", title), list);
      section.append(box);
    }
    return section;
  }

  cardFoot(facts) {
    const foot = make("footer", "pl-card-foot");
    for (const [tab, label, primary] of ACTIONS) {
      if (!this.props.setup.tabs.includes(tab) || (facts.dead && tab !== "latents")) continue;
      foot.append(
        makeButton(primary ? "pl-button pl-primary" : "pl-button", label, () => {
          this.closeCard();
          bus.goTo(tab);
          bus.send(tab, { concept: facts.latent, name: facts.name });
        }),
      );
    }
    const copy = makeButton("pl-button", "Copy link", () => copyLink(this.panel, copy));
    foot.append(copy);
    return foot;
  }
}

export function start(component) {
  new Card(component).listen();
}
