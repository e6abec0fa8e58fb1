// The Compare tab of a classifier: one class against another on the picture in view.

import { keepInView } from "./afloat.js";
import { bus } from "./bus.js";
import { fromBase64 } from "./code.js";
import { Explanation, LINES } from "./compare_explain.js";
import { make, makeButton, Panel } from "./dom.js";
import { markLinks, readClasses, restoreWith, writeClasses } from "./links.js";
import { wireOpacity } from "./look.js";
import { OwnTiles } from "./own_tiles.js";
import { rove } from "./rove.js";
import { offerCompare } from "./take_compare.js";
import { Undo, undoByKeys } from "./undo.js";

const NO_CLASS = "There is no such class. Type some letters and choose one from the list.";
const SAME = "These are one and the same class. Choose another one.";

const openInConcepts = (link) => bus.send("concepts", { link });

// What is on screen; `heads` has the model alone, where the other form has two versions.
const newView = () => ({
  heads: ["model"],
  label: "",
  classes: null, // numbers of the two; null for the two likeliest
  explained: null,
  after: null,
  off: new Set(),
  hover: -1,
  locked: -1,
  used: "all",
  shown: LINES,
});

export class ClassCompareTab {
  constructor(component) {
    const { element, props, server } = component;
    Object.assign(this, { props, server });
    this.limits = props.setup.limits;
    markLinks(this.limits);
    this.panel = new Panel(element, server);
    this.view = newView();
    this.explanation = new Explanation(this);
    this.boxes = [this.panel.find(".pl-class-a"), this.panel.find(".pl-class-b")];
    this.words = null;
    this.picture = null; // the one that is explained
    this.explainTurn = 0;
    this.offTurn = 0;
    this.undo = null;
    offerCompare(this);
  }

  listen() {
    keepInView(this.panel.find(".pl-two-frames"), this.panel.find(".pl-main"));
    for (const box of this.boxes) {
      box.addEventListener("focus", () => this.learnWords(), { once: true });
      box.addEventListener("change", () => this.chooseClasses());
    }
    this.panel.find(".pl-likeliest").addEventListener("click", () => this.choose(null));
    this.panel.find(".pl-more").addEventListener("click", () => {
      this.view.shown += LINES;
      this.explanation.drawFall();
    });
    this.panel.find(".pl-all-on").addEventListener("click", () => {
      this.view.off.clear();
      this.askOff();
    });
    wireOpacity(this.panel.find(".pl-opacity input"));
    bus.on("look", () => this.view.explained && this.explanation.drawMaps());
    const travel = (way) => this.undo && this.bringBack(this.undo[way]());
    undoByKeys(
      () => this.panel.isVisible(),
      () => travel("back"),
      () => travel("forward"),
    );
    bus.on("picture", () => this.look());
    new IntersectionObserver((entries) => {
      if (entries.some((entry) => entry.isIntersecting)) this.look();
    }).observe(this.panel.root);
  }

  open() {
    this.layStrip();
    this.follow();
    restoreWith("compare", () => {
      this.follow();
      this.explain();
    });
    this.panel.showAtLast();
  }

  follow() {
    const { classes, off } = readClasses(this.limits, this.props.setup.n_classes);
    Object.assign(this.view, { classes, off: new Set(off), locked: -1 });
  }

  layStrip() {
    const strip = this.panel.find(".pl-compare-strip");
    for (const example of this.props.setup.examples) {
      const button = makeButton("pl-subject-example", undefined, () =>
        bus.send("concepts", { picture: { kind: "example", data: example.name } }),
      );
      const art = make("img");
      Object.assign(art, { src: example.thumbnail, alt: example.title });
      button.title = example.title;
      button.dataset.name = example.name;
      button.append(art);
      strip.append(button);
    }
    this.tiles = new OwnTiles(strip, { before: strip.firstChild, look: "pl-subject-example", choose: openInConcepts });
    strip.append(makeButton("pl-quiet", "Your own picture …", () => bus.goTo("concepts")));
    rove(strip, "button");
  }

