// The map: every concept a dot. Two canvases: all dots, redrawn when the view changes; and what is lit,
// pointed at or fenced in, redrawn with the pointer. Where the dots lie: latents_places.js.

import { bus } from "./bus.js";
import { colour, setText, showPicture, switchGroup } from "./dom.js";
import { Dots, MARGIN, shadeOf } from "./latents_dots.js";
import { MapKeys } from "./latents_keys.js";
import { LatentsPlaces } from "./latents_places.js";
import { MapWords } from "./latents_words.js";
import { notes } from "./notes.js";
import { drawPins } from "./take_latents.js";
import { asLinked, readZoom, tidyLasso } from "./latents_link.js";

const DRAG_FROM = 5;
const MOST_CORNERS = 2000;
const MOST_ZOOM = 60;

export class LatentsMap {
  constructor(tab) {
    this.tab = tab;
    this.panel = tab.panel;
    this.all = tab.all;
    this.plane = this.panel.find(".pl-plane");
    this.dots = this.panel.find(".pl-dots");
    this.litDots = this.panel.find(".pl-lit-dots");
    this.dotTip = this.panel.find(".pl-dot-tip");
    this.atlas = { x: null, y: null, view: null, width: 0, height: 0, hover: -1, fence: null, colour: "" };
    Object.assign(this.atlas, { placement: "", chosen: -1 });
    this.dotsOf = new Dots(this.dots, this.atlas);
    this.places = new LatentsPlaces(this.panel, this.atlas, {
      redraw: () => this.drawDots(),
      choose: () => this.placed(),
    });
    this.words = new MapWords(this);
    this.near = new Map();
    this.iconWait = 0;
    this.hand = "lasso";
    this.grip = null;
    this.showHand = switchGroup(this.panel.find(".pl-hand"), (hand) => this.takeHand(hand));
    this.frameAsked = 0;
    this.ink = "";
    this.keys = new MapKeys(this);
    this.takeHand(this.hand);
    this.listen();
  }

  listen() {
    new ResizeObserver(() => this.fitPlane()).observe(this.plane);
    bus.on("icons", () => this.showDotIcon());
    this.plane.addEventListener("pointerdown", (event) => {
      if (event.button || !this.all.n) return;
      const [sx, sy] = this.spot(event);
      this.plane.setPointerCapture(event.pointerId);
      if (this.keys.down(event, [sx, sy])) this.dropGrip();
      else this.grip = { sx, sy, moved: false, view: { ...this.atlas.view } };
    });
    this.plane.addEventListener("pointermove", (event) => {
      if (!this.all.n) return;
      const [sx, sy] = this.spot(event);
      if (this.keys.move(event, [sx, sy])) return;
      if (this.grip) this.drag(sx, sy);
      else this.pointAt(this.pickDot(sx, sy), sx);
    });
    this.plane.addEventListener("pointerup", (event) => {
      if (!this.keys.up(event) && this.grip) this.letGo(...this.spot(event));
    });
    this.plane.addEventListener("pointercancel", (event) => {
      this.keys.up(event);
      this.dropGrip();
    });
    this.plane.addEventListener("pointerleave", () => {
      if (!this.grip) this.pointAt(-1);
    });
    this.plane.addEventListener("wheel", (event) => this.zoom(event), { passive: false });
    this.panel.find(".pl-home").addEventListener("click", () => this.moveTo(0, 0, 1));
  }

  // What was begun with one finger ends where a second one comes, or where the browser takes it.
  dropGrip() {
    if (this.grip && this.grip.moved && this.hand === "lasso") this.tab.table.dropFence();
    this.grip = null;
  }

  takeHand(hand) {
    this.hand = hand;
    this.showHand(hand);
    this.plane.dataset.hand = hand;
  }

  // A drag draws a fence around dots, or moves the map.
  drag(sx, sy) {
    const { grip, atlas } = this;
    if (!grip.moved && Math.hypot(sx - grip.sx, sy - grip.sy) < DRAG_FROM) return;
    if (!grip.moved && this.hand === "lasso") atlas.fence = [[this.planeX(grip.sx), this.planeY(grip.sy)]];
    grip.moved = true;
    this.pointAt(-1);
    if (this.hand === "lasso") {
      if (atlas.fence.length < MOST_CORNERS) atlas.fence.push([this.planeX(sx), this.planeY(sy)]);
      this.drawLit();
      return;
    }
    this.shift(grip.sx - sx, grip.sy - sy, { ...grip.view, scale: atlas.view.scale });
  }

  letGo(sx, sy) {
    const { moved } = this.grip;
    this.grip = null;
    if (moved) {
      const unit = 1 / (this.atlas.view.scale * this.atlas.width);
      if (this.hand === "lasso") this.tab.table.takeFence(tidyLasso(this.atlas.fence, unit));
      return;
    }
    const latent = this.pickDot(sx, sy);
    if (latent >= 0) this.openCard(latent);
    else {
      this.atlas.chosen = -1;
      this.tab.table.dropFence();
    }
  }

