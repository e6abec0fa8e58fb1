// The view: one state, what it means for list and map, and what arrives from the server.

import { Beside } from "./beside.js";
import { keepInView } from "./afloat.js";
import { bus } from "./bus.js";
import { explained, mapOf, rankPatches, readCode } from "./code.js";
import { Composer } from "./concepts_compose.js";
import { Leading } from "./concepts_leading.js";
import { ConceptList } from "./concepts_list.js";
import { Sources } from "./concepts_sources.js";
import { Stage } from "./concepts_stage.js";
import { amountText, isTyping, make, Panel, plural, setDisabled, setText, shareText, switchGroup } from "./dom.js";
import {
  copyLink,
  markLinks,
  namesView,
  pictureInLink,
  readCard,
  readConcepts,
  restoreWith,
  writeConcepts,
} from "./links.js";
import { showForeign } from "./lenses.js";
import { changeLook, look, wireOpacity } from "./look.js";
import { leaveOut } from "./misfits.js";
import { offerConcepts } from "./take_concepts.js";
import { own } from "./own_pictures.js";
import { ownOf } from "./pictures.js";

const LINK_WAIT_MS = 60000; // a later answer would take the place of what somebody has chosen meanwhile
const NOT_IN_LINK =
  "Your picture stays in this browser: here the link opens it again, elsewhere it keeps the concept only.";
const HELP =
  "Keyboard: arrows move over patches, Enter keeps one, Space adds one, [ and ] step through concepts, Esc clears. " +
  "Drag to choose a region, Shift-drag to take away.";

// What is on screen, in one place. `code` and `value` are replaced whole with every new picture.
function newState(limits) {
  return {
    value: null,
    code: null,
    patches: new Set(),
    hover: -1,
    dragged: null,
    concept: null,
    preview: -1,
    rank: limits.rank,
    scale: "dataset",
    showAll: false,
    showDense: false,
    ranked: { slots: [] },
  };
}

export class ConceptsTab {
  constructor(component) {
    const { element, props, server, trigger, upload } = component;
    Object.assign(this, { props, server, trigger, upload });
    this.limits = props.setup.limits;
    markLinks(this.limits);
    own.gone = this.limits.gone;
    bus.sendFile = (file) => this.send(file);
    this.panel = new Panel(element, server);
    this.state = newState(this.limits);
    this.list = new ConceptList(this);
    this.stage = new Stage(this);
    this.leading = new Leading(this);
    this.sources = new Sources(this);
    this.composer = new Composer(this);
    offerConcepts(this);
    this.beside = new Beside(this);
    this.keepConcept = false;
    this.pointing = !window.matchMedia("(hover: none)").matches;
    this.tipLines = [0, 1, 2].map(() => {
      const line = make("span", "pl-tip-line");
      const name = make("span", "");
      const amount = make("b", "");
      line.append(name, amount);
      this.stage.tip.append(line);
      return { line, name, amount };
    });
    this.askedCard = null; // the card that a link to one's own picture opens
    this.asked = null; // what to choose in the picture that is asked for, where its answer is not to say it
    this.showRank = switchGroup(this.panel.find(".pl-rank"), (value) => {
      this.state.rank = value;
      this.render();
    });
    this.showScale = switchGroup(this.panel.find(".pl-scale"), (value) => {
      this.state.scale = value;
      this.render();
    });
    this.showBars = switchGroup(this.panel.find(".pl-bars"), (bars) => changeLook({ bars }));
  }

