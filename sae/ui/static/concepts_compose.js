// Composing a scene by hand: a background, up to three objects, their places. The server draws it.

import { keepInView } from "./afloat.js";
import { make, makeButton, setChildren, switchGroup } from "./dom.js";
import { rove } from "./rove.js";
import { Undo, undoByKeys } from "./undo.js";

const NO_ART = "The drawing box could not be fetched. Close it and open it again.";
const ZOOM = 2; // pixels of the drawing surface for one of the scene
const tiltText = (angle) => (angle > 0 ? `↺${angle}°` : angle < 0 ? `↻${-angle}°` : "0°");
const capital = (word) => word[0].toUpperCase() + word.slice(1);

function labelled(text, ...nodes) {
  const box = make("div", "pl-field");
  box.append(make("h2", "", text), ...nodes);
  return box;
}

export class Composer {
  constructor(tab) {
    this.tab = tab;
    this.panel = tab.panel;
    this.state = tab.state;
    this.composer = this.panel.find(".pl-composer");
    this.art = null;
    this.scene = null;
    this.chosen = 0;
    this.parts = null;
    this.composeTimer = 0;
    this.kindTiles = new Map();
    this.undo = null;
    this.listen();
  }

  listen() {
    this.panel.find(".pl-make").addEventListener("click", () => this.toggle());
    const travel = (way) => this.restore(this.undo[way]());
    undoByKeys(
      () => this.panel.isVisible() && !this.composer.hidden && this.undo,
      () => travel("back"),
      () => travel("forward"),
    );
  }

  async toggle() {
    const open = this.composer.hidden;
    this.composer.hidden = !open;
    this.panel.find(".pl-make").setAttribute("aria-expanded", String(open));
    if (!open || !(await this.fetchArt())) return;
    const { value } = this.state;
    this.scene = structuredClone((value && value.source.scene) || this.art.first);
    this.chosen = Math.max(0, this.scene.objects.length - 1);
    this.undo = new Undo(JSON.stringify(this.scene));
    this.render();
  }

  // Whether the drawing box is there; it is asked for once.
  async fetchArt() {
    if (this.art) return true;
    this.composer.replaceChildren(make("div", "pl-card-wait"));
    this.art = await this.panel.ask({ way: "composer" }, NO_ART);
    if (this.art) this.build();
    else this.composer.replaceChildren(make("p", "pl-empty", NO_ART));
    return Boolean(this.art);
  }

  spriteStyle(node, kind, style, side) {
    const number = this.art.kinds.findIndex((one) => one.name === kind);
    const rowsTotal = this.art.rows_per_style * this.art.styles.length;
    const column = number % this.art.columns;
    const row = this.art.styles.indexOf(style) * this.art.rows_per_style + Math.floor(number / this.art.columns);
    node.style.backgroundImage = `url(${this.art.sheet})`;
    node.style.backgroundSize = `${this.art.columns * side}px ${rowsTotal * side}px`;
    node.style.backgroundPosition = `${-column * side}px ${-row * side}px`;
    node.style.width = `${side}px`;
    node.style.height = `${side}px`;
  }

  build() {
    this.parts = {
      stage: make("div", "pl-compose-surface"),
      objects: make("div", "pl-objects"),
      tune: make("div", "pl-tune"),
      backgrounds: make("div", "pl-backgrounds"),
      search: make("input", "pl-compose-search"),
      kinds: make("div", "pl-kinds"),
    };
    const { stage, objects, tune, backgrounds, search, kinds } = this.parts;
    const left = make("div", "pl-mini-side");
    const middle = make("div", "pl-compose-part");
    const right = make("div", "pl-compose-part");
    left.append(stage, make("p", "pl-note", "Drag the objects, or use the arrow keys."));
    stage.setAttribute("role", "group");
    stage.setAttribute("aria-label", "The scene you compose");
    const first = this.art.kinds.slice(0, 3).map((kind) => kind.name);
    search.type = "search";
    search.placeholder = `Find an object: ${first.join(", ")} …`;
    search.setAttribute("aria-label", "Find an object");
    search.addEventListener("input", () => this.renderKinds());
    backgrounds.append(...this.art.backgrounds.map((background) => this.makeSwatch(background)));
    middle.append(labelled("Background", backgrounds), labelled("Objects", objects, tune));
    right.append(labelled("Add or change", search, kinds));
    this.composer.replaceChildren(left, middle, right);
    rove(backgrounds, ".pl-swatch");
    rove(kinds, ".pl-kind");
    keepInView(stage, this.composer);
  }

