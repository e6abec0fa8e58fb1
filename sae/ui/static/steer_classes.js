// The Steer tab of a classifier: joins picture, rack and the bars of its classes.

import { bus } from "./bus.js";
import { make } from "./dom.js";
import { readSteer, restoreWith } from "./links.js";
import { ClassAnswers } from "./class_answers.js";
import { Bench } from "./steer_bench.js";
import { offerClasses } from "./take_steer.js";

const ALL_OFF = "The ladder multiplies strengths, and here all are 0. Turn a concept up, or below 0, first.";

export class ClassTab extends Bench {
  constructor(component) {
    super(component);
    this.ways = { ladder: "class_ladder", candidates: "class_candidates" };
    this.answers = new ClassAnswers(this);
    this.target = this.panel.find(".pl-target");
    this.typed = false; // whether the class to ask for was chosen by hand
    this.asking = false;
    this.stale = false;
    this.spoken = "";
    offerClasses(this);
  }

  listen() {
    this.listenToErrorTerm();
    this.listenToTables();
    this.listenToPictures();
    this.target.addEventListener("input", () => {
      this.typed = this.target.value.trim() !== "";
    });
    for (const field of this.panel.findAll(".pl-target, .pl-word")) {
      field.addEventListener("focus", () => this.learnWords(), { once: true });
    }
  }

  open() {
    const { word_letters: word } = this.limits;
    for (const field of this.panel.findAll(".pl-word, .pl-target, .pl-add")) field.maxLength = word;
    this.layStrip();
    this.applySaved(readSteer(this.limits));
    restoreWith("steer", () => this.restore());
    this.drawSubject();
    this.panel.showAtLast();
  }

  // The classes that a field offers while one types, asked for once.
  async learnWords() {
    const list = this.panel.find("datalist");
    if (list.children.length) return;
    const answer = await this.panel.ask({ way: "class_words" });
    if (!answer || list.children.length) return;
    list.append(
      ...answer.words.map((word) => {
        const option = make("option");
        option.value = word;
        return option;
      }),
    );
  }

  // After every change: draw the rack at once, and the bars as soon as they are known.
  changed() {
    this.rack.drawRack();
    this.drawMarks();
    this.answers.dropStale();
    this.experiment.writeLink();
    this.panel.find(".pl-error-term").checked = this.experiment.state.errorTerm;
    if (bus.picture && bus.picture.request && this.panel.isVisible()) this.askBars();
  }

  // One question at a time: while one is on its way, what changes is asked after it.
  async askBars() {
    this.stale = true;
    if (this.asking) return;
    this.asking = true;
    while (this.stale) {
      this.stale = false;
      const { picture } = bus;
      const answer = await this.ask({ way: "bars", ...this.question() });
      if (!answer) continue;
      if (picture !== bus.picture) this.stale = true;
      else this.show(answer);
    }
    this.asking = false;
  }

  show(answer) {
    this.panel.notice([]);
    this.answers.drawBars(answer);
    if (!this.typed) this.target.value = answer.original;
    const said = answer.control === null ? answer.original : answer.steered;
    if (said !== this.spoken) this.panel.say(`The model says ${said}`);
    this.spoken = said;
    performance.mark("patchlens-classes");
  }

  // Multiples of nothing are nothing: what is switched off has no ladder.
  askLadder() {
    const on = this.experiment.state.rows.filter((row) => row.on);
    const off = on.length > 0 && on.every((row) => row.strength === 0);
    if (off) this.panel.notice(ALL_OFF);
    return off ? null : super.askLadder();
  }

  savePicture(name) {
    const { classes, original, steered, control } = this.answers.shown;
    const bars = classes.map((one) => ({ name: one.name, shares: [one.before, one.after, one.control] }));
    const title = control === null ? original : `${original} → ${steered}`;
    return this.savePng(name, { title, bars });
  }
}

export function start(component) {
  const tab = new ClassTab(component);
  tab.open();
  tab.listen();
}
