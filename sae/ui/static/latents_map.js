// The map: every concept a dot, how often it fires against how strongly. Two canvases: all dots,
// redrawn when the view changes; and what is lit, pointed at or fenced in, redrawn with the pointer.

import { bus } from "./bus.js";
import { colour, setText, switchGroup } from "./dom.js";
import { UNKNOWN } from "./latents_data.js";
import { notes } from "./notes.js";
import { drawPins } from "./take_latents.js";

const MARGIN = 26;
const CELL = 12;
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
    this.pixels = null;
    this.cellStart = new Int32Array(1);
    this.cellItems = new Int32Array(0);
    this.cellOf = this.cellItems;
    // The dots' colours, kept until another figure is shown or the picture's concepts are lit.
    this.shading = { key: "", shades: new Uint32Array(0) };
    this.iconWait = 0;
    this.hand = "lasso";
    this.grip = null;
    this.showHand = switchGroup(this.panel.find(".pl-hand"), (hand) => this.takeHand(hand));
    this.frameAsked = 0;
    this.ink = "";
    this.takeHand(this.hand);
    this.listen();
  }

  listen() {
    new ResizeObserver(() => this.fitPlane()).observe(this.plane);
    bus.on("icons", () => this.showDotIcon());
    this.plane.addEventListener("pointerdown", (event) => {
      if (event.button || !this.all.n) return;
      const [sx, sy] = this.spot(event);
      this.grip = { sx, sy, moved: false, view: { ...this.atlas.view } };
      this.plane.setPointerCapture(event.pointerId);
    });
    this.plane.addEventListener("pointermove", (event) => {
      if (!this.all.n) return;
      const [sx, sy] = this.spot(event);
      if (this.grip) this.drag(sx, sy);
      else this.pointAt(this.pickDot(sx, sy), sx);
    });
    this.plane.addEventListener("pointerup", (event) => {
      if (this.grip) this.letGo(...this.spot(event));
    });
    this.plane.addEventListener("pointercancel", () => {
      this.grip = null;
    });
    this.plane.addEventListener("pointerleave", () => {
      if (!this.grip) this.pointAt(-1);
    });
    this.plane.addEventListener("wheel", (event) => this.zoom(event), { passive: false });
    this.panel.find(".pl-home").addEventListener("click", () => this.moveTo(0, 0, 1));
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
    const step = 1 / atlas.view.scale;
    this.moveTo(
      grip.view.left - ((sx - grip.sx) * step) / (atlas.width - 2 * MARGIN),
      grip.view.top - ((sy - grip.sy) * step) / (atlas.height - 2 * MARGIN),
      atlas.view.scale,
    );
  }

  letGo(sx, sy) {
    const { moved } = this.grip;
    this.grip = null;
    if (moved) {
      if (this.hand === "lasso") this.tab.table.takeFence();
      return;
    }
    const latent = this.pickDot(sx, sy);
    if (latent >= 0) bus.card.open(latent, this.plane);
    else this.tab.table.dropFence();
  }

  zoom(event) {
    if (!this.all.n) return;
    event.preventDefault();
    const { view } = this.atlas;
    const [sx, sy] = this.spot(event);
    const x = this.planeX(sx);
    const y = this.planeY(sy);
    const scale = Math.min(MOST_ZOOM, Math.max(1, view.scale * Math.exp(-event.deltaY * 0.0018)));
    const keep = view.scale / scale;
    this.moveTo(x - (x - view.left) * keep, y - (y - view.top) * keep, scale);
  }

  placeDots() {
    const { x, y } = this.tab.props.setup.axes;
    const across = this.all.figures[x.name].codes;
    const up = this.all.figures[y.name].codes;
    this.atlas.x = new Float32Array(this.all.n);
    this.atlas.y = new Float32Array(this.all.n);
    for (let i = 0; i < this.all.n; i++) {
      const dead = across[i] === UNKNOWN || up[i] === UNKNOWN;
      this.atlas.x[i] = dead ? NaN : across[i] / (UNKNOWN - 1);
      this.atlas.y[i] = dead ? NaN : 1 - up[i] / (UNKNOWN - 1);
    }
    this.atlas.view = { left: 0, top: 0, scale: 1 };
    setText(this.panel.find(".pl-axis-x"), `${x.grows} →`);
    setText(this.panel.find(".pl-axis-y"), `${y.grows} →`);
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

  shadeOf(latent) {
    const figure = this.all.figures[this.atlas.colour];
    if (!figure || figure.codes[latent] === UNKNOWN) return 3 * 100;
    return 3 * Math.round((figure.codes[latent] / (UNKNOWN - 1)) * 255);
  }

  // Every dot straight into the pixels, and sorted into cells for the pointer: 49,152 of them take a
  // few milliseconds, because nothing is made anew for a dot.
  drawDots() {
    const started = performance.now();
    const { width, height } = this.dots;
    const context = this.dots.getContext("2d");
    if (!this.pixels || this.pixels.width !== width || this.pixels.height !== height) {
      this.pixels = context.createImageData(width, height);
    }
    if (this.cellOf.length !== this.all.n) {
      this.cellOf = new Int32Array(this.all.n);
      this.cellItems = new Int32Array(this.all.n);
    }
    this.fillPixels(new Uint32Array(this.pixels.data.buffer), width, height);
    this.sortIntoCells();
    context.putImageData(this.pixels, 0, 0);
    performance.clearMeasures("patchlens-dots");
    performance.measure("patchlens-dots", { start: started });
    this.drawLit();
  }

  // Draw every dot that is kept and in view, and note its cell.
  fillPixels(out, width, height) {
    const { cellOf } = this;
    const { kept } = this.tab.table.list;
    const { x, y, view, width: across, height: down } = this.atlas;
    const ratio = devicePixelRatio;
    const shades = this.shadesOfDots();
    const zoom = Math.min(2.2, Math.sqrt(view.scale));
    const size = Math.max(2, Math.round((this.all.n > 8000 ? 2 : 3.4) * ratio * zoom));
    const columns = Math.ceil(across / CELL);
    const kx = view.scale * (across - 2 * MARGIN);
    const ky = view.scale * (down - 2 * MARGIN);
    out.fill(0);
    for (let i = 0; i < this.all.n; i++) {
      const sx = MARGIN + (x[i] - view.left) * kx;
      const sy = MARGIN + (y[i] - view.top) * ky;
      cellOf[i] = -1;
      if (!kept[i] || !(sx >= 0 && sy >= 0 && sx < across && sy < down)) continue;
      cellOf[i] = Math.floor(sy / CELL) * columns + Math.floor(sx / CELL);
      const left = Math.max(0, Math.round(sx * ratio - size / 2));
      const upper = Math.max(0, Math.round(sy * ratio - size / 2));
      const right = Math.min(width, left + size);
      const lower = Math.min(height, upper + size);
      for (let row = upper; row < lower; row++) out.fill(shades[i], row * width + left, row * width + right);
    }
  }

  // The dots of cell c are cellItems[cellStart[c]] to cellItems[cellStart[c + 1] - 1].
  sortIntoCells() {
    const { cellOf, cellItems } = this;
    const nCells = Math.ceil(this.atlas.width / CELL) * Math.ceil(this.atlas.height / CELL);
    const start = new Int32Array(nCells + 1);
    for (const cell of cellOf) if (cell >= 0) start[cell + 1]++;
    for (let cell = 0; cell < nCells; cell++) start[cell + 1] += start[cell];
    const next = start.slice();
    for (let i = 0; i < cellOf.length; i++) if (cellOf[i] >= 0) cellItems[next[cellOf[i]]++] = i;
    this.cellStart = start;
  }

  shadesOfDots() {
    const { colours } = this.tab.heat;
    const dim = this.tab.table.list.found ? 50 : this.litOn() ? 90 : 215;
    const key = this.atlas.colour + dim;
    if (this.shading.key === key && this.shading.shades.length === this.all.n) return this.shading.shades;
    const shades = new Uint32Array(this.all.n);
    for (let i = 0; i < this.all.n; i++) {
      const at = this.shadeOf(i);
      shades[i] = ((dim << 24) | (colours[at + 2] << 16) | (colours[at + 1] << 8) | colours[at]) >>> 0;
    }
    Object.assign(this.shading, { key, shades });
    return shades;
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
    if (this.tab.table.list.fenced) for (const latent of this.tab.table.list.fenced) this.ring(context, latent, 4, 1);
    drawPins(context, this);
    if (this.atlas.fence) this.drawFence(context);
    if (this.atlas.hover >= 0) this.ring(context, this.atlas.hover, 8, 2.5);
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
    const at = this.shadeOf(latent);
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

  // The dot under the pointer: the nearest one within a cell.
  pickDot(sx, sy) {
    const columns = Math.ceil(this.atlas.width / CELL);
    const row = Math.floor(sy / CELL);
    const column = Math.floor(sx / CELL);
    let best = -1;
    let nearest = CELL * CELL;
    for (let r = Math.max(0, row - 1); r <= row + 1; r++) {
      for (let c = Math.max(0, column - 1); c <= Math.min(columns - 1, column + 1); c++) {
        const cell = r * columns + c;
        for (let k = this.cellStart[cell]; k < this.cellStart[cell + 1]; k++) {
          const latent = this.cellItems[k];
          const far = (this.screenX(this.atlas.x[latent]) - sx) ** 2 + (this.screenY(this.atlas.y[latent]) - sy) ** 2;
          if (far < nearest) {
            nearest = far;
            best = latent;
          }
        }
      }
    }
    return best;
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
    this.iconWait = setTimeout(() => bus.askIcons(this.tab, [latent]), 60);
  }

  showDotIcon() {
    const icon = this.panel.find(".pl-dot-icon");
    const picture = bus.icons.get(this.atlas.hover);
    icon.hidden = !picture;
    if (picture) icon.src = picture;
  }

  ringAt(latent) {
    this.atlas.hover = latent;
    this.drawLit();
  }

  spot(event) {
    const box = this.plane.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  moveTo(left, top, scale) {
    const room = 1 - 1 / scale;
    this.atlas.view = { left: Math.min(room, Math.max(0, left)), top: Math.min(room, Math.max(0, top)), scale };
    cancelAnimationFrame(this.frameAsked);
    this.frameAsked = requestAnimationFrame(() => this.drawDots());
  }
}
