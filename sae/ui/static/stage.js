// The picture: map, crop frame, grid cells, pointer and keys.

const frame = find(".pl-frame"), grid = find(".pl-grid"), tip = find(".pl-tip");
const mapCanvas = find(".pl-map"), markCanvas = find(".pl-marks");
let cells = [], focusCell = 0, drag = null, canvasSize = [0, 0], mapKey = "";

function layStage() {
  const { picture, box, grid: [nRows, nColumns] } = state.value;
  frame.style.setProperty("--ratio", picture.width / picture.height);
  const [left, top, right, bottom] = box.map((edge) => (100 * edge).toFixed(3) + "%");
  grid.style.left = left; grid.style.top = top;
  grid.style.right = "calc(100% - " + right + ")"; grid.style.bottom = "calc(100% - " + bottom + ")";
  frame.classList.toggle("pl-cropped", box[0] > 0.004 || box[1] > 0.004 || box[2] < 0.996 || box[3] < 0.996);
  if (cells.length === nRows * nColumns && Number(grid.getAttribute("aria-colcount")) === nColumns) return;
  grid.replaceChildren();
  grid.setAttribute("aria-rowcount", nRows);
  grid.setAttribute("aria-colcount", nColumns);
  cells = [];
  for (let row = 0; row < nRows; row++) {
    const line = make("div", "pl-grid-row");
    line.setAttribute("role", "row");
    for (let column = 0; column < nColumns; column++) {
      const cell = make("div", "pl-cell");
      cell.setAttribute("role", "gridcell");
      cell.setAttribute("aria-label", "row " + (row + 1) + ", column " + (column + 1));
      cell.tabIndex = -1;
      cells.push(cell);
      line.append(cell);
    }
    grid.append(line);
  }
  focusCell = 0;
  cells[0].tabIndex = 0;
}

function fitCanvas() {
  const width = Math.round(frame.clientWidth * devicePixelRatio), height = Math.round(frame.clientHeight * devicePixelRatio);
  if (!width || (canvasSize[0] === width && canvasSize[1] === height)) return;
  canvasSize = [width, height];
  mapCanvas.width = markCanvas.width = width;
  mapCanvas.height = markCanvas.height = height;
  mapKey = "";
  if (state.code) renderMap();
}
new ResizeObserver(() => { forgetArea(); fitCanvas(); }).observe(frame);

// Two canvases: the map with the part the model did not see, drawn only when it changes, and the
// outline of the patches in view.
function renderMap() {
  const { code, value } = state, [width, height] = canvasSize, [l, t, r, b] = value.box;
  const x = l * width, y = t * height, w = (r - l) * width, h = (b - t) * height, slot = slotInView();
  const key = [code.turn, slot, state.scale, state.opacity, state.concept !== null].join();
  if (key !== mapKey) {
    mapKey = key;
    const context = mapCanvas.getContext("2d");
    context.clearRect(0, 0, width, height);
    if (slot !== undefined || state.concept !== null) {
      const map = mapOf(code, slot);
      drawHeat(context, map, code, scaleTop(slot, map), state.opacity, x, y, w, h);
    }
    if (frame.classList.contains("pl-cropped")) drawCrop(context, x, y, w, h, width, height);
    renderLegend(slot);
  }
  const marks = markCanvas.getContext("2d"), places = patchesInView();
  marks.clearRect(0, 0, width, height);
  if (places.length) drawPatches(marks, places, x, y, w / code.columns, h / code.rows);
}

function drawCrop(context, x, y, w, h, width, height) {
  context.fillStyle = "rgba(16,18,24,.62)";
  context.beginPath();
  context.rect(0, 0, width, height);
  context.rect(x, y, w, h);
  context.fill("evenodd");
  context.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
  context.strokeStyle = "rgba(255,255,255,.9)"; context.lineWidth = 1.5 * devicePixelRatio;
  context.strokeRect(x, y, w, h);
  context.setLineDash([]);
}

// One outline around a set of patches: only the edges between inside and outside.
function drawPatches(context, places, x, y, w, h) {
  const { code } = state, inside = new Set(places);
  context.beginPath();
  for (const place of places) {
    const row = Math.floor(place / code.columns), column = place % code.columns;
    const l = x + column * w, t = y + row * h;
    if (row === 0 || !inside.has(place - code.columns)) { context.moveTo(l, t); context.lineTo(l + w, t); }
    if (row === code.rows - 1 || !inside.has(place + code.columns)) { context.moveTo(l, t + h); context.lineTo(l + w, t + h); }
    if (column === 0 || !inside.has(place - 1)) { context.moveTo(l, t); context.lineTo(l, t + h); }
    if (column === code.columns - 1 || !inside.has(place + 1)) { context.moveTo(l + w, t); context.lineTo(l + w, t + h); }
  }
  context.lineCap = "square";
  context.strokeStyle = "rgba(0,0,0,.75)"; context.lineWidth = 5 * devicePixelRatio; context.stroke();
  context.strokeStyle = "#fff"; context.lineWidth = 2.2 * devicePixelRatio; context.stroke();
}

