// The concepts that lead in the picture: their names on it and below it, each in its tint.

import { mapOf } from "./code.js";
import { make, makeButton, setText } from "./dom.js";
import { tintColour } from "./overlay.js";

// Names of the tags keep this far from each other, in shares of the picture's sides, and at least as far as they
// are wide and high, in px: a tag lies as far right of its left end as its place lies in the picture.
const APART = [0.3, 0.1];
const TAG = [130, 24];

export class Leading {
  constructor(tab) {
    this.tab = tab;
    this.panel = tab.panel;
    this.state = tab.state;
    this.tags = this.panel.find(".pl-tags");
    this.list = this.panel.find(".pl-leading");
    this.buttons = [];
  }

  // Once a picture: the buttons below it and the tags on it.
  lay() {
    const { code } = this.state;
    const taken = [];
    const { clientWidth: width, clientHeight: height } = this.panel.find(".pl-frame");
    this.apart = [TAG[0] / Math.max(1, width - TAG[0]), TAG[1] / Math.max(1, height)].map((one, i) =>
      Math.max(one, APART[i]),
    );
    this.tags.replaceChildren(...code.leading.map((slot, tint) => this.tag(slot, tint, taken)));
    while (this.buttons.length < code.leading.length) this.buttons.push(this.button(this.buttons.length));
    this.list.replaceChildren(
      ...code.leading.map((slot, tint) => {
        const item = make("li");
        setText(this.buttons[tint].lastChild, this.tab.list.nameOf(slot));
        item.append(this.buttons[tint]);
        return item;
      }),
    );
  }

  button(tint) {
    const slot = () => this.state.code.leading[tint];
    const button = makeButton("pl-lead-name", "", () => this.tab.lockConcept(this.state.code.ids[slot()]));
    const swatch = make("i");
    swatch.style.background = tintColour(tint);
    button.append(swatch, make("span"));
    for (const kind of ["pointerenter", "focus"]) {
      button.addEventListener(kind, (event) => event.pointerType !== "touch" && this.tab.previewConcept(slot()));
    }
    for (const kind of ["pointerleave", "blur"]) button.addEventListener(kind, () => this.tab.previewConcept(-1));
    return button;
  }

  // A name where its concept fires most, or less where another name is in the way.
  tag(slot, tint, taken) {
    const { code, value } = this.state;
    const [left, top, right, bottom] = value.box;
    const map = mapOf(code, slot);
    const order = [...map.keys()].filter((patch) => map[patch] > 0).sort((a, b) => map[b] - map[a]);
    const placeOf = (patch) => [
      left + (((patch % code.columns) + 0.5) / code.columns) * (right - left),
      top + ((Math.floor(patch / code.columns) + 0.5) / code.rows) * (bottom - top),
    ];
    const isFree = ([x, y]) =>
      taken.every(([u, v]) => Math.abs(x - u) > this.apart[0] || Math.abs(y - v) > this.apart[1]);
    const places = order.map(placeOf);
    const [x, y] = places.find(isFree) || places[0] || [0.5, 0.5];
    taken.push([x, y]);
    const node = make("span", "pl-tag", this.tab.list.nameOf(slot));
    node.style.setProperty("--tint", tintColour(tint));
    node.style.setProperty("--x", x);
    node.style.left = `${Math.min(98, Math.max(2, 100 * x))}%`;
    node.style.top = `${Math.min(95, Math.max(5, 100 * y))}%`;
    return node;
  }

  // The names are there while the three maps are.
  render() {
    const { code, concept } = this.state;
    const slot = this.tab.slotInView();
    this.tags.hidden = slot !== undefined || concept !== null;
    this.buttons.forEach((button, tint) => {
      const latent = code.ids[code.leading[tint]];
      button.setAttribute("aria-pressed", String(concept !== null && concept === latent));
    });
  }
}
