// The Compare tab: choices, pictures and questions; asks the server and keeps the address bar.

import { keepInView } from "./afloat.js";
import { bus } from "./bus.js";
import { fromBase64 } from "./code.js";
import { Explanation, LINES } from "./compare_explain.js";
import { WholeTask } from "./compare_task.js";
import { busyWhile, make, Panel, setText, switchGroup } from "./dom.js";
import { markLinks, readCompare, restoreWith, writeCompare } from "./links.js";
import { wireOpacity } from "./look.js";
import { offerCompare } from "./take_compare.js";
import { leaveOut } from "./misfits.js";
import { OwnTiles } from "./own_tiles.js";
import { requestOf } from "./pictures.js";
import { Undo, undoByKeys } from "./undo.js";

function fillBox(box, pairs, value) {
  box.replaceChildren(
    ...pairs.map(([key, text]) => {
      const option = make("option", "", text);
      option.value = key;
      return option;
    }),
  );
  box.value = value;
}

// What is on screen: the question, the answer that is shown, and what is pointed at or switched off.
function newView(heads) {
  return {
    task: "",
    heads,
    split: "base",
    number: 0,
    own: "", // what links call a picture that is not of the task
    label: "",
    request: null,
    classes: null,
    explained: null,
    after: null,
    off: new Set(),
    hover: -1,
    locked: -1,
    used: "all",
    shown: LINES,
  };
}

export class CompareTab {
  constructor(component) {
    const { element, props, server } = component;
    Object.assign(this, { props, server });
    this.limits = props.setup.limits;
    markLinks(this.limits);
    this.panel = new Panel(element, server);
    this.view = newView(props.setup.heads);
    this.explanation = new Explanation(this);
    this.whole = new WholeTask(this);
    offerCompare(this);
    this.taskBox = this.panel.find(".pl-task");
    this.boxes = [this.panel.find(".pl-head-a"), this.panel.find(".pl-head-b")];
    this.classBoxes = [this.panel.find(".pl-class-a"), this.panel.find(".pl-class-b")];
    this.wordsBox = this.panel.find(".pl-words-in");
    this.explainTurn = 0;
    this.offTurn = 0;
    this.offWait = 0;
    this.undo = null; // from the first picture on
    this.showSplit = switchGroup(this.panel.find(".pl-split"), (value) => {
      this.view.split = value;
      this.showSplit(value);
      this.changeTask();
    });
    this.showUsed = switchGroup(this.panel.find(".pl-used"), (value) => {
      this.view.used = value;
      this.view.shown = LINES;
      this.showUsed(value);
      this.explanation.drawFall();
    });
  }

