// The visitor's own pictures as tiles beside the examples, on every tab where a picture is chosen.

import { bus } from "./bus.js";
import { make, makeButton, setChildren, setText } from "./dom.js";
import { own } from "./own_pictures.js";
import { ownLink } from "./pictures.js";

const SURE_MS = 4000;

export class OwnTiles {
  // In `strip`, before its `before`th part; `look` gives a tile its classes, `choose(link)` is what a press does.
  constructor(strip, { before, look, choose }) {
    Object.assign(this, { look, choose });
    this.box = make("span", "pl-own-tiles");
    this.box.setAttribute("role", "group");
    this.box.setAttribute("aria-label", "Your own pictures");
    this.tiles = new Map();
    this.away = makeButton("pl-quiet pl-forget-all", "", () => this.forgetAll());
    this.asked = -Infinity;
    strip.insertBefore(this.box, before || null);
    bus.on("own", () => this.draw());
    this.draw();
  }

  draw() {
    const { list } = own;
    for (const id of this.tiles.keys()) if (!own.find(id)) this.tiles.delete(id);
    const tiles = list.map((one) => this.tiles.get(one.id) || this.makeTile(one));
    setText(this.away, list.length > 1 ? `Forget all ${list.length}` : "Forget it");
    this.away.title = "Your pictures are kept in this browser only. This takes them out of it.";
    this.asked = -Infinity;
    setChildren(this.box, list.length ? [...tiles, this.away] : []);
    this.box.hidden = !list.length;
  }

  makeTile({ id, name, thumb }) {
    const tile = make("span", "pl-own-tile");
    const button = makeButton(`${this.look} pl-own-picture`, undefined, () => this.choose(ownLink(id)));
    const art = make("img", "pl-source-art");
    const forget = makeButton("pl-own-forget", "×", () => this.forget(id));
    art.src = thumb;
    art.alt = "";
    button.dataset.link = ownLink(id);
    button.title = name;
    button.setAttribute("aria-label", `Your picture ${name}`);
    button.setAttribute("aria-pressed", "false");
    button.append(art, make("span", "pl-source-name", name));
    forget.setAttribute("aria-label", `Forget your picture ${name}`);
    tile.append(button, forget);
    this.tiles.set(id, tile);
    return tile;
  }

  // Which of them is in view.
  mark(...links) {
    for (const button of this.box.querySelectorAll(".pl-own-picture")) {
      button.setAttribute("aria-pressed", String(links.includes(button.dataset.link)));
    }
  }

  // The focus goes on to the next tile, or to what comes before them all.
  async forget(id) {
    const at = own.list.findIndex((one) => one.id === id);
    const next = own.list[at + 1] || own.list[at - 1];
    own.forget([id]);
    const tile = next && this.tiles.get(next.id);
    (tile || this.box.parentElement).querySelector("button").focus();
  }

  // Asks once more: a second press within a few seconds does it.
  forgetAll() {
    if (own.list.length > 1 && performance.now() - this.asked > SURE_MS) {
      this.asked = performance.now();
      setText(this.away, "Sure? Press again");
      setTimeout(() => this.draw(), SURE_MS);
      return;
    }
    const first = this.box.parentElement.querySelector("button");
    own.forget(own.list.map((one) => one.id));
    first.focus();
  }
}