function scaleTop(slot, map) {
  const { code } = state;
  if (slot === undefined) return 1;
  if (state.scale === "dataset" && code.datasetMax && code.datasetMax[slot] > 0) return code.datasetMax[slot];
  return map.reduce((most, amount) => Math.max(most, amount), 0) || 1;
}

function renderLegend(slot) {
  const legend = find(".pl-legend"), known = slot !== undefined;
  legend.classList.toggle("pl-off", !known);
  setText(find(".pl-legend-high"), known ? amountText(scaleTop(slot, mapOf(state.code, slot))) : "max");
}

// Where the grid is on screen: measured again only after something can have moved it.
let gridArea = null;
const forgetArea = () => { gridArea = null; };
for (const kind of ["scroll", "resize"]) window.addEventListener(kind, forgetArea, { capture: true, passive: true });
for (const kind of ["pointerenter", "pointerdown"]) grid.addEventListener(kind, forgetArea, { capture: true });

function patchAt(event) {
  const area = gridArea || (gridArea = grid.getBoundingClientRect()), { code } = state;
  const column = Math.floor((event.clientX - area.left) / area.width * code.columns);
  const row = Math.floor((event.clientY - area.top) / area.height * code.rows);
  return row < 0 || column < 0 || row >= code.rows || column >= code.columns ? -1 : row * code.columns + column;
}

function rectangle(from, to) {
  const { columns } = state.code, patches = [];
  const [r0, r1] = [Math.floor(from / columns), Math.floor(to / columns)].sort((a, b) => a - b);
  const [c0, c1] = [from % columns, to % columns].sort((a, b) => a - b);
  for (let row = r0; row <= r1; row++) for (let column = c0; column <= c1; column++) patches.push(row * columns + column);
  return patches;
}

grid.addEventListener("pointermove", (event) => {
  if (!state.code) return;
  const patch = patchAt(event);
  if (drag && patch >= 0) { dragTo(patch); return; }
  if (event.pointerType === "touch" || patch === state.hover) return;
  state.hover = patch;
  renderHover();
});
grid.addEventListener("pointerleave", () => { if (state.hover >= 0 && !drag) { state.hover = -1; renderHover(); } });
grid.addEventListener("pointerdown", (event) => {
  if (!state.code || event.button !== 0) return;
  const patch = patchAt(event);
  if (patch < 0) return;
  drag = { from: patch, to: patch, subtract: event.shiftKey, add: event.ctrlKey || event.metaKey, moved: false };
  if (event.pointerType !== "touch") grid.setPointerCapture(event.pointerId);
});
grid.addEventListener("pointerup", () => { const done = drag; drag = null; if (done) finishDrag(done); });
grid.addEventListener("pointercancel", () => { drag = null; state.dragged = null; render(); });

function dragTo(patch) {
  if (patch === drag.to) return;
  drag.to = patch; drag.moved = true;
  state.dragged = combine(rectangle(drag.from, drag.to), drag);
  state.hover = -1;
  renderHover();
}

function combine(patches, how) {
  const result = new Set(how.subtract || how.add || how.moved ? state.patches : []);
  for (const patch of patches) { if (how.subtract) result.delete(patch); else result.add(patch); }
  return result;
}

function finishDrag(how) {
  state.dragged = null;
  state.hover = -1;
  const only = state.patches.size === 1 && state.patches.has(how.from);
  if (!how.moved && only && !how.subtract) state.patches = new Set();
  else state.patches = combine(rectangle(how.from, how.to), how);
  moveFocus(how.to, false);
  render();
  say(placeSentence());
}

function moveFocus(patch, really) {
  cells[focusCell].tabIndex = -1;
  focusCell = patch;
  cells[patch].tabIndex = 0;
  if (!really) return;
  cells[patch].focus({ preventScroll: false });
}

grid.addEventListener("focusin", (event) => {
  const patch = cells.indexOf(event.target);
  if (patch < 0 || !state.code || !event.target.matches(":focus-visible")) return;
  state.hover = patch;
  renderHover();
  cells[patch].setAttribute("aria-label", patchSentence(patch));
});
grid.addEventListener("focusout", () => { state.hover = -1; renderHover(); });
grid.addEventListener("keydown", (event) => {
  if (!state.code) return;
  const { rows: nRows, columns } = state.code, row = Math.floor(focusCell / columns), column = focusCell % columns;
  const to = {
    ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1], ArrowUp: [row - 1, column], ArrowDown: [row + 1, column],
    Home: [row, 0], End: [row, columns - 1], PageUp: [0, column], PageDown: [nRows - 1, column],
  }[event.key];
  if (to) {
    event.preventDefault();
    if (to[0] < 0 || to[1] < 0 || to[0] >= nRows || to[1] >= columns) return;
    moveFocus(to[0] * columns + to[1], true);
  } else if (event.key === "Enter") {
    event.preventDefault();
    const only = state.patches.size === 1 && state.patches.has(focusCell);
    state.patches = new Set(only ? [] : [focusCell]);
    render();
    say(only ? "Whole picture" : placeSentence());
  } else if (event.key === " ") {
    event.preventDefault();
    if (!state.patches.delete(focusCell)) state.patches.add(focusCell);
    state.patches = new Set(state.patches);
    render();
    say(placeSentence());
  }
});