  listen() {
    keepInView(this.panel.find(".pl-two-frames"), this.panel.find(".pl-main"));
    this.taskBox.addEventListener("change", () => {
      this.view.task = this.taskBox.value;
      this.changeTask();
    });
    this.boxes.forEach((box, side) => {
      box.addEventListener("change", () => {
        this.view.heads[side] = box.value;
        this.layTask();
        this.explain();
      });
    });
    this.listenToPictures();
    wireOpacity(this.panel.find(".pl-opacity input"));
    bus.on("look", () => this.view.explained && this.explanation.drawMaps());
    this.listenToUndo();
    this.panel.find(".pl-more").addEventListener("click", () => {
      this.view.shown += LINES;
      this.explanation.drawFall();
    });
    this.panel.find(".pl-all-on").addEventListener("click", () => {
      this.view.off.clear();
      this.askOff();
    });
    this.classBoxes[0].addEventListener("change", () => this.chooseClass());
    this.classBoxes[1].addEventListener("change", () => {
      if (this.classBoxes[1].value === this.view.classes[0]) return;
      this.view.classes = [this.view.classes[0], this.classBoxes[1].value];
      this.explain();
    });
    this.wordsBox.addEventListener("change", () => this.explain());
    this.wordsBox.addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.explain();
    });
  }

  listenToUndo() {
    const travel = (way) => this.undo && this.bringBack(this.undo[way]());
    undoByKeys(
      () => this.panel.isVisible(),
      () => travel("back"),
      () => travel("forward"),
    );
  }

  listenToPictures() {
    const turn = (selector, step) => {
      this.panel.find(selector).addEventListener("click", () => {
        this.view.number = this.numberAfter(step);
        this.view.off.clear();
        this.openSample();
      });
    };
    turn(".pl-next-picture", 1);
    turn(".pl-previous", -1);
    this.panel.find(".pl-differ").addEventListener("click", (event) => {
      this.view.off.clear();
      busyWhile(event.currentTarget, () => this.openDiffering(this.numberAfter(1)));
    });
    this.panel.find(".pl-use").addEventListener("click", () => {
      if (bus.picture && bus.picture.request) this.openOwn(bus.picture.source.link);
    });
    const choose = (link) => this.openOwn(link);
    this.tiles = new OwnTiles(this.panel.find(".pl-compare-strip"), { look: "pl-subject-example", choose });
  }

  // A picture that is not of the task: one's own, an example or a scene.
  async openOwn(link) {
    let request = null;
    try {
      request = await requestOf(link);
    } catch {
      this.panel.notice("The picture could not be sent. Try again in a moment.", "problem");
      return true;
    }
    const answer = request && (await this.panel.ask({ way: "open", ...request }));
    if (!answer) return false;
    this.view.own = link;
    this.view.off.clear();
    this.show(answer.picture, request, "");
    return true;
  }

  numberAfter(step) {
    return (this.view.number + step + this.limits.samples) % this.limits.samples;
  }

  // The first look: what the link names, or else a picture on which the heads disagree.
  open() {
    this.wordsBox.maxLength = this.limits.words_letters;
    this.showUsed(this.view.used);
    this.openLinked();
    restoreWith("compare", () => this.openLinked());
  }

  openLinked() {
    const named = this.followLink();
    this.showSplit(this.view.split);
    this.layTask();
    this.panel.showAtLast();
    if (this.view.own) this.openOwnOfLink(this.view.own);
    else if (named) this.openSample();
    else this.openDiffering(0, true);
  }

  async openOwnOfLink(link) {
    const off = [...this.view.off];
    if (await this.openOwn(link)) this.view.off = new Set(off);
    else {
      leaveOut("its picture is not kept in this browser");
      this.openDiffering(0, true);
    }
  }

  chooseClass() {
    const first = this.classBoxes[0].value;
    const second = this.classBoxes[1].value;
    const names = this.taskNow()[this.view.split];
    const other = second && second !== first ? second : names.find((name) => name !== first);
    this.view.classes = first ? [first, other] : null;
    this.wordsBox.value = "";
    this.layClasses();
    this.explain();
  }

  taskNow() {
    return this.props.setup.tasks.find((one) => one.name === this.view.task);
  }

  headName(name) {
    return this.taskNow().heads.find((head) => head.name === name).label;
  }

  question() {
    return {
      picture: this.view.request,
      task: this.view.task,
      split: this.view.split,
      heads: this.view.heads,
      classes: this.view.classes,
      words: this.wordsBox.value.trim(),
    };
  }

  layTask() {
    const task = this.taskNow();
    const offered = task.heads.filter((head) => this.view.split === "base" || head.any_classes);
    const names = offered.map((head) => head.name);
    this.view.heads = this.view.heads.map((name, side) =>
      names.includes(name) ? name : names[Math.min(side * (names.length - 1), names.length - 1)],
    );
    this.boxes.forEach((box, side) =>
      fillBox(
        box,
        names.map((name) => [name, this.headName(name)]),
        this.view.heads[side],
      ),
    );
    fillBox(
      this.taskBox,
      this.props.setup.tasks.map((one) => [one.name, one.title]),
      this.view.task,
    );
    setText(this.panel.find(".pl-cause"), task.cause);
    this.layClasses();
    this.whole.drawTask();
  }

  layClasses() {
    const task = this.taskNow();
    const names = task[this.view.split];
    const pairs = [["", "what they disagree on"], ...names.map((name) => [name, name])];
    fillBox(this.classBoxes[0], pairs, this.view.classes ? this.view.classes[0] : "");
    fillBox(
      this.classBoxes[1],
      names.map((name) => [name, name]),
      this.view.classes ? this.view.classes[1] : names[1],
    );
    this.classBoxes[1].parentElement.hidden = !this.view.classes;
  }

  async openSample() {
    this.view.own = "";
    const answer = await this.panel.ask({
      way: "sample",
      task: this.view.task,
      split: this.view.split,
      number: this.view.number,
    });
    if (answer) this.show(answer.picture, answer.request, answer.label);
  }

  // The first picture from `from` on to which the two heads give different answers. A task opens on
  // one that the second head has `right`; the button takes whatever comes.
  async openDiffering(from, right) {
    const asked = { task: this.view.task, split: this.view.split, heads: this.view.heads };
    const answer = await this.panel.ask({ way: "differ", number: from, right: Boolean(right), ...asked });
    if (answer && answer.number !== null) this.view.number = answer.number;
    else if (answer) this.panel.say("They agree on the pictures that were tried.");
    await this.openSample();
    if (answer && answer.number === null && !right) {
      this.panel.notice(`The two say the same of the next ${this.limits.tried} pictures of this task.`);
    }
  }

  show(picture, request, label) {
    Object.assign(this.view, { request, label, locked: -1 });
    this.tiles.mark(this.view.own);
    for (const image of this.panel.findAll(".pl-one img")) {
      image.src = picture.src;
      image.alt = picture.alt;
    }
    this.explain();
  }

  async explain() {
    if (!this.view.request) return;
    this.keep();
    const turn = ++this.explainTurn;
    if (this.view.explained) this.panel.root.dataset.state = "busy";
    const answer = await this.panel.ask({ way: "explain", ...this.question() });
    if (turn !== this.explainTurn) return;
    this.panel.root.dataset.state = "ready";
    if (!answer) return;
    this.panel.notice([]);
    this.view.explained = { ...answer, codes: fromBase64(answer.maps.codes, Uint8Array), scale: answer.maps.scale };
    this.view.after = null;
    this.view.shown = LINES;
    if (this.view.locked < 0) this.view.locked = answer.concepts.findIndex((one) => Math.max(...one.activations) > 0);
    for (const figure of this.panel.findAll(".pl-one")) {
      setText(figure.querySelector("figcaption span"), this.headName(this.view.heads[Number(figure.dataset.side)]));
    }
    this.drawAll();
    this.writeLink();
    if (this.view.off.size) this.askOff();
    performance.mark("patchlens-explained");
  }

  drawAll() {
    this.explanation.drawMaps();
    this.explanation.drawGuesses();
    this.explanation.drawFall();
  }

  askOff() {
    this.keep();
    this.writeLink();
    clearTimeout(this.offWait);
    if (!this.view.off.size) {
      this.view.after = null;
      this.offTurn++;
      this.explanation.drawGuesses();
      this.explanation.drawFall();
      return;
    }
    this.offWait = setTimeout(async () => {
      const turn = ++this.offTurn;
      const answer = await this.panel.ask({ way: "off", off: [...this.view.off], ...this.question() });
      if (turn !== this.offTurn || !answer) return;
      this.view.after = answer;
      this.explanation.drawGuesses();
      this.explanation.drawFall();
      const said = answer.predictions.map(
        ([best], side) => `${this.headName(this.view.heads[side])} says ${best.class}`,
      );
      this.panel.say(`With these concepts off: ${said.join(", ")}`);
    }, 60);
  }

  // What a file of this comparison is called.
  fileWords() {
    const { task, heads, own, number } = this.view;
    return [task, ...heads, own ? "your-picture" : `picture-${number}`];
  }

  writeLink() {
    if (this.view.task) writeCompare(this.view);
  }

  // A link's parts are looked up in what there is; the rest is left out.
  followLink() {
    const { task, split, heads, number, own, off } = readCompare(this.limits);
    const { tasks } = this.props.setup;
    const known = tasks.find((one) => one.name === task);
    if (task !== null && !known) leaveOut("its task does not exist");
    this.view.task = (known || tasks[0]).name;
    this.view.split = split === "novel" ? "novel" : "base";
    if (split !== null && split !== "novel") leaveOut("its kind of classes does not exist");
    this.followHeads(heads);
    Object.assign(this.view, { classes: null, locked: -1, number: number || 0, own, off: new Set(off) });
    return number !== null;
  }

  followHeads(text) {
    const heads = (text || "").split(",");
    const names = this.taskNow().heads.map((one) => one.name);
    const known = heads.length === 2 && heads.every((name) => names.includes(name));
    if (known) this.view.heads = heads;
    else if (text !== null) leaveOut("its two versions do not exist");
  }

  // What Ctrl+Z brings back, as text.
  snapshot() {
    const { task, heads, split, number, own, classes, off } = this.view;
    return JSON.stringify({ task, heads, split, number, own, classes, off: [...off], words: this.wordsBox.value });
  }

  keep() {
    if (this.undo) this.undo.keep(this.snapshot());
    else this.undo = new Undo(this.snapshot());
  }

  bringBack(kept) {
    if (!kept) return;
    const { words, off, ...view } = JSON.parse(kept);
    const sameOwn = view.own && view.own === this.view.own;
    Object.assign(this.view, view, { off: new Set(off) });
    this.wordsBox.value = words;
    this.showSplit(this.view.split);
    this.layTask();
    if (sameOwn) this.explain();
    else if (this.view.own) this.openOwn(this.view.own);
    else this.openSample();
  }

  changeTask() {
    this.view.classes = null;
    this.view.off.clear();
    this.layTask();
    this.openDiffering(0, true);
  }
}

export function start(component) {
  const tab = new CompareTab(component);
  tab.listen();
  tab.open();
}