  openCard(latent) {
    this.atlas.chosen = latent;
    this.askNear(latent);
    bus.card.open(latent, this.plane);
  }

  zoom(event) {
    if (!this.all.n) return;
    event.preventDefault();
    this.zoomAt(...this.spot(event), Math.exp(-event.deltaY * 0.0018));
  }

  // Closer or wider by a factor; what lies at a spot stays there.
  zoomAt(sx, sy, factor) {
    const { view } = this.atlas;
    const x = this.planeX(sx);
    const y = this.planeY(sy);
    const scale = Math.min(MOST_ZOOM, Math.max(1, view.scale * factor));
    const keep = view.scale / scale;
    this.moveTo(x - (x - view.left) * keep, y - (y - view.top) * keep, scale);
  }

  // Move a view by some pixels.
  shift(right, down, { left, top, scale }) {
    const { width, height } = this.atlas;
    this.moveTo(left + right / scale / (width - 2 * MARGIN), top + down / scale / (height - 2 * MARGIN), scale);
  }

  placeDots(packed) {
    this.places.open(this.all, packed, this.tab.props.setup.axes);
  }

  // Another placement was chosen: a lasso and a view of the last one mean nothing on it.
  placed() {
    this.pointAt(-1);
    this.tab.table.dropFence();
    this.tab.writeLink();
  }

  screenX(x) {
    return MARGIN + (x - this.atlas.view.left) * this.atlas.view.scale * (this.atlas.width - 2 * MARGIN);
  }

  screenY(y) {
    return MARGIN + (y - this.atlas.view.top) * this.atlas.view.scale * (this.atlas.height - 2 * MARGIN);
  }

  planeX(sx) {
    return (sx - MARGIN) / (this.atlas.view.scale * (this.atlas.width - 2 * MARGIN)) + this.atlas.view.left;
  }

  planeY(sy) {
    return (sy - MARGIN) / (this.atlas.view.scale * (this.atlas.height - 2 * MARGIN)) + this.atlas.view.top;
  }

  fitPlane() {
    const width = this.plane.clientWidth;
    const height = this.plane.clientHeight;
    if (!width || !this.all.n) return;
    Object.assign(this.atlas, { width, height });
    for (const canvas of [this.dots, this.litDots]) {
      canvas.width = width * devicePixelRatio;
      canvas.height = height * devicePixelRatio;
    }
    this.drawDots();
  }

  drawDots() {
    if (!this.atlas.x || !this.atlas.width) return;
    const started = performance.now();
    const { kept, found } = this.tab.table.list;
    const dim = found ? 50 : this.litOn() ? 90 : 215;
    this.dotsOf.draw(kept, this.tab.heat.colours, this.figure(), dim);
    this.words.lay();
    performance.clearMeasures("patchlens-dots");
    performance.measure("patchlens-dots", { start: started });
    this.drawLit();
  }

  // What the dots are coloured by.
  figure() {
    return this.all.figures[this.atlas.colour];
  }

  pickDot(sx, sy) {
    return this.dotsOf.pick(sx, sy);
  }

  litOn() {
    return this.panel.find(".pl-light").checked && bus.picture !== null && bus.picture.code.ids.length > 0;
  }

