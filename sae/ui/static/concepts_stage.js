// The picture: map, crop frame, grid cells, pointer and keys.

import { mapOf } from "./code.js";
import { tintOf } from "./concepts_list.js";
import { amountText, make, pictureColour, setText } from "./dom.js";
import { look } from "./look.js";
import { drawOverlay, drawTintRamp } from "./overlay.js";

// Beside the things that stand on it, what fills a picture is laid on lightly and without an outline.
const GROUND = 1 / 3;
const GROUND_OPACITY = 0.35;

function fillsPicture(map) {
  const half = Math.max(...map) / 2;
  return map.reduce((n, amount) => n + (amount > half), 0) > GROUND * map.length;
}

function drawCrop(context, x, y, w, h, width, height) {
  context.fillStyle = pictureColour("unseen");
  context.beginPath();
  context.rect(0, 0, width, height);
  context.rect(x, y, w, h);
  context.fill("evenodd");
  context.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
  context.strokeStyle = pictureColour("unseen-edge");
  context.lineWidth = 1.5 * devicePixelRatio;
  context.strokeRect(x, y, w, h);
  context.setLineDash([]);
}

export class Stage {
  constructor(tab) {
    this.tab = tab;
    this.panel = tab.panel;
    this.state = tab.state;
    this.frame = this.panel.find(".pl-frame");
    this.grid = this.panel.find(".pl-grid");
    this.tip = this.panel.find(".pl-tip");
    this.mapCanvas = this.panel.find(".pl-map");
    this.markCanvas = this.panel.find(".pl-marks");
    this.cells = [];
    this.focusCell = 0;
    this.drag = null;
    this.canvasSize = [0, 0];
    this.mapKey = "";
    // Where the grid is on screen: measured again only after something can have moved it.
    this.gridArea = null;
    this.listen();
  }

  listen() {
    new ResizeObserver(() => {
      this.forgetArea();
      this.fitCanvas();
    }).observe(this.frame);
    for (const kind of ["scroll", "resize"]) {
      window.addEventListener(kind, () => this.forgetArea(), { capture: true, passive: true });
    }
    for (const kind of ["pointerenter", "pointerdown"]) {
      this.grid.addEventListener(kind, () => this.forgetArea(), { capture: true });
    }
    this.grid.addEventListener("pointermove", (event) => this.pointerMoved(event));
    this.grid.addEventListener("pointerleave", () => {
      if (this.state.hover >= 0 && !this.drag) this.hover(-1);
    });
    this.grid.addEventListener("pointerdown", (event) => this.pointerDown(event));
    this.grid.addEventListener("pointerup", () => {
      const done = this.drag;
      this.drag = null;
      if (done) this.finishDrag(done);
    });
    this.grid.addEventListener("pointercancel", () => {
      this.drag = null;
      this.state.dragged = null;
      this.tab.render();
    });
    this.grid.addEventListener("focusin", (event) => this.focused(event.target));
    this.grid.addEventListener("focusout", () => this.hover(-1));
    this.grid.addEventListener("keydown", (event) => {
      if (this.state.code) this.keyPressed(event);
    });
  }

  hover(patch) {
    this.state.hover = patch;
    this.tab.renderHover();
  }

  pointerMoved(event) {
    if (!this.state.code) return;
    const patch = this.patchAt(event);
    if (this.drag && patch >= 0) this.dragTo(patch);
    else if (event.pointerType !== "touch" && patch !== this.state.hover) this.hover(patch);
  }

  pointerDown(event) {
    if (!this.state.code || event.button !== 0) return;
    const patch = this.patchAt(event);
    if (patch < 0) return;
    const add = event.ctrlKey || event.metaKey;
    this.drag = { from: patch, to: patch, subtract: event.shiftKey, add, moved: false };
    if (event.pointerType !== "touch") this.grid.setPointerCapture(event.pointerId);
  }

  focused(cell) {
    const patch = this.cells.indexOf(cell);
    if (patch < 0 || !this.state.code || !cell.matches(":focus-visible")) return;
    this.hover(patch);
    cell.setAttribute("aria-label", this.tab.patchSentence(patch));
  }

