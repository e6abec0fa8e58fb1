// Two to four pictures side by side: what each has, what they share, and one concept lit in all of them.

import { bus } from "./bus.js";
import { mapOf, rankPicture, readCode } from "./code.js";
import { amountText, make, makeButton, plural, setChildren, setText } from "./dom.js";
import { readBeside, restoreWith, writeBeside } from "./links.js";
import { look } from "./look.js";
import { leaveOut } from "./misfits.js";
import { coverWith } from "./overlay.js";
import { requestOf } from "./pictures.js";

export const MOST = 4;
const LISTED = 8;
const SHARED = 12;
const LEAD = "Choose two to four pictures in the strip above, then press a concept to see it in all of them.";

const fires = (picture, latent) => (picture.slots.has(latent) ? picture.code.max[picture.slots.get(latent)] : 0);

const share = (part) => `${100 * part}%`;

// The concepts of a picture, always-on ones left out: by latent, strongest first.
function slotsOf(code) {
  const { slots } = rankPicture(code, "max");
  return new Map(slots.filter((slot) => !code.dense.has(slot)).map((slot) => [code.ids[slot], slot]));
}

export class Beside {
  constructor(tab) {
    this.tab = tab;
    this.panel = tab.panel;
    this.box = this.panel.find(".pl-beside");
    this.button = this.panel.find(".pl-several");
    this.shared = make("div", "pl-beside-shared");
    this.row = make("div", "pl-beside-row");
    this.links = [];
    this.pictures = new Map(); // by link: { name, value, code, slots, node … }
    this.lit = null;
    this.button.addEventListener("click", () => this.toggle());
    bus.on("look", () => this.drawMaps());
    bus.on("picture", () => this.isOpen && bus.picture.source.kind === "upload" && this.add(bus.picture.source.link));
    new ResizeObserver(() => this.drawMaps()).observe(this.row);
    this.box.append(make("p", "pl-note pl-beside-lead", LEAD), this.shared, this.row);
    restoreWith("beside", () => this.follow());
  }

  get isOpen() {
    return !this.box.hidden;
  }

  toggle() {
    const { link } = this.tab.state.value.source;
    this.links = this.isOpen ? [] : [link];
    this.lit = this.isOpen ? null : this.tab.state.concept;
    this.show();
  }

  // What a link names, as far as it is here.
  follow() {
    const { links, lit } = readBeside(this.tab.limits, MOST);
    Object.assign(this, { links, lit });
    return this.show();
  }

  add(link) {
    if (link && !this.links.includes(link)) this.choose(link);
  }

  // A picture of the strip comes to the others, or goes.
  choose(link) {
    if (this.links.includes(link)) this.links = this.links.filter((one) => one !== link);
    else if (this.links.length >= MOST) {
      this.panel.notice(`At most ${MOST} pictures stand side by side. Take one away first.`);
      return;
    } else this.links = [...this.links, link];
    this.panel.notice([]);
    this.show();
  }

  async show() {
    const isOpen = this.links.length > 0;
    this.box.hidden = !isOpen;
    this.panel.find(".pl-main").hidden = isOpen;
    this.button.setAttribute("aria-expanded", String(isOpen));
    this.button.classList.toggle("pl-on", isOpen);
    const { links } = this;
    await Promise.all(links.map((link) => this.fetch(link)));
    if (links !== this.links) return;
    this.links = links.filter((link) => this.pictures.has(link));
    for (const link of this.pictures.keys()) if (!this.links.includes(link)) this.pictures.delete(link);
    if (this.links.length < links.length) leaveOut("a picture of it is not here");
    if (isOpen && !this.links.length) this.show();
    this.draw();
    this.tab.sources.markSource();
    writeBeside(this);
  }

  async fetch(link) {
    if (this.pictures.has(link)) return;
    try {
      const request = await requestOf(link);
      const value = request && (await this.panel.ask({ way: "open", ...request }));
      if (!value) return;
      const code = readCode(value);
      this.pictures.set(link, { value, code, slots: slotsOf(code), node: this.makePicture(link, value) });
    } catch {
      this.panel.notice("A picture could not be sent. Try again in a moment.", "problem");
    }
  }

  makePicture(link, { picture, box: [l, t, r, b] }) {
    const node = make("figure", "pl-beside-one");
    const frame = make("div", "pl-beside-frame");
    const image = make("img");
    const canvas = make("canvas");
    const away = makeButton("pl-own-forget pl-beside-away", "×", () => this.choose(link));
    image.src = picture.src;
    image.alt = picture.alt;
    frame.style.aspectRatio = `${picture.width} / ${picture.height}`;
    Object.assign(canvas.style, { left: share(l), top: share(t), width: share(r - l), height: share(b - t) });
    away.setAttribute("aria-label", `Take away: ${picture.alt}`);
    frame.append(image, canvas, away);
    node.append(frame, make("figcaption"), make("ol", "pl-beside-list"));
    return node;
  }