  // The picture in view is explained once the tab is looked at; another picture begins anew.
  look() {
    if (!bus.picture || !bus.picture.request || !this.panel.isVisible() || this.picture === bus.picture) return;
    const { value, source } = bus.picture;
    if (this.picture) Object.assign(this.view, { classes: null, off: new Set(), locked: -1 });
    this.picture = bus.picture;
    const photo = this.panel.find(".pl-one img");
    Object.assign(photo, { src: value.picture.src, alt: value.picture.alt });
    for (const button of this.panel.findAll(".pl-subject-example[data-name]")) {
      const shown = source.kind === "example" && button.dataset.name === source.name;
      button.setAttribute("aria-pressed", String(shown));
    }
    this.tiles.mark(source.link);
    this.explain();
  }

  headName() {
    return "The model";
  }

  fileWords() {
    return this.view.explained ? this.view.explained.classes : ["classes"];
  }

  question() {
    return { picture: this.picture && this.picture.request, classes: this.view.classes };
  }

  async learnWords() {
    if (this.words) return;
    const answer = await this.panel.ask({ way: "compare_words" });
    if (!answer) return;
    this.words = answer.words;
    const options = this.words.map((word) => {
      const option = make("option");
      option.value = word;
      return option;
    });
    this.panel.find("datalist").replaceChildren(...options);
  }

  async chooseClasses() {
    await this.learnWords();
    const numbers = this.boxes.map((box) => {
      const typed = box.value.trim().toLowerCase();
      return this.words ? this.words.findIndex((word) => word.toLowerCase() === typed) : -1;
    });
    if (numbers.some((number) => number < 0)) this.panel.notice(NO_CLASS);
    else if (numbers[0] === numbers[1]) this.panel.notice(SAME);
    else this.choose(numbers);
  }

  choose(classes) {
    Object.assign(this.view, { classes, locked: -1 });
    this.explain();
  }

  async explain() {
    if (!this.picture) return;
    const turn = ++this.explainTurn;
    if (this.view.explained) this.panel.root.dataset.state = "busy";
    const answer = await this.panel.ask({ way: "class_explain", ...this.question() });
    if (turn !== this.explainTurn) return;
    this.panel.root.dataset.state = "ready";
    if (!answer) return;
    this.panel.notice([]);
    const { maps, classes, numbers, concepts } = answer;
    const { view } = this;
    view.explained = { ...answer, codes: fromBase64(maps.codes, Uint8Array), scale: maps.scale };
    Object.assign(view, { classes: numbers, after: null, shown: LINES });
    if (view.locked < 0) view.locked = concepts.findIndex((one) => one.activations[0] > 0);
    this.boxes.forEach((box, side) => {
      box.value = classes[side];
    });
    this.draw();
    this.explanation.drawMaps();
    this.keep();
    writeClasses(view);
    if (view.off.size) this.askOff();
    performance.mark("patchlens-explained");
  }

  draw() {
    this.explanation.drawGuesses();
    this.explanation.drawFall();
  }

  // After a concept was switched: its margin follows at once, without another run of the model.
  async askOff() {
    this.keep();
    writeClasses(this.view);
    const turn = ++this.offTurn;
    if (!this.view.off.size) {
      this.view.after = null;
      this.draw();
      return;
    }
    const answer = await this.panel.ask({ way: "class_off", off: [...this.view.off], ...this.question() });
    if (turn !== this.offTurn || !answer) return;
    this.view.after = answer;
    this.draw();
    this.panel.say(`With these concepts off the model says ${answer.predictions[0][0].class}`);
  }

  snapshot() {
    return JSON.stringify({ classes: this.view.classes, off: [...this.view.off] });
  }

  // A picture's own steps alone can be undone.
  keep() {
    if (this.undo && this.undoOf === this.picture) this.undo.keep(this.snapshot());
    else this.undo = new Undo(this.snapshot());
    this.undoOf = this.picture;
  }

  bringBack(kept) {
    if (!kept) return;
    const { classes, off } = JSON.parse(kept);
    Object.assign(this.view, { classes, off: new Set(off) });
    this.explain();
  }
}

export function start(component) {
  const tab = new ClassCompareTab(component);
  tab.listen();
  tab.open();
}
