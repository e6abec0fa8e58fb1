// The Steer tab: joins picture, rack and answers; asks the server; keeps the address bar.

import { bus } from "./bus.js";
import { makeButton, setDisabled, setText } from "./dom.js";
import { rackText, readSteer, restoreWith } from "./links.js";
import { mend } from "./own_pictures.js";
import { Answers, RECORDED, WRITING } from "./steer_answers.js";
import { Bench } from "./steer_bench.js";
import { rove } from "./rove.js";
import { newRow, PROMPTS } from "./steer_state.js";
import { offerSteer } from "./take_steer.js";

const ONLY_DESCRIBES =
  "To this question the model says the same as when it is asked to describe the image: it may not have understood " +
  "what is asked.";
// An answer to "describe" begins with "a": what comes after it is the word worth looking at.
const startFor = (prompt) => (prompt === PROMPTS[0] ? "a" : "");

const rowsOf = (experiment) =>
  experiment.edits.map((edit) => ({
    ...newRow(edit.latent, edit.strength),
    mode: edit.mode || "set",
    where: (edit.scope || {}).where || "all",
  }));

export class SteerTab extends Bench {
  constructor(component) {
    super(component);
    this.ways = { ladder: "ladder", candidates: "candidates" };
    this.answers = new Answers(this);
    this.promptField = this.panel.find(".pl-prompt");
    offerSteer(this);
    this.ticket = 0;
    this.writing = false;
    this.nextTurn = 0;
    this.nextWait = 0;
    this.writeWait = 0;
    this.asking = false;
    this.doubt = "";
    this.describes = ""; // the question whose answer was the caption over again
  }

  listen() {
    this.listenToExperiment();
    this.listenToErrorTerm();
    this.listenToAnswers();
    this.listenToTables();
    this.listenToPictures();
  }