  keyPressed(event) {
    const { rows, columns } = this.state.code;
    const row = Math.floor(this.focusCell / columns);
    const column = this.focusCell % columns;
    const to = {
      ArrowLeft: [row, column - 1],
      ArrowRight: [row, column + 1],
      ArrowUp: [row - 1, column],
      ArrowDown: [row + 1, column],
      Home: [row, 0],
      End: [row, columns - 1],
      PageUp: [0, column],
      PageDown: [rows - 1, column],
    }[event.key];
    if (!to && event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    if (!to) this.choose(event.key === " ");
    else if (to[0] >= 0 && to[1] >= 0 && to[0] < rows && to[1] < columns) this.moveFocus(to[0] * columns + to[1], true);
  }

  // The patch that has the focus: alone, or added to the others and taken away again.
  choose(another) {
    const chosen = this.state.patches.has(this.focusCell);
    const only = chosen && this.state.patches.size === 1;
    const patches = new Set(another ? this.state.patches : []);
    if (another ? chosen : only) patches.delete(this.focusCell);
    else patches.add(this.focusCell);
    this.state.patches = patches;
    this.tab.render();
    this.panel.say(this.tab.placeSentence());
  }

  layStage() {
    const { picture, box, grid } = this.state.value;
    const [rows, columns] = grid;
    this.frame.style.setProperty("--ratio", picture.width / picture.height);
    const [left, top, right, bottom] = box.map((edge) => `${(100 * edge).toFixed(3)}%`);
    this.grid.style.left = left;
    this.grid.style.top = top;
    this.grid.style.right = `calc(100% - ${right})`;
    this.grid.style.bottom = `calc(100% - ${bottom})`;
    this.frame.classList.toggle("pl-cropped", box[0] > 0.004 || box[1] > 0.004 || box[2] < 0.996 || box[3] < 0.996);
    if (this.cells.length !== rows * columns || Number(this.grid.getAttribute("aria-colcount")) !== columns) {
      this.layCells(rows, columns);
    }
  }

  layCells(rows, columns) {
    this.grid.replaceChildren();
    this.grid.setAttribute("aria-rowcount", rows);
    this.grid.setAttribute("aria-colcount", columns);
    this.cells = [];
    for (let row = 0; row < rows; row++) {
      const line = make("div", "pl-grid-row");
      line.setAttribute("role", "row");
      for (let column = 0; column < columns; column++) {
        const cell = make("div", "pl-cell");
        cell.setAttribute("role", "gridcell");
        cell.setAttribute("aria-label", `row ${row + 1}, column ${column + 1}`);
        cell.tabIndex = -1;
        this.cells.push(cell);
        line.append(cell);
      }
      this.grid.append(line);
    }
    this.focusCell = 0;
    this.cells[0].tabIndex = 0;
  }

  fitCanvas() {
    const width = Math.round(this.frame.clientWidth * devicePixelRatio);
    const height = Math.round(this.frame.clientHeight * devicePixelRatio);
    if (!width || (this.canvasSize[0] === width && this.canvasSize[1] === height)) return;
    this.canvasSize = [width, height];
    for (const canvas of [this.mapCanvas, this.markCanvas]) {
      canvas.width = width;
      canvas.height = height;
    }
    this.mapKey = "";
    if (this.state.code) this.renderMap();
  }

  // Two canvases: the map with the part the model did not see, drawn only when it changes, and the
  // outline of the patches in view.
  renderMap() {
    const { code, value } = this.state;
    const [width, height] = this.canvasSize;
    const [l, t, r, b] = value.box;
    const x = l * width;
    const y = t * height;
    const w = (r - l) * width;
    const h = (b - t) * height;
    const slot = this.tab.slotInView();
    const key = [code.turn, slot, this.state.scale, look.opacity, this.state.concept !== null].join();
    if (key !== this.mapKey) {
      this.mapKey = key;
      const context = this.mapCanvas.getContext("2d");
      context.clearRect(0, 0, width, height);
      for (const one of this.slotsDrawn(slot)) this.drawMap(context, one, [x, y, w, h]);
      if (this.frame.classList.contains("pl-cropped")) drawCrop(context, x, y, w, h, width, height);
      this.renderLegend(slot);
    }
    const marks = this.markCanvas.getContext("2d");
    const places = this.tab.patchesInView();
    marks.clearRect(0, 0, width, height);
    if (places.length) this.drawPatches(marks, places, x, y, w / code.columns, h / code.rows);
  }

  // The concept in view; without one, those that lead in the picture, the last of them below.
  slotsDrawn(slot) {
    if (slot !== undefined) return [slot];
    return this.state.concept === null ? this.state.code.leading.toReversed() : [];
  }

  drawMap(context, slot, area) {
    const { code } = this.state;
    const map = mapOf(code, slot);
    const how = { top: this.scaleTop(slot, map), opacity: look.opacity, tint: tintOf(code, slot), area };
    const isGround = this.tab.slotInView() === undefined && fillsPicture(map);
    if (isGround) Object.assign(how, { opacity: look.opacity * GROUND_OPACITY, outline: "" });
    drawOverlay(context, map, code, how);
  }

  // One outline around a set of patches: only the edges between inside and outside.
  drawPatches(context, places, x, y, w, h) {
    const { code } = this.state;
    const inside = new Set(places);
    context.beginPath();
    for (const place of places) {
      const row = Math.floor(place / code.columns);
      const column = place % code.columns;
      const l = x + column * w;
      const t = y + row * h;
      if (row === 0 || !inside.has(place - code.columns)) {
        context.moveTo(l, t);
        context.lineTo(l + w, t);
      }
      if (row === code.rows - 1 || !inside.has(place + code.columns)) {
        context.moveTo(l, t + h);
        context.lineTo(l + w, t + h);
      }
      if (column === 0 || !inside.has(place - 1)) {
        context.moveTo(l, t);
        context.lineTo(l, t + h);
      }
      if (column === code.columns - 1 || !inside.has(place + 1)) {
        context.moveTo(l + w, t);
        context.lineTo(l + w, t + h);
      }
    }
    context.lineCap = "square";
    context.strokeStyle = pictureColour("under-outline");
    context.lineWidth = 5 * devicePixelRatio;
    context.stroke();
    context.strokeStyle = pictureColour("on-picture");
    context.lineWidth = 2.2 * devicePixelRatio;
    context.stroke();
  }

  scaleTop(slot, map) {
    const { code } = this.state;
    if (slot === undefined) return 1;
    if (this.state.scale === "dataset" && code.datasetMax && code.datasetMax[slot] > 0) return code.datasetMax[slot];
    return map.reduce((most, amount) => Math.max(most, amount), 0) || 1;
  }

  renderLegend(slot) {
    const legend = this.panel.find(".pl-legend");
    const known = slot !== undefined;
    legend.classList.toggle("pl-off", !known);
    drawTintRamp(this.panel.find(".pl-ramp"), tintOf(this.state.code, slot));
    setText(
      this.panel.find(".pl-legend-high"),
      known ? amountText(this.scaleTop(slot, mapOf(this.state.code, slot))) : "max",
    );
  }

  forgetArea() {
    this.gridArea = null;
  }

  patchAt(event) {
    if (!this.gridArea) this.gridArea = this.grid.getBoundingClientRect();
    const area = this.gridArea;
    const { code } = this.state;
    const column = Math.floor(((event.clientX - area.left) / area.width) * code.columns);
    const row = Math.floor(((event.clientY - area.top) / area.height) * code.rows);
    return row < 0 || column < 0 || row >= code.rows || column >= code.columns ? -1 : row * code.columns + column;
  }

  rectangle(from, to) {
    const { columns } = this.state.code;
    const patches = [];
    const [r0, r1] = [Math.floor(from / columns), Math.floor(to / columns)].sort((a, b) => a - b);
    const [c0, c1] = [from % columns, to % columns].sort((a, b) => a - b);
    for (let row = r0; row <= r1; row++) {
      for (let column = c0; column <= c1; column++) patches.push(row * columns + column);
    }
    return patches;
  }

  dragTo(patch) {
    if (patch === this.drag.to) return;
    this.drag.to = patch;
    this.drag.moved = true;
    this.state.dragged = this.combine(this.rectangle(this.drag.from, this.drag.to), this.drag);
    this.state.hover = -1;
    this.tab.renderHover();
  }

  combine(patches, how) {
    const result = new Set(how.subtract || how.add || how.moved ? this.state.patches : []);
    for (const patch of patches) {
      if (how.subtract) result.delete(patch);
      else result.add(patch);
    }
    return result;
  }

  finishDrag(how) {
    this.state.dragged = null;
    this.state.hover = -1;
    const only = this.state.patches.size === 1 && this.state.patches.has(how.from);
    if (!how.moved && only && !how.subtract) this.state.patches = new Set();
    else this.state.patches = this.combine(this.rectangle(how.from, how.to), how);
    this.moveFocus(how.to, false);
    this.tab.render();
    this.panel.say(this.tab.placeSentence());
  }

  moveFocus(patch, really) {
    this.cells[this.focusCell].tabIndex = -1;
    this.focusCell = patch;
    this.cells[patch].tabIndex = 0;
    if (really) this.cells[patch].focus({ preventScroll: false });
  }
}
