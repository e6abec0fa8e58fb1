// Where pictures come from: examples, the composer, a file that is picked, dropped or pasted.

import { isTyping, make, makeButton } from "./dom.js";
import { exampleOf } from "./links.js";

const ANSWER_WAIT_MS = 60000;
const ASK_ANYWAY_MS = 5000;
const NO_ANSWER = "The server has not answered for a minute. Try again, or reload the page.";
const carriesFile = (event) => event.dataTransfer && [...event.dataTransfer.types].includes("Files");

export class Sources {
  constructor(tab) {
    this.tab = tab;
    this.panel = tab.panel;
    this.state = tab.state;
    this.ticket = 0;
    this.requests = new Map();
    // Gradio loses answers where questions overlap: one is on its way, the newest waits for its answer.
    this.sent = { ticket: -1, at: 0 };
    this.next = null;
    this.waitTimer = 0;
    this.fileInput = this.panel.find(".pl-file");
    this.dragDepth = 0;
    this.listen();
  }

  listen() {
    this.panel.find(".pl-own").addEventListener("click", () => this.fileInput.click());
    this.fileInput.addEventListener("change", () => {
      if (this.fileInput.files.length) this.takeFile(this.fileInput.files[0]);
      this.fileInput.value = "";
    });
    document.addEventListener("dragenter", (event) => {
      if (carriesFile(event) && this.panel.isVisible()) {
        this.dragDepth++;
        this.dragging(true);
      }
    });
    document.addEventListener("dragleave", (event) => {
      if (carriesFile(event) && --this.dragDepth <= 0) {
        this.dragDepth = 0;
        this.dragging(false);
      }
    });
    document.addEventListener("dragover", (event) => {
      if (carriesFile(event) && this.panel.isVisible()) event.preventDefault();
    });
    document.addEventListener("drop", (event) => {
      if (!carriesFile(event) || !this.panel.isVisible()) return;
      event.preventDefault();
      this.dragDepth = 0;
      this.dragging(false);
      if (event.dataTransfer.files.length) this.takeFile(event.dataTransfer.files[0]);
    });
    document.addEventListener("paste", (event) => {
      if (!this.panel.isVisible() || isTyping(event)) return;
      const files = event.clipboardData ? [...event.clipboardData.files] : [];
      const file = files.find((one) => one.type.startsWith("image/"));
      if (!file) return;
      event.preventDefault();
      this.takeFile(file);
    });
  }

  // Whether an answer is not older than the last question; it is then the last word.
  isNewest(value) {
    if (value.ticket === this.sent.ticket) this.sendNext();
    if (value.ticket < this.ticket) return false;
    if (!value.problem) {
      this.ticket = value.ticket;
      clearTimeout(this.waitTimer);
    }
    return true;
  }

  // How to ask for the picture in view again.
  requestFor(value) {
    const { source } = value;
    const known = this.requests.get(value.ticket);
    this.requests.clear();
    if (known && known.kind !== "code") return known;
    if (source.kind === "example") return { kind: "example", data: source.name };
    return source.scene ? { kind: "scene", data: JSON.stringify(source.scene) } : null;
  }

  // Ask the server for a picture's code; only the newest answer is shown, with what is `asked` of it.
  ask(kind, data, words, asked = null) {
    this.tab.asked = asked;
    const ticket = ++this.ticket;
    this.panel.root.dataset.state = "busy";
    this.panel.say(words);
    clearTimeout(this.waitTimer);
    this.waitTimer = setTimeout(() => this.failed(ticket, NO_ANSWER), ANSWER_WAIT_MS);
    this.requests.set(ticket, { kind, data });
    this.next = { ticket, kind, data };
    if (this.sent.ticket < 0 || performance.now() - this.sent.at > ASK_ANYWAY_MS) this.sendNext();
  }

  sendNext() {
    const { next } = this;
    this.next = null;
    this.sent = { ticket: next ? next.ticket : -1, at: performance.now() };
    if (next) this.tab.trigger("open", next);
  }

  // The picture that a link names; another one where there is no such picture.
  openLink(link, asked) {
    const words = "Opening the picture";
    if (link.startsWith("sc:")) this.ask("code", link, words, asked);
    else this.ask("example", exampleOf(link) || this.tab.props.setup.examples[0].name, words, asked);
  }

  // What is on its way is not wanted any more.
  drop() {
    this.ticket++;
    this.next = null;
    clearTimeout(this.waitTimer);
    this.panel.root.dataset.state = "ready";
  }

  failed(ticket, sentence) {
    if (ticket !== this.ticket) return;
    clearTimeout(this.waitTimer);
    this.panel.root.dataset.state = this.state.code ? "ready" : "empty";
    this.panel.notice(sentence, "problem");
    this.panel.say(sentence);
  }

  layExamples() {
    const strip = this.panel.find(".pl-strip");
    for (const example of this.tab.props.setup.examples) {
      const button = makeButton("pl-source pl-example");
      const art = make("img", "pl-source-art");
      art.src = example.thumbnail;
      art.alt = "";
      button.dataset.name = example.name;
      button.append(art, make("span", "pl-source-name", example.title));
      button.addEventListener("click", () => {
        this.tab.keepConcept = false;
        this.panel.notice([]);
        this.ask("example", example.name, `Opening ${example.title}`);
      });
      strip.append(button);
    }
  }

  markSource() {
    const { source } = this.state.value;
    for (const button of this.panel.findAll(".pl-example")) {
      const on = source.kind === "example" && button.dataset.name === source.name;
      button.setAttribute("aria-pressed", String(on));
      if (on && this.state.code) button.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
    this.panel.find(".pl-own").classList.toggle("pl-on", source.kind === "upload");
    this.panel.find(".pl-make").classList.toggle("pl-on", source.kind === "scene");
  }

  async takeFile(file) {
    this.tab.keepConcept = false;
    this.panel.notice([]);
    const most = `${this.tab.limits.upload_mb} MB`;
    if (file.size > this.tab.limits.upload_bytes) {
      this.failed(this.ticket, `This file is larger than ${most}. Make the picture smaller and try again.`);
      return;
    }
    const ticket = ++this.ticket;
    this.panel.root.dataset.state = "busy";
    this.panel.say("Reading your picture");
    try {
      const sent = await this.tab.upload(file);
      if (ticket === this.ticket) this.ask("upload", { path: sent.path, name: file.name }, "Reading your picture");
    } catch {
      const why = `It may be larger than ${most}, or the connection broke; try again.`;
      this.failed(ticket, `The picture could not be sent. ${why}`);
    }
  }

  dragging(on) {
    this.tab.stage.frame.classList.toggle("pl-dropping", on);
  }
}