  drawLit() {
    const context = this.litDots.getContext("2d");
    this.ink = colour("mark");
    const ratio = devicePixelRatio;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, this.atlas.width, this.atlas.height);
    const { list } = this.tab.table;
    if (list.found) for (const latent of list.order) this.disc(context, latent, latent === list.order[0] ? 8 : 5);
    else if (this.litOn()) this.drawPicture(context);
    for (const latent of list.fenced || []) if (list.kept[latent]) this.ring(context, latent, 4, 1);
    drawPins(context, this);
    if (this.atlas.fence) this.drawFence(context);
    this.drawNear(context);
    if (this.atlas.hover >= 0) this.ring(context, this.atlas.hover, 8, 2.5);
  }

  // Lines from the concept that is looked at, or was last opened, to those that are most like it.
  drawNear(context) {
    const { hover, chosen, x, y } = this.atlas;
    const latent = hover >= 0 ? hover : chosen;
    if (latent < 0 || Number.isNaN(x[latent])) return;
    context.strokeStyle = this.ink;
    context.lineWidth = 1.2;
    context.globalAlpha = 0.6;
    for (const other of this.near.get(this.nearKey(latent)) || []) {
      if (Number.isNaN(x[other])) continue;
      context.beginPath();
      context.moveTo(this.screenX(x[latent]), this.screenY(y[latent]));
      context.lineTo(this.screenX(x[other]), this.screenY(y[other]));
      context.stroke();
      this.ring(context, other, 4, 1.2);
    }
    context.globalAlpha = 1;
    if (hover < 0) this.ring(context, chosen, 8, 2.5);
  }

  nearKey(latent) {
    return `${this.atlas.placement} ${latent}`;
  }

  async askNear(latent) {
    const key = this.nearKey(latent);
    if (this.near.has(key)) return;
    this.near.set(key, []);
    try {
      const { near } = await this.panel.server.ask({ way: "near", latent, by: this.atlas.placement });
      this.near.set(key, near || []);
    } catch {
      this.near.delete(key);
    }
    this.drawLit();
  }

  // The concepts of the picture in view, bigger where they fire more.
  drawPicture(context) {
    const { code } = bus.picture;
    let most = 1e-9;
    for (let slot = 0; slot < code.ids.length; slot++) {
      if (!code.dense.has(slot) && code.max[slot] > most) most = code.max[slot];
    }
    for (let slot = 0; slot < code.ids.length; slot++) {
      const latent = code.ids[slot];
      if (!this.tab.table.list.kept[latent]) continue;
      this.disc(context, latent, 2.5 + 6 * Math.sqrt(Math.min(1, code.max[slot] / most)));
    }
  }

  disc(context, latent, radius) {
    if (Number.isNaN(this.atlas.x[latent])) return;
    const { colours } = this.tab.heat;
    const at = shadeOf(this.figure(), latent);
    context.beginPath();
    context.arc(this.screenX(this.atlas.x[latent]), this.screenY(this.atlas.y[latent]), radius, 0, 7);
    context.fillStyle = `rgb(${colours[at]},${colours[at + 1]},${colours[at + 2]})`;
    context.fill();
    context.strokeStyle = this.ink;
    context.lineWidth = 1;
    context.globalAlpha = 0.85;
    context.stroke();
    context.globalAlpha = 1;
  }

  ring(context, latent, radius, width) {
    if (Number.isNaN(this.atlas.x[latent])) return;
    context.beginPath();
    context.arc(this.screenX(this.atlas.x[latent]), this.screenY(this.atlas.y[latent]), radius, 0, 7);
    context.strokeStyle = this.ink;
    context.lineWidth = width;
    context.stroke();
  }

  drawFence(context) {
    context.beginPath();
    for (const [x, y] of this.atlas.fence) context.lineTo(this.screenX(x), this.screenY(y));
    context.closePath();
    context.fillStyle = this.ink;
    context.globalAlpha = 0.08;
    context.fill();
    context.globalAlpha = 0.9;
    context.setLineDash([5, 4]);
    context.strokeStyle = this.ink;
    context.lineWidth = 1.5;
    context.stroke();
    context.globalAlpha = 1;
    context.setLineDash([]);
  }

  insideFence(latent) {
    const x = this.atlas.x[latent];
    const y = this.atlas.y[latent];
    let inside = false;
    for (let i = 0, j = this.atlas.fence.length - 1; i < this.atlas.fence.length; j = i++) {
      const [xi, yi] = this.atlas.fence[i];
      const [xj, yj] = this.atlas.fence[j];
      if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) inside = !inside;
    }
    return inside;
  }

  pointAt(latent, sx) {
    if (latent === this.atlas.hover) return;
    this.ringAt(latent);
    this.dotTip.hidden = latent < 0;
    this.plane.style.cursor = latent >= 0 ? "pointer" : "";
    bus.card.prefetch(latent >= 0 ? latent : null);
    if (latent < 0) return;
    setText(this.panel.find(".pl-dot-name"), notes.word(latent, this.all.names[latent]));
    const number = this.all.names[latent] ? `#${latent} · ` : "";
    const { name, label } = this.all.statistics.find((one) => one.name === this.tab.props.setup.axes.x.name);
    const often = `${label.toLowerCase()} ${this.all.text(name, this.all.figure(name, latent))}`;
    setText(this.panel.find(".pl-dot-facts"), `${number}${often}`);
    this.dotTip.style.left = `${Math.min(this.atlas.width - 130, Math.max(130, sx))}px`;
    this.dotTip.style.top = `${this.screenY(this.atlas.y[latent])}px`;
    this.dotTip.classList.toggle("pl-below", this.screenY(this.atlas.y[latent]) < 90);
    this.showDotIcon();
    clearTimeout(this.iconWait);
    this.iconWait = setTimeout(() => {
      bus.askIcons(this.tab, [latent]);
      this.askNear(latent);
    }, 60);
  }

  showDotIcon() {
    const icon = this.panel.find(".pl-dot-icon");
    const picture = bus.icons.get(this.atlas.hover);
    icon.hidden = !this.tab.limits.has_index;
    showPicture(icon, picture);
  }

  ringAt(latent) {
    this.atlas.hover = latent;
    this.drawLit();
  }

  spot(event) {
    const box = this.plane.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  // The part in view that a link names, without a word to the link.
  showPart(text) {
    this.atlas.view = readZoom(text, MOST_ZOOM);
    this.drawDots();
  }

  moveTo(left, top, scale) {
    const room = 1 - 1 / scale;
    this.atlas.view = asLinked({
      left: Math.min(room, Math.max(0, left)),
      top: Math.min(room, Math.max(0, top)),
      scale,
    });
    cancelAnimationFrame(this.frameAsked);
    this.frameAsked = requestAnimationFrame(() => this.drawDots());
    this.tab.writeLink();
  }
}