  listen() {
    keepInView(this.stage.frame, this.panel.find(".pl-main"));
    wireOpacity(this.panel.find(".pl-opacity input"));
    bus.on("look", () => this.render());
    this.panel.find(".pl-clear").addEventListener("click", () => this.clearView());
    this.panel.find(".pl-copy").addEventListener("click", (event) => {
      copyLink(this.panel, event.currentTarget);
      if (this.state.value.source.kind === "upload") this.panel.notice(NOT_IN_LINK);
    });
    this.panel.find(".pl-more").addEventListener("click", () => {
      this.state.showAll = !this.state.showAll;
      this.list.render();
    });
    this.panel.find(".pl-dense").addEventListener("click", () => {
      this.state.showDense = !this.state.showDense;
      this.list.render();
    });
    document.addEventListener("keydown", (event) => this.keyPressed(event));
    restoreWith("concepts", () => this.restore());
    bus.receive("concepts", ({ concept, picture, link, file }) => {
      if (file) this.sources.takeFile(file);
      if (link) this.sources.choose(link);
      if (picture) {
        this.keepConcept = false;
        const { kind, data, patches, concept: chosen } = picture;
        const asked = { ...(patches && { patches }), ...(chosen !== undefined && { concept: chosen }) };
        this.sources.ask(kind, data, "Opening the picture", Object.keys(asked).length ? asked : null);
      }
      if (concept === undefined) return;
      this.state.concept = concept;
      this.render();
    });
  }

  // The first picture. A link that names a view is answered by the server's load event; until then
  // nothing is drawn.
  open() {
    setText(this.panel.find(".pl-keys"), HELP);
    this.list.listNode.classList.toggle("pl-bare", !this.limits.has_index);
    this.sources.layExamples();
    const { img } = pictureInLink();
    this.beside.follow();
    if (ownOf(img)) {
      this.askedCard = readCard(this.limits);
      this.sources.openLink(img, readConcepts(this.limits));
    } else if (!namesView) this.receive(this.props.value);
    else setTimeout(() => this.state.code || this.receive(this.props.value), LINK_WAIT_MS);
  }

  // Send a file; the server forgets it when the visit ends. Returns its path there.
  async send(file) {
    const { path } = await this.upload(file);
    this.trigger("sent", { path });
    return path;
  }

  // Back or Forward: the picture if it is another one, and what was chosen in it.
  restore() {
    const view = readConcepts(this.limits);
    this.keepConcept = false;
    if (!this.state.code || view.image !== this.state.value.source.link) {
      this.sources.openLink(view.image, view);
      return;
    }
    this.sources.drop();
    this.choose(view);
    this.render();
  }

  keyPressed(event) {
    if (!this.panel.isVisible() || bus.card.isOpen() || event.defaultPrevented) return;
    if (!this.state.code || event.ctrlKey || event.metaKey || event.altKey || isTyping(event)) return;
    if (event.key === "Escape") this.clearView();
    if ((event.key === "[" || event.key === "]") && !this.beside.isOpen) this.stepConcept(event.key === "]" ? 1 : -1);
  }

  placesInView() {
    if (this.state.dragged) return this.state.dragged.size ? [...this.state.dragged] : null;
    if (this.state.patches.size) return [...this.state.patches];
    return this.state.hover >= 0 ? [this.state.hover] : null;
  }

  patchesInView() {
    if (this.state.dragged) return [...this.state.dragged];
    const places = [...this.state.patches];
    if (this.state.hover >= 0 && !this.state.patches.has(this.state.hover)) places.push(this.state.hover);
    return places;
  }

  slotInView() {
    if (this.state.preview >= 0) return this.state.preview;
    return this.state.concept === null ? undefined : this.state.code.slotOf.get(this.state.concept);
  }

  previewConcept(slot) {
    if (!this.state.code) return;
    this.state.preview = slot;
    bus.card.prefetch(slot >= 0 ? this.state.code.ids[slot] : null);
    this.stage.renderMap();
    this.leading.render();
    this.renderSentence();
  }

  lockConcept(latent) {
    this.state.concept = this.state.concept === latent ? null : latent;
    this.render();
    this.panel.say(
      this.state.concept === null ? "No concept chosen" : `Showing where ${this.list.nameOfLatent(latent)} fires`,
    );
  }

