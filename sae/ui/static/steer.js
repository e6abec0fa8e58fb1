// The Steer tab: joins picture, rack and answers; asks the server; keeps the address bar.

import { keepInView } from "./afloat.js";
import { bus } from "./bus.js";
import { busyWhile, make, makeButton, Panel, pictureColour, setDisabled, setText } from "./dom.js";
import { copyLink, exampleOf, markLinks, pictureInLink, rackText, readRack, readSteer, restoreWith } from "./links.js";
import { mend } from "./own_pictures.js";
import { OwnTiles } from "./own_tiles.js";
import { ownOf } from "./pictures.js";
import { Answers, RECORDED, WRITING } from "./steer_answers.js";
import { experimentPng, savedIn } from "./steer_picture.js";
import { rove } from "./rove.js";
import { Rack } from "./steer_rack.js";
import { Experiment, newRow, ofRegion, PROMPTS } from "./steer_state.js";
import { download } from "./take_files.js";
import { offerSteer } from "./take_steer.js";

const DOSE_FROM_CARD = 1.5;
const MOST_PNG_BYTES = 30e6;
const NOTHING_SAVED = "This picture carries no experiment that was saved here, so it is opened as a picture.";
const ONLY_DESCRIBES =
  "To this question the model says the same as when it is asked to describe the image: it may not have understood " +
  "what is asked.";
const patchesNow = () => (bus.picture ? bus.picture.patches() : []);

// An answer to "describe" begins with "a": what comes after it is the word worth looking at.
const startFor = (prompt) => (prompt === PROMPTS[0] ? "a" : "");

const rowsOf = (experiment) =>
  experiment.edits.map((edit) => ({
    ...newRow(edit.latent, edit.strength),
    mode: edit.mode || "set",
    where: (edit.scope || {}).where || "all",
  }));

const openInConcepts = (link) => bus.send("concepts", { link });

export class SteerTab {
  constructor(component) {
    const { element, props, server, trigger } = component;
    Object.assign(this, { props, server, trigger });
    this.limits = props.setup.limits;
    markLinks(this.limits);
    this.panel = new Panel(element, server);
    this.experiment = new Experiment(this);
    this.rack = new Rack(this);
    this.answers = new Answers(this);
    this.promptField = this.panel.find(".pl-prompt");
    offerSteer(this);
    this.ticket = 0;
    this.writing = false;
    this.nextTurn = 0;
    this.nextWait = 0;
    this.writeWait = 0;
    this.asking = false;
    this.begun = false;
    this.doubt = "";
    this.describes = ""; // the question whose answer was the caption over again
    this.chosen = false; // whether anybody has chosen what is in the rack
  }