  makeSwatch({ name, picture }) {
    const button = makeButton("pl-swatch", undefined, () => {
      this.change(() => {
        this.scene.background = name;
      });
    });
    button.style.backgroundImage = `url(${picture})`;
    button.title = name;
    button.setAttribute("aria-label", `Background: ${name}`);
    button.dataset.name = name;
    return button;
  }

  // `of`: what is changed, where many small changes are one step of undo.
  change(edit, of) {
    edit();
    this.undo.keep(JSON.stringify(this.scene), of);
    this.render();
    this.sendSoon();
  }

  restore(kept) {
    if (!kept) return;
    this.scene = JSON.parse(kept);
    this.chosen = Math.min(this.chosen, Math.max(0, this.scene.objects.length - 1));
    this.render();
    this.sendSoon();
  }

  sendSoon() {
    clearTimeout(this.composeTimer);
    this.composeTimer = setTimeout(() => this.send(), 60);
  }

  send() {
    this.tab.keepConcept = true;
    this.tab.sources.ask("scene", JSON.stringify(this.scene), "Composing the scene");
  }

  render() {
    const { name, picture } = this.art.backgrounds.find((one) => one.name === this.scene.background);
    this.parts.stage.style.backgroundImage = `url(${picture})`;
    for (const button of this.parts.backgrounds.children) {
      button.setAttribute("aria-pressed", String(button.dataset.name === name));
    }
    this.renderMini();
    this.renderObjects();
    this.renderTune();
    this.renderKinds();
  }

  renderMini() {
    while (this.parts.stage.children.length > this.scene.objects.length) this.parts.stage.lastChild.remove();
    this.scene.objects.forEach((object, i) => {
      const node = this.parts.stage.children[i] || this.parts.stage.appendChild(this.makeMiniObject());
      const side = this.art.sizes[object.size] * ZOOM;
      this.spriteStyle(node, object.kind, object.style, side);
      node.style.left = `${object.x * ZOOM - side / 2}px`;
      node.style.top = `${object.y * ZOOM - side / 2}px`;
      node.style.rotate = `${-object.angle}deg`;
      node.classList.toggle("pl-on", i === this.chosen);
      node.setAttribute("aria-label", `${object.kind}, move it with the arrow keys`);
    });
  }

  within(at) {
    return Math.max(0, Math.min(this.art.side - 1, Math.round(at)));
  }

