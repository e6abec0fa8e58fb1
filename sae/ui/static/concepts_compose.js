// Composing a scene by hand: a background, up to three objects, their places. The server draws it.

import { make, makeButton, switchGroup } from "./dom.js";

function labelled(text, ...nodes) {
  const box = make("div", "pl-field");
  box.append(make("h2", "", text), ...nodes);
  return box;
}

const capital = (word) => word[0].toUpperCase() + word.slice(1);

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
    this.listen();
  }

  listen() {
    this.panel.find(".pl-make").addEventListener("click", async () => {
      const open = this.composer.hidden;
      this.composer.hidden = !open;
      this.panel.find(".pl-make").setAttribute("aria-expanded", String(open));
      if (!open) return;
      if (!this.art) {
        this.composer.replaceChildren(make("div", "pl-card-wait"));
        try {
          const answer = await this.tab.server.ask({ way: "composer" });
          if (answer.problem) throw new Error(answer.problem);
          this.art = answer;
        } catch {
          this.composer.replaceChildren(
            make("p", "pl-empty", "The drawing box could not be fetched. Close it and open it again."),
          );
          return;
        }
        this.buildComposer();
      }
      this.scene = structuredClone((this.state.value && this.state.value.source.scene) || this.art.first);
      this.chosen = Math.max(0, this.scene.objects.length - 1);
      this.renderComposer();
    });
  }

  spriteStyle(node, kind, style, side) {
    const number = this.art.kinds.findIndex((one) => one.name === kind);
    const rowsTotal = this.art.rows_per_style * this.art.styles.length;
    const column = number % this.art.columns;
    const row = this.art.styles.indexOf(style) * this.art.rows_per_style + Math.floor(number / this.art.columns);
    node.style.backgroundImage = `url(${this.art.sheet})`;
    node.style.backgroundSize = `${this.art.columns * side}px ${rowsTotal * side}px`;
    node.style.backgroundPosition = `${-column * side}px ${-row * side}px`;
    node.style.width = node.style.height = `${side}px`;
  }

  buildComposer() {
    this.parts = {
      stage: make("div", "pl-mini"),
      objects: make("div", "pl-objects"),
      tune: make("div", "pl-tune"),
      backgrounds: make("div", "pl-backgrounds"),
      search: make("input", "pl-search"),
      kinds: make("div", "pl-kinds"),
    };
    const left = make("div", "pl-mini-side");
    const middle = make("div", "pl-choices");
    const right = make("div", "pl-choices");
    left.append(this.parts.stage, make("p", "pl-note", "Drag the objects, or use the arrow keys."));
    this.parts.search.type = "search";
    this.parts.search.placeholder = `Find an object: ${this.art.kinds
      .slice(0, 3)
      .map((kind) => kind.name)
      .join(", ")} …`;
    this.parts.search.setAttribute("aria-label", "Find an object");
    this.parts.search.addEventListener("input", () => this.renderKinds());
    this.parts.stage.setAttribute("role", "group");
    this.parts.stage.setAttribute("aria-label", "The scene you compose");
    for (const background of this.art.backgrounds) {
      const button = makeButton("pl-swatch", undefined, () =>
        this.change(() => {
          this.scene.background = background.name;
        }),
      );
      button.style.backgroundImage = `url(${background.picture})`;
      button.title = background.name;
      button.setAttribute("aria-label", `Background: ${background.name}`);
      button.dataset.name = background.name;
      this.parts.backgrounds.append(button);
    }
    middle.append(
      labelled("Background", this.parts.backgrounds),
      labelled("Objects", this.parts.objects, this.parts.tune),
    );
    right.append(labelled("Add or change", this.parts.search, this.parts.kinds));
    this.composer.replaceChildren(left, middle, right);
  }

  change(edit) {
    edit();
    this.renderComposer();
    clearTimeout(this.composeTimer);
    this.composeTimer = setTimeout(() => this.sendScene(), 60);
  }

  sendScene() {
    this.tab.keepConcept = true;
    this.tab.sources.ask("scene", JSON.stringify(this.scene), "Composing the scene");
  }

  renderComposer() {
    this.parts.stage.style.backgroundImage = `url(${this.art.backgrounds.find((one) => one.name === this.scene.background).picture})`;
    for (const button of this.parts.backgrounds.children)
      button.setAttribute("aria-pressed", String(button.dataset.name === this.scene.background));
    this.renderMini();
    this.renderObjects();
    this.renderTune();
    this.renderKinds();
  }

  renderMini() {
    while (this.parts.stage.children.length > this.scene.objects.length) this.parts.stage.lastChild.remove();
    this.scene.objects.forEach((object, i) => {
      const node = this.parts.stage.children[i] || this.parts.stage.appendChild(this.makeMiniObject());
      const side = this.art.sizes[object.size] * 2;
      this.spriteStyle(node, object.kind, object.style, side);
      node.style.left = `${object.x * 2 - side / 2}px`;
      node.style.top = `${object.y * 2 - side / 2}px`;
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
      grip = { dx: event.clientX / 2 - x, dy: event.clientY / 2 - y };
    });
    node.addEventListener("pointermove", (event) => {
      if (!grip) return;
      const object = this.scene.objects[number()];
      const x = this.within(event.clientX / 2 - grip.dx);
      const y = this.within(event.clientY / 2 - grip.dy);
      if (object.x === x && object.y === y) return;
      object.x = x;
      object.y = y;
      this.renderMini();
      if (this.panel.root.dataset.state !== "busy") this.sendScene();
      else {
        clearTimeout(this.composeTimer);
        this.composeTimer = setTimeout(() => this.sendScene(), 60);
      }
    });
    node.addEventListener("pointerup", () => {
      grip = null;
    });
    node.addEventListener("pointercancel", () => {
      grip = null;
    });
    node.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [-4, 0], ArrowRight: [4, 0], ArrowUp: [0, -4], ArrowDown: [0, 4] }[event.key];
      if (step) {
        event.preventDefault();
        this.change(() => {
          const object = this.scene.objects[number()];
          object.x = this.within(object.x + step[0]);
          object.y = this.within(object.y + step[1]);
        });
      }
      if (event.key === "Delete" || event.key === "Backspace") {
        event.preventDefault();
        this.removeObject(number());
      }
    });
    return node;
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
      const chip = make("span", "pl-chip");
      const pick = makeButton("pl-chip-pick", undefined, () => {
        this.chosen = i;
        this.renderComposer();
      });
      const face = make("i", "pl-chip-face");
      this.spriteStyle(face, object.kind, object.style, 24);
      pick.append(face, make("span", "", object.kind));
      pick.setAttribute("aria-pressed", String(i === this.chosen));
      const remove = makeButton("pl-quiet", "×", () => this.removeObject(i));
      remove.setAttribute("aria-label", `Remove ${object.kind}`);
      chip.append(pick, remove);
      chip.classList.toggle("pl-on", i === this.chosen);
      this.parts.objects.append(chip);
    });
    if (this.scene.objects.length < this.art.max_objects) {
      const add = makeButton("pl-chip pl-chip-new", "+ New object", () => {
        this.chosen = this.scene.objects.length;
        this.renderComposer();
        this.parts.search.focus();
      });
      add.setAttribute("aria-pressed", String(this.chosen === this.scene.objects.length));
      this.parts.objects.append(add);
    }
  }

  renderTune() {
    const object = this.scene.objects[this.chosen];
    this.parts.tune.replaceChildren();
    if (!object) {
      this.parts.tune.append(make("p", "pl-note", "Choose what to add below."));
      return;
    }
    const choice = (label, values, words, key) => {
      const group = make("div", "pl-switch");
      group.setAttribute("role", "radiogroup");
      group.setAttribute("aria-label", label);
      values.forEach((value, i) => {
        const option = makeButton("", words[i]);
        option.setAttribute("role", "radio");
        option.dataset.value = String(value);
        group.append(option);
      });
      const byText = new Map(values.map((value) => [String(value), value]));
      const show = switchGroup(group, (value) => {
        this.change(() => {
          object[key] = byText.get(value);
        });
        this.refocus(label, value);
      });
      show(String(object[key]));
      this.parts.tune.append(group);
    };
    choice("Size", Object.keys(this.art.sizes), Object.keys(this.art.sizes).map(capital), "size");
    choice("Drawing style", this.art.styles, this.art.styles.map(capital), "style");
    choice(
      "Tilt",
      this.art.angles,
      this.art.angles.map((angle) => (angle > 0 ? `↺${angle}°` : angle < 0 ? `↻${-angle}°` : "0°")),
      "angle",
    );
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
    const found = this.art.kinds.filter(
      (kind) => !words || [kind.name, kind.group, kind.realm].some((text) => text.includes(words)),
    );
    this.parts.kinds.replaceChildren();
    if (!found.length)
      this.parts.kinds.append(
        make("p", "pl-note", "No object by that name. Try a wider word, such as animal or food."),
      );
    for (const kind of found) {
      const tile = makeButton("pl-kind", undefined, () => this.pickKind(kind.name, style));
      const face = make("i");
      this.spriteStyle(face, kind.name, style, 32);
      tile.append(face);
      tile.title = kind.name;
      tile.setAttribute("aria-label", kind.name);
      tile.setAttribute("aria-pressed", String(Boolean(current) && current.kind === kind.name));
      this.parts.kinds.append(tile);
    }
  }

  pickKind(name, style) {
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