  // Concepts that fire in at least two of them: in most pictures first, then by how strongly at least.
  sharedLatents() {
    const counts = new Map();
    for (const { slots } of this.pictures.values()) {
      for (const latent of slots.keys()) counts.set(latent, (counts.get(latent) || 0) + 1);
    }
    const least = (latent) => Math.min(...this.all().map((one) => fires(one, latent) || Infinity));
    const shared = [...counts].filter(([, n]) => n > 1);
    return new Map(shared.sort(([a, m], [b, n]) => n - m || least(b) - least(a) || a - b));
  }

  all() {
    return this.links.map((link) => this.pictures.get(link)).filter(Boolean);
  }

  nameOf(latent) {
    const one = this.all().find((picture) => picture.slots.has(latent));
    return (one && one.code.names[one.slots.get(latent)]) || `Concept ${latent}`;
  }

  light(latent) {
    this.lit = this.lit === latent ? null : latent;
    this.draw();
    writeBeside(this);
    this.panel.say(this.lit === null ? "No concept lit" : `${this.nameOf(latent)} lit in every picture`);
  }

  draw() {
    const shared = this.sharedLatents();
    setChildren(
      this.row,
      this.all().map((one) => one.node),
    );
    this.drawShared(shared);
    for (const one of this.all()) {
      const listed = [...one.slots.keys()].slice(0, LISTED);
      if (this.lit !== null && one.slots.has(this.lit) && !listed.includes(this.lit)) listed.push(this.lit);
      const items = listed.map((latent) => this.makeLine(one, latent, shared.get(latent)));
      const focused = document.activeElement && document.activeElement.dataset.latent;
      const held = one.node.contains(document.activeElement);
      one.node.querySelector("ol").replaceChildren(...items);
      if (held && focused) one.node.querySelector(`[data-latent="${focused}"]`)?.focus();
    }
    this.drawMaps();
  }

  drawShared(shared) {
    const held = this.shared.contains(document.activeElement) && document.activeElement.dataset.latent;
    const chips = [...shared].slice(0, SHARED).map(([latent, n]) => {
      const chip = makeButton("pl-chip pl-beside-chip", this.nameOf(latent), () => this.light(latent));
      chip.append(make("small", "pl-recorded", `in ${n}`));
      chip.dataset.latent = latent;
      chip.setAttribute("aria-pressed", String(latent === this.lit));
      return chip;
    });
    const n = this.all().length;
    const said = shared.size ? `${plural(shared.size, "concept", "concepts")} in common` : "No concept in common";
    this.shared.replaceChildren(make("h2", "pl-h", n > 1 ? said : "Choose another picture to compare with"), ...chips);
    if (held) this.shared.querySelector(`[data-latent="${held}"]`)?.focus();
  }

  makeLine(one, latent, n) {
    const item = make("li");
    const button = makeButton("pl-beside-line", undefined, () => this.light(latent));
    button.append(make("span", "pl-name", this.nameOf(latent)));
    if (n) button.append(make("small", "pl-beside-both", `in ${n}`));
    button.append(make("span", "pl-amount", amountText(fires(one, latent))));
    button.dataset.latent = latent;
    button.classList.toggle("pl-shared", Boolean(n));
    button.setAttribute("aria-pressed", String(latent === this.lit));
    item.append(button);
    return item;
  }

  // One scale for all: full tint is the most that the concept fires in the data set, or in these pictures.
  drawMaps() {
    if (!this.isOpen) return;
    const { lit } = this;
    const here = Math.max(0, ...this.all().map((one) => fires(one, lit)));
    const known = this.all().find((one) => one.slots.has(lit) && one.code.datasetMax);
    const top = (known && known.code.datasetMax[known.slots.get(lit)]) || here || 1;
    for (const one of this.all()) {
      const map = mapOf(one.code, one.slots.get(lit));
      coverWith(one.node.querySelector("canvas"), map, one.code, { top, opacity: look.opacity });
      const n = map.reduce((count, amount) => count + (amount > 0), 0);
      const fired = n
        ? `${this.nameOf(lit)} fires in ${plural(n, "patch", "patches")}`
        : `${this.nameOf(lit)}: not here`;
      setText(one.node.querySelector("figcaption"), lit === null ? one.value.picture.alt : fired);
    }
  }
}
