// What both forms of the Steer tab have: the picture, the rack, saved experiments, and one question at a time.

import { keepInView } from "./afloat.js";
import { bus } from "./bus.js";
import { busyWhile, make, makeButton, Panel, pictureColour } from "./dom.js";
import { copyLink, exampleOf, markLinks, pictureInLink, rackText, readRack, readSteer } from "./links.js";
import { OwnTiles } from "./own_tiles.js";
import { ownOf } from "./pictures.js";
import { rove } from "./rove.js";
import { experimentPng, savedIn } from "./steer_picture.js";
import { Rack } from "./steer_rack.js";
import { Experiment, ofRegion, PROMPTS } from "./steer_state.js";
import { download } from "./take_files.js";

const DOSE_FROM_CARD = 1.5;
const MOST_PNG_BYTES = 30e6;
const NOTHING_SAVED = "This picture carries no experiment that was saved here, so it is opened as a picture.";
const patchesNow = () => (bus.picture ? bus.picture.patches() : []);

const openInConcepts = (link) => bus.send("concepts", { link });

// A form adds `changed()`, which is called after every change, and what it answers.
export class Bench {
  constructor(component) {
    const { element, props, server, trigger } = component;
    Object.assign(this, { props, server, trigger });
    this.limits = props.setup.limits;
    markLinks(this.limits);
    this.panel = new Panel(element, server);
    this.experiment = new Experiment(this);
    this.rack = new Rack(this);
    this.begun = false;
    this.chosen = false; // whether anybody has chosen what is in the rack
  }

  listenToPictures() {
    keepInView(this.panel.find(".pl-subject-frame"), this.panel.root);
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

  listenToErrorTerm() {
    this.panel.find(".pl-error-term").addEventListener("change", (event) => {
      this.experiment.state.errorTerm = event.target.checked;
      this.experiment.keep();
      this.changed();
    });
  }

  listenToTables() {
    for (const box of this.panel.findAll(".pl-target, .pl-would-way")) {
      box.addEventListener("input", () => this.answers.dropCandidates());
    }
    const askWith = (selector, ask) => {
      this.panel.find(selector).addEventListener("click", (event) => busyWhile(event.currentTarget, ask));
    };
    askWith(".pl-ladder-go", () => this.askLadder());
    askWith(".pl-would-go", () => this.askCandidates());
    this.panel.find(".pl-target").addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.panel.find(".pl-would-go").click();
    });
    this.panel.find(".pl-copy").addEventListener("click", (event) => copyLink(this.panel, event.currentTarget));
  }

  // Before the rack opens with anything else than what somebody chose.
  isDefault() {
    return false;
  }

  begin() {
    return false;
  }

  beginAnswer() {}

  answerStart() {
    return "";
  }

  async askLadder() {
    if (!this.experiment.state.rows.some((row) => row.on)) {
      this.panel.notice("Turn a concept first: the ladder runs the rack at five strengths.");
      return;
    }
    const of = this.answers.ladderQuestion();
    const answer = await this.ask({
      way: this.ways.ladder,
      word: this.panel.find(".pl-word").value,
      ...this.question(),
    });
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
    const answer = await this.ask({
      way: this.ways.candidates,
      word,
      less,
      start: this.answerStart(),
      ...this.question(),
    });
    if (!answer) return;
    this.panel.notice([]);
    this.answers.drawCandidates({ ...answer, less }, of);
  }

  // `shown` says what stands beside the picture, see `experimentPng`.
  async savePng(name, shown) {
    const { rows, prompt, errorTerm } = this.experiment.state;
    const saved = { v: 1, ...pictureInLink(), steer: rackText(rows), ask: prompt, keep: errorTerm ? "1" : "0" };
    const edits = rows.filter((row) => row.on).map((row) => this.rack.editText(row));
    const photo = this.panel.find(".pl-subject-photo");
    const png = await experimentPng(saved, { photo, edits, ...shown });
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

  question() {
    return { picture: bus.picture && bus.picture.request, steer: this.experiment.steerRequest(patchesNow()) };
  }

  // Like `panel.ask`; there is a moment before the first picture is there.
  async ask(question) {
    if (bus.picture) return this.panel.ask(question);
    this.panel.notice("The picture is still on its way. Try again in a moment.");
    return null;
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

  layStrip() {
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
    rove(strip, "button");
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
}