  renderHover() {
    this.stage.renderMap();
    this.renderTip();
    if (!this.state.patches.size || this.state.dragged) {
      this.state.showAll = false;
      this.list.render();
      this.renderSentence();
    }
  }

  renderTip() {
    const { code, hover } = this.state;
    if (hover < 0) {
      this.stage.tip.hidden = true;
      return;
    }
    const { slots, amounts } = rankPatches(code, [hover], "max");
    const shown = slots.filter((slot) => !code.dense.has(slot)).slice(0, 3);
    this.tipLines.forEach(({ line, name, amount }, i) => {
      line.hidden = i >= shown.length;
      if (line.hidden) return;
      setText(name, this.list.nameOf(shown[i]));
      setText(amount, amountText(amounts[shown[i]]));
    });
    this.stage.tip.hidden = shown.length === 0;
    const [l, t, r, b] = this.state.value.box;
    const row = Math.floor(hover / code.columns);
    const column = hover % code.columns;
    const y = t + ((row + 0.5) / code.rows) * (b - t);
    const x = l + ((column + 0.5) / code.columns) * (r - l);
    this.stage.tip.style.left = `${Math.min(86, Math.max(14, 100 * x))}%`;
    this.stage.tip.style.top = `${100 * y}%`;
    this.stage.tip.classList.toggle("pl-below", y < 0.3);
  }

  patchSentence(patch) {
    const { slots, amounts } = rankPatches(this.state.code, [patch], "max");
    const top = slots.filter((slot) => !this.state.code.dense.has(slot)).slice(0, 3);
    const words = top.map((slot) => `${this.list.nameOf(slot)} ${amountText(amounts[slot])}`).join(", ");
    return `${this.list.patchWords(patch)}: ${words || "no concept"}`;
  }

  placeSentence() {
    const places = this.placesInView();
    if (!places) return "Whole picture";
    return places.length === 1 ? this.patchSentence(places[0]) : `${plural(places.length, "patch", "patches")} chosen`;
  }

  renderSentence() {
    const { code } = this.state;
    const places = this.placesInView();
    const share = explained(code, places || Array.from({ length: code.patches }, (_, i) => i));
    const what = !places ? "this picture" : places.length === 1 ? "this patch" : "these patches";
    setText(this.panel.find(".pl-share-text"), `Concepts explain ${shareText(share)} of ${what}`);
    this.panel.find(".pl-meter i").style.transform = `scaleX(${share.toFixed(3)})`;
    setText(this.panel.find(".pl-sentence"), this.conceptSentence());
  }

  conceptSentence() {
    const { code, concept } = this.state;
    const slot = this.slotInView();
    if (slot !== undefined) {
      const n = mapOf(code, slot).reduce((count, amount) => count + (amount > 0), 0);
      const where = n ? `in ${n} of ${code.patches} patches` : "in the summary token only";
      return `${this.list.nameOf(slot)} fires ${where}.`;
    }
    if (concept !== null) return `${this.list.nameOfLatent(concept)} does not fire in this picture.`;
    if (this.pointing) return "Point at a patch, or at a concept in the list. A click keeps it.";
    return "Tap a patch, or a concept in the list.";
  }

  renderTools() {
    this.showRank(this.state.rank);
    this.showScale(this.state.code.datasetMax ? this.state.scale : "image");
    this.panel.find(".pl-scale [data-value=dataset]").disabled = !this.state.code.datasetMax;
    this.showBars(look.bars);
    this.panel.find(".pl-measure").hidden = !this.state.code.datasetMax;
    this.leading.render();
    const nothing = !this.state.patches.size && this.state.concept === null;
    setDisabled(this.panel.find(".pl-clear"), nothing, this.stage.cells[this.stage.focusCell]);
  }

