// Where pictures come from: examples, the composer, a file that is picked, dropped or pasted.

import { bus } from "./bus.js";
import { isTyping, make, makeButton } from "./dom.js";
import { leaveOut } from "./misfits.js";
import { mend, own, thumbOf } from "./own_pictures.js";
import { OwnTiles } from "./own_tiles.js";
import { ownLink, ownOf, requestOf } from "./pictures.js";
import { rove } from "./rove.js";

const ANSWER_WAIT_MS = 60000;
const ASK_ANYWAY_MS = 5000;
const NO_ANSWER = "The server has not answered for a minute. Try again, or reload the page.";
const NOT_KEPT =
  "This browser keeps no pictures for the page (a private window, or no room): " +
  "yours stays until you close or reload it.";
const MOST_FILES = 6;
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
    this.files = new Map(); // by id: sent, and not yet known to be pictures
    this.waitTimer = 0;
    this.fileInput = this.panel.find(".pl-file");
    this.dragDepth = 0;
    this.listen();
  }

  listen() {
    this.panel.find(".pl-own").addEventListener("click", () => this.fileInput.click());
    this.fileInput.addEventListener("change", () => {
      this.takeFiles([...this.fileInput.files]);
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
      this.takeFiles([...event.dataTransfer.files]);
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
    if (known) return known;
    if (source.kind === "example" || source.kind === "exemplar") return { kind: source.kind, data: source.name };
    return source.scene ? { kind: "scene", data: JSON.stringify(source.scene) } : null;
  }

  // A picture of one's own has a name that links use, and is kept once the server could read it.
  named(value) {
    const known = this.requests.get(value.ticket);
    const id = known && known.kind === "upload" && own.idOf(known.data.path);
    if (!id) return value;
    this.keep(id, value.picture.src);
    return { ...value, source: { ...value.source, link: ownLink(id) } };
  }

  async keep(id, address) {
    const file = this.files.get(id);
    this.files.delete(id);
    if (!file) return;
    if (!(await own.add(id, file, await thumbOf(address)))) this.panel.notice(NOT_KEPT);
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
    else setTimeout(() => this.next && this.next.ticket === ticket && this.sendNext(), ASK_ANYWAY_MS);
  }

  sendNext() {
    const { next } = this;
    this.next = null;
    this.sent = { ticket: next ? next.ticket : -1, at: performance.now() };
    if (next) this.tab.trigger("open", next);
  }

  // The picture that a link names; the first example where there is no such picture.
  async openLink(link, asked = null) {
    const ticket = ++this.ticket;
    this.panel.root.dataset.state = "busy";
    try {
      const request = await requestOf(link);
      if (ticket !== this.ticket) return;
      const first = this.tab.props.setup.examples[0].name;
      if (!request && ownOf(link)) leaveOut("its picture is not kept in this browser");
      const { kind, data } = request || { kind: "example", data: first };
      const concept = asked && asked.concept !== null ? { ...asked, patches: [] } : null;
      this.ask(kind, data, "Opening the picture", request ? asked : concept);
    } catch {
      this.failed(ticket, this.notSent());
      if (!this.state.code) this.openLink("");
    }
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
    this.panel.find(".pl-make").hidden = !this.tab.props.setup.composes;
    for (const example of this.tab.props.setup.examples) {
      const button = makeButton("pl-source pl-example");
      const art = make("img", "pl-source-art");
      art.src = example.thumbnail;
      art.alt = "";
      button.dataset.name = example.name;
      button.append(art, make("span", "pl-source-name", example.title));
      button.addEventListener("click", () => this.choose(`ex:${example.name}`));
      strip.append(button);
    }
    const choose = (link) => this.choose(link);
    this.tiles = new OwnTiles(strip, { before: strip.querySelector(".pl-example"), look: "pl-source", choose });
    bus.on("own", () => this.markSource());
    rove(strip, ".pl-source");
  }

  choose(link) {
    if (this.tab.beside.isOpen) {
      this.tab.beside.choose(link);
      return;
    }
    this.tab.keepConcept = false;
    this.panel.notice([]);
    this.openLink(link);
  }

  // Which pictures are in view: one, or those side by side.
  markSource() {
    if (!this.state.value) return;
    const { source } = this.state.value;
    const { beside } = this.tab;
    const links = beside.isOpen ? beside.links : [source.link];
    for (const button of this.panel.findAll(".pl-example")) {
      button.setAttribute("aria-pressed", String(links.includes(`ex:${button.dataset.name}`)));
    }
    this.tiles.mark(...links);
    const isTile = source.kind === "upload" && this.panel.find(".pl-own-picture[aria-pressed=true]");
    this.panel.find(".pl-own").classList.toggle("pl-on", source.kind === "upload" && !isTile);
    this.panel.find(".pl-make").classList.toggle("pl-on", source.kind === "scene");
    const shown = this.panel.find(".pl-strip [aria-pressed=true]");
    if (shown && !beside.isOpen) shown.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  notSent() {
    const most = `${this.tab.limits.upload_mb} MB`;
    return `The picture could not be sent. It may be larger than ${most}, or the connection broke; try again.`;
  }

  // Several at once all become tiles, one after the other; the first is shown.
  async takeFiles(files) {
    const pictures = files.slice(0, MOST_FILES);
    for (const file of pictures.slice(1)) await this.takeAside(file);
    if (pictures.length) await this.takeFile(pictures[0]);
    if (files.length > MOST_FILES) this.panel.notice(`At most ${MOST_FILES} pictures are taken at a time.`);
  }

  // A picture that becomes a tile without being shown; one that is none is left to the message.
  async takeAside(file) {
    if (this.isTooLarge(file)) return;
    const id = await own.idFor(file);
    if (own.find(id)) return;
    try {
      const answer = await this.panel.ask({ way: "open", kind: "upload", data: await own.send(id, file) });
      if (answer) await own.add(id, file, await thumbOf(answer.picture.src));
    } catch {
      this.panel.notice(this.notSent(), "problem");
    }
  }

  isTooLarge(file) {
    if (file.size <= this.tab.limits.upload_bytes) return false;
    const most = `${this.tab.limits.upload_mb} MB`;
    this.failed(this.ticket, `This file is larger than ${most}. Make the picture smaller and try again.`);
    return true;
  }

  async takeFile(file) {
    this.tab.keepConcept = false;
    this.panel.notice([]);
    if (this.isTooLarge(file)) return;
    const ticket = ++this.ticket;
    this.panel.root.dataset.state = "busy";
    this.panel.say("Reading your picture");
    try {
      const id = await own.idFor(file);
      if (!own.find(id)) this.files.set(id, file);
      const data = own.data.get(id) || (await own.send(id, file));
      if (ticket === this.ticket) this.ask("upload", data, "Reading your picture");
    } catch {
      this.failed(ticket, this.notSent());
    }
  }

  // What the server says is wrong with a picture; one that it has not any more is sent again, once.
  async refused(value) {
    const request = this.requests.get(value.ticket);
    const { asked } = this.tab;
    if (await mend(request, value)) {
      if (value.ticket === this.ticket) this.ask(request.kind, request.data, "Opening the picture", asked);
      return;
    }
    this.files.clear();
    this.failed(value.ticket, value.problem);
  }

  dragging(on) {
    this.tab.stage.frame.classList.toggle("pl-dropping", on);
  }
}