  makeMiniObject() {
    const node = makeButton("pl-mini-object");
    const number = () => [...this.parts.stage.children].indexOf(node);
    let grip = null;
    const letGo = () => {
      grip = null;
    };
    node.addEventListener("focus", () => {
      this.chosen = number();
      this.renderMini();
      this.renderObjects();
      this.renderTune();
    });
    node.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      node.focus();
      node.setPointerCapture(event.pointerId);
      const { x, y } = this.scene.objects[number()];
      grip = { dx: event.clientX / ZOOM - x, dy: event.clientY / ZOOM - y };
    });
    node.addEventListener("pointermove", (event) => {
      if (grip) this.drag(number(), event.clientX / ZOOM - grip.dx, event.clientY / ZOOM - grip.dy, grip);
    });
    node.addEventListener("pointerup", letGo);
    node.addEventListener("pointercancel", letGo);
    node.addEventListener("keydown", (event) => this.keyPressed(event, number()));
    return node;
  }

  drag(number, atX, atY, grip) {
    const object = this.scene.objects[number];
    const x = this.within(atX);
    const y = this.within(atY);
    if (object.x === x && object.y === y) return;
    Object.assign(object, { x, y });
    this.undo.keep(JSON.stringify(this.scene), grip);
    this.renderMini();
    if (this.panel.root.dataset.state === "busy") this.sendSoon();
    else this.send();
  }

  keyPressed(event, number) {
    const step = { ArrowLeft: [-4, 0], ArrowRight: [4, 0], ArrowUp: [0, -4], ArrowDown: [0, 4] }[event.key];
    const away = event.key === "Delete" || event.key === "Backspace";
    if (!step && !away) return;
    event.preventDefault();
    if (away) this.removeObject(number);
    else {
      this.change(() => {
        const object = this.scene.objects[number];
        object.x = this.within(object.x + step[0]);
        object.y = this.within(object.y + step[1]);
      }, number);
    }
  }

  removeObject(number) {
    this.change(() => {
      this.scene.objects.splice(number, 1);
      this.chosen = Math.max(0, Math.min(this.chosen, this.scene.objects.length - 1));
    });
  }

  renderObjects() {
    this.parts.objects.replaceChildren();
    this.scene.objects.forEach((object, i) => {
      const chip = make("span", "pl-compose-chip");
      const pick = makeButton("pl-chip-pick", undefined, () => {
        this.chosen = i;
        this.render();
        this.parts.objects.children[i].firstChild.focus();
      });
      const face = make("i", "pl-chip-face");
      this.spriteStyle(face, object.kind, object.style, 24);
      pick.append(face, make("span", "", object.kind));
      pick.setAttribute("aria-pressed", String(i === this.chosen));
      const remove = makeButton("pl-quiet", "×", () => {
        this.removeObject(i);
        this.parts.objects.querySelectorAll("button")[0].focus();
      });
      remove.setAttribute("aria-label", `Remove ${object.kind}`);
      chip.append(pick, remove);
      chip.classList.toggle("pl-on", i === this.chosen);
      this.parts.objects.append(chip);
    });
    if (this.scene.objects.length < this.tab.limits.objects) {
      const add = makeButton("pl-compose-chip pl-chip-new", "+ New object", () => {
        this.chosen = this.scene.objects.length;
        this.render();
        this.parts.search.focus();
      });
      add.setAttribute("aria-pressed", String(this.chosen === this.scene.objects.length));
      this.parts.objects.append(add);
    }
  }

  renderTune() {
    this.parts.tune.replaceChildren();
    if (!this.scene.objects[this.chosen]) {
      this.parts.tune.append(make("p", "pl-note", "Choose what to add below."));
      return;
    }
    const { sizes, styles, angles } = this.art;
    this.addChoice("Size", "size", Object.keys(sizes), capital);
    this.addChoice("Drawing style", "style", styles, capital);
    this.addChoice("Tilt", "angle", angles, tiltText);
  }

  addChoice(label, key, values, wordFor) {
    const object = this.scene.objects[this.chosen];
    const group = make("div", "pl-switch");
    group.setAttribute("role", "radiogroup");
    group.setAttribute("aria-label", label);
    for (const value of values) {
      const option = makeButton("", wordFor(value));
      option.setAttribute("role", "radio");
      option.dataset.value = String(value);
      group.append(option);
    }
    const show = switchGroup(group, (text) => {
      this.change(() => {
        object[key] = values.find((value) => String(value) === text);
      });
      this.refocus(label, text);
    });
    show(String(object[key]));
    this.parts.tune.append(group);
  }

  refocus(label, value) {
    const group = [...this.parts.tune.children].find((one) => one.getAttribute("aria-label") === label);
    const option = group && [...group.children].find((one) => one.dataset.value === value);
    if (option) option.focus();
  }

  renderKinds() {
    const words = this.parts.search.value.trim().toLowerCase();
    const current = this.scene.objects[this.chosen];
    const style = current ? current.style : "noto";
    const fits = (kind) => !words || [kind.name, kind.group, kind.realm].some((text) => text.includes(words));
    const tiles = this.art.kinds.filter(fits).map((kind) => {
      const { tile, face } = this.kindTiles.get(kind.name) || this.makeKindTile(kind.name);
      this.spriteStyle(face, kind.name, style, 32);
      tile.setAttribute("aria-pressed", String(Boolean(current) && current.kind === kind.name));
      return tile;
    });
    const none = make("p", "pl-note", "No object by that name. Try a wider word, such as animal or food.");
    setChildren(this.parts.kinds, tiles.length ? tiles : [none]);
  }

  makeKindTile(name) {
    const face = make("i");
    const tile = makeButton("pl-kind", undefined, () => this.pickKind(name));
    tile.append(face);
    tile.title = name;
    tile.setAttribute("aria-label", name);
    this.kindTiles.set(name, { tile, face });
    return { tile, face };
  }

  pickKind(name) {
    const current = this.scene.objects[this.chosen];
    const style = current ? current.style : "noto";
    this.change(() => {
      if (this.scene.objects[this.chosen]) {
        this.scene.objects[this.chosen].kind = name;
        return;
      }
      const places = [
        [30, 34],
        [66, 60],
        [34, 70],
      ];
      const [x, y] = places[this.scene.objects.length] || places[0];
      this.scene.objects.push({ kind: name, style, x, y, size: "large", angle: 0 });
      this.chosen = this.scene.objects.length - 1;
    });
  }
}