  listenToExperiment() {
    this.panel.find(".pl-start").addEventListener("change", () => {
      this.answers.dropStale();
      this.askNext();
    });
    this.promptField.addEventListener("change", () => this.setPrompt(this.promptField.value));
    this.promptField.addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.setPrompt(this.promptField.value);
    });
    this.panel.find(".pl-limit").addEventListener("change", (event) => {
      const limit = Math.round(Number(event.target.value)) || this.limits.usual_tokens;
      this.experiment.state.limit = Math.max(1, Math.min(this.limits.new_tokens, limit));
      event.target.value = this.experiment.state.limit;
      this.changed();
    });
  }

  listenToAnswers() {
    this.panel.find(".pl-write").addEventListener("click", () => {
      clearTimeout(this.writeWait);
      this.write();
    });
    this.panel.find(".pl-stop").addEventListener("click", () => {
      this.trigger("halt", {});
      this.ticket += 1; // what still arrives of the stopped answer is not shown
      this.stopped();
      this.answers.sayState("Stopped; the text so far is kept.");
    });
  }

  // The first look: what the link says, or an empty rack.
  open() {
    this.boundFields();
    this.layPrompts();
    this.layStrip();
    this.layExperiments();
    this.applySaved(readSteer(this.limits));
    restoreWith("steer", () => this.restore());
    this.beginAnswer();
    this.drawSubject();
    this.begun = this.experiment.state.rows.length > 0;
    this.panel.showAtLast();
  }

  boundFields() {
    const { prompt_letters: prompt, start_letters: begin, word_letters: word } = this.limits;
    this.promptField.maxLength = prompt;
    this.panel.find(".pl-start").maxLength = begin;
    for (const field of this.panel.findAll(".pl-word, .pl-target, .pl-add")) field.maxLength = word;
    Object.assign(this.panel.find(".pl-limit"), { max: this.limits.new_tokens, value: this.limits.usual_tokens });
  }

  savePicture(name) {
    const { original, steered, control } = this.answers.shown;
    const texts = [
      ["As it is", original],
      ["Steered", steered],
      ["Control", control],
    ];
    return this.savePng(name, { title: this.experiment.state.prompt, texts });
  }

  // How an answer to the question begins, until somebody says otherwise.
  beginAnswer() {
    this.panel.find(".pl-start").value = startFor(this.experiment.state.prompt);
  }

  answerStart() {
    return this.panel.find(".pl-start").value;
  }

  // After every change: draw at once, ask for the next word soon, write the texts a little later.
  changed() {
    this.rack.drawRack();
    this.drawPrompts();
    this.drawMarks();
    this.answers.dropStale();
    this.experiment.writeLink();
    if (!bus.picture || !bus.picture.request || !this.panel.isVisible()) return;
    clearTimeout(this.nextWait);
    clearTimeout(this.writeWait);
    this.nextWait = setTimeout(() => this.askNext(), 60);
    this.writeWait = setTimeout(() => this.write(), 380);
    this.answers.sayState(this.answers.recorded ? RECORDED : WRITING);
  }

  async askNext() {
    const turn = ++this.nextTurn;
    if (this.asking) return;
    this.asking = true;
    const answer = await this.ask({ way: "next", start: this.answerStart(), ...this.question() });
    this.asking = false;
    if (turn !== this.nextTurn) {
      this.askNext();
      return;
    }
    if (!answer) return;
    this.panel.notice([]);
    this.answers.drawNext(answer);
    this.sayDoubt({ doubt: answer.doubt });
    performance.mark("patchlens-next");
  }

  write() {
    if (!bus.picture || !bus.picture.request) return;
    if (this.writing) this.trigger("halt", {});
    this.ticket += 1;
    this.writing = true;
    this.panel.find(".pl-stop").disabled = false;
    this.answers.sayState(WRITING);
    this.panel.find(".pl-answers").classList.add("pl-writing");
    this.trigger("write", { ticket: this.ticket, ...this.question() });
  }

  stopped() {
    this.writing = false;
    setDisabled(this.panel.find(".pl-stop"), true, this.panel.find(".pl-answers"));
    this.panel.find(".pl-answers").classList.remove("pl-writing");
  }

  async take(value) {
    if (!value || value.ticket !== this.ticket) return;
    if (value.problem) {
      if (await mend(bus.picture && bus.picture.request, value)) {
        if (value.ticket === this.ticket) this.write();
        return;
      }
      this.stopped();
      this.answers.sayState("This could not be written.");
      this.panel.notice(value.problem, "problem");
      return;
    }
    if (value.ended) {
      if (this.writing) this.answers.sayState("The text ended early; press Write for the whole.");
      this.stopped();
      if (this.answers.shown.steered) performance.mark("patchlens-written");
      return;
    }
    if ("only_describes" in value) {
      this.sayDoubt({ only: value.only_describes });
      return;
    }
    this.answers.drawAnswers(value, { writing: !value.done });
    if (value.done) {
      this.stopped();
      this.panel.say(`Steered text: ${this.answers.shown.steered}`);
      performance.mark("patchlens-written");
    }
  }

  drawPrompts() {
    if (document.activeElement !== this.promptField) this.promptField.value = this.experiment.state.prompt;
    for (const chip of this.panel.findAll(".pl-prompt-chip")) {
      chip.setAttribute("aria-pressed", String(chip.dataset.prompt === this.experiment.state.prompt));
    }
    this.panel.find(".pl-error-term").checked = this.experiment.state.errorTerm;
  }

  // What is known of whether the question is answered at all: before an answer, and once it is there.
  sayDoubt({ doubt, only }) {
    if (doubt !== undefined) this.doubt = doubt;
    if (only !== undefined) this.describes = only ? this.asked() : "";
    const again = this.describes === this.asked() ? ONLY_DESCRIBES : "";
    setText(this.panel.find(".pl-untaught"), [again, this.doubt].filter(Boolean).join(" "));
  }

  asked() {
    return JSON.stringify([bus.picture && bus.picture.request, this.experiment.state.prompt]);
  }

  setPrompt(text) {
    if (!text.trim()) return;
    this.experiment.state.prompt = text;
    this.beginAnswer();
    this.experiment.keep("prompt");
    this.changed();
  }

  layPrompts() {
    for (const prompt of PROMPTS) {
      const chip = makeButton("pl-chip pl-prompt-chip", prompt, () => this.setPrompt(prompt));
      chip.dataset.prompt = prompt;
      this.panel.find(".pl-prompts").append(chip);
    }
    rove(this.panel.find(".pl-prompts"), "button");
  }

  layExperiments() {
    const box = this.panel.find(".pl-experiments");
    box.hidden = !this.props.setup.experiments.length;
    for (const experiment of this.props.setup.experiments) {
      const chip = makeButton("pl-chip", experiment.title, () => {
        this.chosen = true;
        this.tryExperiment(experiment);
      });
      chip.title = "Its answer was written before and comes at once; the live one follows";
      box.append(chip);
    }
    rove(box, "button");
  }

  // Whether the rack still is what the tab opens with: it makes way for whatever one chooses oneself.
  isDefault() {
    const [first] = this.props.setup.experiments;
    return Boolean(first) && !this.chosen && rackText(this.experiment.state.rows) === rackText(rowsOf(first));
  }

  // An experiment shows its recorded answer at once, then the live one.
  tryExperiment(experiment) {
    this.experiment.state.prompt = experiment.prompt;
    this.beginAnswer();
    this.experiment.state.rows = rowsOf(experiment);
    this.experiment.keep();
    this.rack.learn(this.experiment.state.rows.map((row) => row.latent));
    this.answers.drawAnswers(experiment.recorded, { recorded: true });
    const patches = experiment.edits.map((edit) => (edit.scope || {}).patches).find(Boolean);
    if (!patches && bus.picture && bus.picture.source.name === experiment.example) this.changed();
    else {
      this.rack.drawRack();
      bus.send("concepts", { picture: { kind: "example", data: experiment.example, patches } });
    }
  }

  // The first look at an empty rack opens the first experiment, if the picture in view is that experiment's.
  begin() {
    const [experiment] = this.props.setup.experiments;
    if (this.begun || !bus.picture || !this.panel.isVisible()) return false;
    this.begun = true;
    const fits = experiment && bus.picture.source.name === experiment.example;
    if (!fits || experiment.edits.some((edit) => (edit.scope || {}).patches)) return false;
    this.tryExperiment(experiment);
    return true;
  }
}

export function start(component) {
  const tab = new SteerTab(component);
  tab.open();
  tab.listen();
  return () => tab.take(component.props.value);
}