  render() {
    if (!this.state.code) return;
    this.stage.renderMap();
    this.renderTip();
    this.list.render();
    this.renderSentence();
    this.renderTools();
    this.stage.cells.forEach((cell, patch) => {
      cell.setAttribute("aria-selected", String(this.state.patches.has(patch)));
    });
    if (this.state.patches.size) this.list.askIconsShown();
    writeConcepts({ image: this.state.value.source.link, ...this.state }, this.limits);
  }

  clearView() {
    this.state.patches = new Set();
    this.state.concept = null;
    this.state.hover = -1;
    this.state.showAll = false;
    this.render();
    this.panel.say("Whole picture, no concept chosen");
  }

  // What other tabs may know of the picture in view.
  sharedPicture() {
    const { code, value } = this.state;
    return {
      code,
      value,
      source: value.source,
      request: this.sources.requestFor(value),
      patches: () => [...this.state.patches],
      name: (latent) => this.list.conceptName(code.slotOf.get(latent)),
      maximum: (latent) => {
        const slot = code.slotOf.get(latent);
        return slot === undefined ? 0 : code.max[slot];
      },
    };
  }

  // Take what the server sent: a picture, or one sentence about what went wrong.
  receive(value) {
    if (!value) return;
    leaveOut(...(value.misfits || []));
    if (!this.sources.isNewest(value)) return;
    if (value.problem) {
      this.sources.refused(value);
      return;
    }
    this.takeView(this.sources.named(value));
    const photo = this.panel.find(".pl-photo");
    photo.src = value.picture.src;
    photo.alt = value.picture.alt;
    this.panel.root.dataset.state = "ready";
    if (!performance.getEntriesByName("patchlens-usable").length) performance.mark("patchlens-usable");
    bus.picture = this.sharedPicture();
    showForeign(this.panel.find(".pl-foreign"), value.foreign);
    this.stage.layStage();
    this.stage.forgetArea();
    this.stage.fitCanvas();
    this.leading.lay();
    this.sources.markSource();
    this.render();
    const card = this.askedCard === null ? value.view.card : this.askedCard;
    this.askedCard = null;
    if (Number.isInteger(card)) bus.card.open(card, this.list.rows[0] && this.list.rows[0].main);
    bus.emit("picture");
    const idle = window.requestIdleCallback || ((act) => setTimeout(act, 120));
    idle(() => this.list.fetchIcons());
  }

  // The picture and what is chosen in it: what was asked for, or what the server says, or what was chosen before.
  takeView(value) {
    const { state, asked, keepConcept } = this;
    const before = { patches: [...state.patches], concept: state.concept };
    const { rank, scale } = value.ticket === 0 ? value.view : asked || {};
    state.value = value;
    state.code = readCode(value);
    this.asked = null;
    this.choose({ ...value.view, ...(keepConcept ? before : asked), rank, scale });
  }

  // What is chosen in the picture in view; without an order or a scale, these stay.
  choose({ patches, concept, rank, scale }) {
    const { state } = this;
    state.patches = new Set(patches.filter((patch) => patch < state.code.patches));
    Object.assign(state, { concept, hover: -1, preview: -1, dragged: null, showAll: false });
    state.rank = rank || state.rank;
    state.scale = scale || state.scale;
    if (state.rank === "cls" && !state.code.hasSummary) state.rank = "max";
  }

  stepConcept(step) {
    const { slots } = this.state.ranked;
    const at = slots.findIndex((slot) => this.state.code.ids[slot] === this.state.concept);
    const next = slots[at < 0 ? (step > 0 ? 0 : slots.length - 1) : Math.min(slots.length - 1, Math.max(0, at + step))];
    if (next === undefined) return;
    this.state.concept = this.state.code.ids[next];
    this.render();
    this.panel.say(`Showing where ${this.list.nameOf(next)} fires`);
  }
}

export function start(component) {
  const tab = new ConceptsTab(component);
  tab.listen();
  tab.open();
  return () => tab.receive(component.props.value);
}