  listen() {
    this.listenToExperiment();
    this.listenToAnswers();
    keepInView(this.panel.find(".pl-subject-frame"), this.panel.root);
    const askWith = (selector, ask) => {
      this.panel.find(selector).addEventListener("click", (event) => busyWhile(event.currentTarget, ask));
    };
    askWith(".pl-ladder-go", () => this.askLadder());
    askWith(".pl-would-go", () => this.askCandidates());
    this.panel.find(".pl-target").addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.panel.find(".pl-would-go").click();
    });
    document.addEventListener("dragover", (event) => {
      if (this.panel.isVisible()) event.preventDefault();
    });
    document.addEventListener("drop", (event) => {
      const file = this.panel.isVisible() && event.dataTransfer && event.dataTransfer.files[0];
      if (!file) return;
      event.preventDefault();
      this.openPicture(file);
    });
    bus.receive("steer", ({ concept }) => {
      this.begun = true;
      this.rack.addConcept(concept, DOSE_FROM_CARD);
    });
    bus.on("picture", () => {
      this.drawSubject();
      this.look();
    });
    new IntersectionObserver((entries) => {
      if (entries.some((entry) => entry.isIntersecting)) this.look();
    }).observe(this.panel.root);
  }

  listenToExperiment() {
    this.panel.find(".pl-start").addEventListener("change", () => {
      this.answers.dropStale();
      this.askNext();
    });
    for (const box of this.panel.findAll(".pl-target, .pl-would-way")) {
      box.addEventListener("input", () => this.answers.dropCandidates());
    }
    this.promptField.addEventListener("change", () => this.setPrompt(this.promptField.value));
    this.promptField.addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.setPrompt(this.promptField.value);
    });
    this.panel.find(".pl-error-term").addEventListener("change", (event) => {
      this.experiment.state.errorTerm = event.target.checked;
      this.experiment.keep();
      this.changed();
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
    this.panel.find(".pl-copy").addEventListener("click", (event) => copyLink(this.panel, event.currentTarget));
  }

  // The first look: what the link says, or an empty rack.
  open() {
    this.boundFields();
    this.layPrompts();
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

  async askLadder() {
    if (!this.experiment.state.rows.some((row) => row.on)) {
      this.panel.notice("Turn a concept first: the ladder runs the rack at five strengths.");
      return;
    }
    const of = this.answers.ladderQuestion();
    const answer = await this.ask({ way: "ladder", word: this.panel.find(".pl-word").value, ...this.question() });
    if (answer) this.answers.drawLadder(answer, of);
  }

  async askCandidates() {
    const word = this.panel.find(".pl-target").value.trim();
    if (!word) {
      this.panel.notice("Type a word first: which one should the model say?");
      return;
    }
    this.panel.find(".pl-word").value = word;
    const less = this.panel.find(".pl-would-way").value === "less";
    const of = this.answers.candidatesQuestion();
    this.answers.dropCandidates();
    const answer = await this.ask({ way: "candidates", word, less, start: this.answerStart(), ...this.question() });
    if (!answer) return;
    this.panel.notice([]);
    this.answers.drawCandidates({ ...answer, less }, of);
  }

  async savePicture(name) {
    const { rows, prompt, errorTerm } = this.experiment.state;
    const { original, steered, control } = this.answers.shown;
    const saved = { v: 1, ...pictureInLink(), steer: rackText(rows), ask: prompt, keep: errorTerm ? "1" : "0" };
    const edits = rows.filter((row) => row.on).map((row) => this.rack.editText(row));
    const texts = [
      ["As it is", original],
      ["Steered", steered],
      ["Control", control],
    ];
    const photo = this.panel.find(".pl-subject-photo");
    const png = await experimentPng(saved, { photo, prompt, edits, texts });
    return download(name, new Blob([png], { type: "image/png" }));
  }

  // A saved experiment goes on; any other picture is what is asked about from now on.
  async openPicture(file) {
    const text = file.size < MOST_PNG_BYTES ? savedIn(new Uint8Array(await file.arrayBuffer())) : null;
    try {
      this.openSaved(JSON.parse(text));
    } catch {
      this.panel.notice(NOTHING_SAVED);
      bus.send("concepts", { file });
    }
  }

  // How an answer to the question begins, until somebody says otherwise.
  beginAnswer() {
    this.panel.find(".pl-start").value = startFor(this.experiment.state.prompt);
  }

  answerStart() {
    return this.panel.find(".pl-start").value;
  }

  question() {
    return { picture: bus.picture && bus.picture.request, steer: this.experiment.steerRequest(patchesNow()) };
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

  // Like `panel.ask`; there is a moment before the first picture is there.
  async ask(question) {
    if (bus.picture) return this.panel.ask(question);
    this.panel.notice("The picture is still on its way. Try again in a moment.");
    return null;
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

  drawSubject() {
    const { picture } = bus;
    if (!picture) return;
    const photo = this.panel.find(".pl-subject-photo");
    photo.src = picture.value.picture.src;
    photo.alt = picture.value.picture.alt;
    for (const button of this.panel.findAll(".pl-subject-example")) {
      button.setAttribute(
        "aria-pressed",
        String(picture.source.kind === "example" && button.dataset.name === picture.source.name),
      );
    }
    this.tiles.mark(picture.source.link);
    photo.decode().then(
      () => this.drawMarks(),
      () => {},
    );
  }

  // The chosen patches, outlined on the small picture.
  drawMarks() {
    const canvas = this.panel.find(".pl-subject-marks");
    const photo = this.panel.find(".pl-subject-photo");
    const context = canvas.getContext("2d");
    canvas.width = photo.clientWidth * devicePixelRatio || 1;
    canvas.height = photo.clientHeight * devicePixelRatio || 1;
    const patches = patchesNow();
    const uses = this.experiment.state.rows.some((row) => ofRegion(row));
    if (!bus.picture || !patches.length || !uses) return;
    const { code, value } = bus.picture;
    const [l, t, r, b] = value.box;
    const w = ((r - l) * canvas.width) / code.columns;
    const h = ((b - t) * canvas.height) / code.rows;
    context.strokeStyle = pictureColour("on-picture");
    context.lineWidth = 1.5 * devicePixelRatio;
    context.fillStyle = pictureColour("marked");
    for (const patch of patches) {
      const x = l * canvas.width + (patch % code.columns) * w;
      const y = t * canvas.height + Math.floor(patch / code.columns) * h;
      context.fillRect(x, y, w, h);
      context.strokeRect(x, y, w, h);
    }
  }

  layPrompts() {
    for (const prompt of PROMPTS) {
      const chip = makeButton("pl-chip pl-prompt-chip", prompt, () => this.setPrompt(prompt));
      chip.dataset.prompt = prompt;
      this.panel.find(".pl-prompts").append(chip);
    }
    for (const example of this.props.setup.examples) {
      const button = makeButton("pl-subject-example");
      const art = make("img");
      art.src = example.thumbnail;
      art.alt = example.title;
      button.title = example.title;
      button.dataset.name = example.name;
      button.append(art);
      button.addEventListener("click", () =>
        bus.send("concepts", { picture: { kind: "example", data: example.name } }),
      );
      this.panel.find(".pl-subject-strip").append(button);
    }
    const strip = this.panel.find(".pl-subject-strip");
    this.tiles = new OwnTiles(strip, { before: strip.firstChild, look: "pl-subject-example", choose: openInConcepts });
    strip.append(makeButton("pl-quiet", "Your own picture …", () => bus.goTo("concepts")));
    rove(this.panel.find(".pl-prompts"), "button");
    rove(strip, "button");
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

  applySaved(saved) {
    const rack = readRack(saved.steer, this.limits);
    this.experiment.state.rows = rack;
    if (typeof saved.ask === "string" && saved.ask.trim()) {
      this.experiment.state.prompt = saved.ask.slice(0, this.limits.prompt_letters);
    }
    this.experiment.state.errorTerm = saved.keep !== "0";
    this.experiment.undo.begin(this.experiment.snapshot());
    this.rack.learn(rack.map((row) => row.latent));
  }

  // Back or Forward. The experiment that is left can be undone to, like any other.
  restore() {
    const { undo } = this.experiment;
    const { kept } = undo;
    const link = readSteer(this.limits);
    this.applySaved({ ...link, ask: link.ask || PROMPTS[0] });
    this.begun = this.experiment.state.rows.length > 0;
    if (undo.kept !== kept) undo.past.push(kept);
    this.beginAnswer();
    this.changed();
  }

  openSaved(saved) {
    this.begun = true;
    this.applySaved(saved);
    this.panel.notice("The experiment of this picture was taken up.");
    const name = exampleOf(saved.img);
    if (name || ownOf(saved.img)) bus.send("concepts", { link: saved.img });
    else this.changed();
  }

  // Nothing is shown before there is a picture and a rack, so that nothing moves.
  look() {
    if (!this.begin()) this.changed();
    if (bus.picture && this.panel.isVisible()) this.panel.root.dataset.state = "ready";
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
