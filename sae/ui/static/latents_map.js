// The map: every concept a dot, how often it fires against how strongly. Two canvases: all dots,
// redrawn when the view changes; and what is lit, pointed at or fenced in, redrawn with the pointer.

const plane = find(".pl-plane"), dots = find(".pl-dots"), litDots = find(".pl-lit-dots");
const dotTip = find(".pl-dot-tip"), colours = fromBase64(props.setup.colours, Uint8Array);
const atlas = { x: null, y: null, view: null, width: 0, height: 0, hover: -1, fence: null, colour: "" };
const MARGIN = 26, CELL = 12;

function placeDots() {
  const { frequency, mean } = all.figures;
  atlas.x = new Float32Array(all.n);
  atlas.y = new Float32Array(all.n);
  for (let i = 0; i < all.n; i++) {
    const dead = frequency.codes[i] === UNKNOWN || mean.codes[i] === UNKNOWN;
    atlas.x[i] = dead ? NaN : frequency.codes[i] / (UNKNOWN - 1);
    atlas.y[i] = dead ? NaN : 1 - mean.codes[i] / (UNKNOWN - 1);
  }
  atlas.view = { left: 0, top: 0, scale: 1 };
}

const screenX = (x) => MARGIN + (x - atlas.view.left) * atlas.view.scale * (atlas.width - 2 * MARGIN);
const screenY = (y) => MARGIN + (y - atlas.view.top) * atlas.view.scale * (atlas.height - 2 * MARGIN);
const planeX = (sx) => (sx - MARGIN) / (atlas.view.scale * (atlas.width - 2 * MARGIN)) + atlas.view.left;
const planeY = (sy) => (sy - MARGIN) / (atlas.view.scale * (atlas.height - 2 * MARGIN)) + atlas.view.top;

function fitPlane() {
  const width = plane.clientWidth, height = plane.clientHeight;
  if (!width || !all.n) return;
  Object.assign(atlas, { width, height });
  for (const canvas of [dots, litDots]) { canvas.width = width * devicePixelRatio; canvas.height = height * devicePixelRatio; }
  drawDots();
}
new ResizeObserver(fitPlane).observe(plane);

function shadeOf(latent) {
  const figure = all.figures[atlas.colour];
  if (!figure || figure.codes[latent] === UNKNOWN) return 3 * 100;
  return 3 * Math.round(figure.codes[latent] / (UNKNOWN - 1) * 255);
}

// Every dot straight into the pixels, and sorted into cells for the pointer: 49,152 of them take a
// few milliseconds, because nothing is made anew for a dot.
let pixels = null, cellStart = new Int32Array(1), cellItems = new Int32Array(0), cellOf = cellItems;

function drawDots() {
  const started = performance.now(), ratio = devicePixelRatio, { width, height } = dots, context = dots.getContext("2d");
  if (!pixels || pixels.width !== width || pixels.height !== height) pixels = context.createImageData(width, height);
  const out = new Uint32Array(pixels.data.buffer), shades = shadesOfDots();
  out.fill(0);
  const size = Math.max(2, Math.round((all.n > 8000 ? 2 : 3.4) * ratio * Math.min(2.2, Math.sqrt(atlas.view.scale))));
  const columns = Math.ceil(atlas.width / CELL), nCells = columns * Math.ceil(atlas.height / CELL);
  const { x, y, view } = atlas, kx = view.scale * (atlas.width - 2 * MARGIN), ky = view.scale * (atlas.height - 2 * MARGIN);
  if (cellOf.length !== all.n) { cellOf = new Int32Array(all.n); cellItems = new Int32Array(all.n); }
  cellStart = new Int32Array(nCells + 1);
  for (let i = 0; i < all.n; i++) {
    const sx = MARGIN + (x[i] - view.left) * kx, sy = MARGIN + (y[i] - view.top) * ky;
    cellOf[i] = -1;
    if (!list.kept[i] || !(sx >= 0 && sy >= 0 && sx < atlas.width && sy < atlas.height)) continue;
    cellOf[i] = Math.floor(sy / CELL) * columns + Math.floor(sx / CELL);
    cellStart[cellOf[i] + 1]++;
    const left = Math.max(0, Math.round(sx * ratio - size / 2)), upper = Math.max(0, Math.round(sy * ratio - size / 2));
    const right = Math.min(width, left + size), lower = Math.min(height, upper + size), shade = shades[i];
    for (let row = upper; row < lower; row++) for (let at = row * width + left, end = row * width + right; at < end; at++) out[at] = shade;
  }
  for (let cell = 0; cell < nCells; cell++) cellStart[cell + 1] += cellStart[cell];
  const next = cellStart.slice();
  for (let i = 0; i < all.n; i++) if (cellOf[i] >= 0) cellItems[next[cellOf[i]]++] = i;
  context.putImageData(pixels, 0, 0);
  bus.drawn = performance.now() - started;
  drawLit();
}

// The dots' colours, kept until another figure is shown or the picture's concepts are lit.
const shading = { key: "", shades: new Uint32Array(0) };
function shadesOfDots() {
  const dim = litOn() ? 90 : 215, key = atlas.colour + dim;
  if (shading.key === key && shading.shades.length === all.n) return shading.shades;
  const shades = new Uint32Array(all.n);
  for (let i = 0; i < all.n; i++) {
    const at = shadeOf(i);
    shades[i] = (dim << 24 | colours[at + 2] << 16 | colours[at + 1] << 8 | colours[at]) >>> 0;
  }
  Object.assign(shading, { key, shades });
  return shades;
}

const litOn = () => find(".pl-light").checked && bus.picture !== null && bus.picture.code.ids.length > 0;

function drawLit() {
  const context = litDots.getContext("2d"), ratio = devicePixelRatio;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, atlas.width, atlas.height);
  if (litOn()) drawPicture(context);
  if (list.fenced) for (const latent of list.fenced) ring(context, latent, 4, 1);
  if (atlas.fence) drawFence(context);
  if (list.shownFirst >= 0) ring(context, list.shownFirst, 9, 2.5);
  if (atlas.hover >= 0) ring(context, atlas.hover, 8, 2.5);
}

// The concepts of the picture in view, bigger where they fire more.
function drawPicture(context) {
  const { code } = bus.picture;
  let most = 1e-9;
  for (let slot = 0; slot < code.ids.length; slot++) if (!code.dense.has(slot) && code.max[slot] > most) most = code.max[slot];
  for (let slot = 0; slot < code.ids.length; slot++) {
    const latent = code.ids[slot];
    if (!list.kept[latent] || atlas.x[latent] !== atlas.x[latent]) continue;
    const at = shadeOf(latent), radius = 2.5 + 6 * Math.sqrt(Math.min(1, code.max[slot] / most));
    context.beginPath();
    context.arc(screenX(atlas.x[latent]), screenY(atlas.y[latent]), radius, 0, 7);
    context.fillStyle = "rgb(" + colours[at] + "," + colours[at + 1] + "," + colours[at + 2] + ")";
    context.fill();
    context.strokeStyle = inkOf(".85"); context.lineWidth = 1; context.stroke();
  }
}

const inkOf = (alpha) => document.body.classList.contains("dark") ? "rgba(255,255,255," + alpha + ")" : "rgba(20,22,30," + alpha + ")";

function ring(context, latent, radius, width) {
  if (atlas.x[latent] !== atlas.x[latent]) return;
  context.beginPath();
  context.arc(screenX(atlas.x[latent]), screenY(atlas.y[latent]), radius, 0, 7);
  context.strokeStyle = inkOf("1"); context.lineWidth = width; context.stroke();
}

function drawFence(context) {
  context.beginPath();
  atlas.fence.forEach(([x, y], i) => i ? context.lineTo(screenX(x), screenY(y)) : context.moveTo(screenX(x), screenY(y)));
  context.closePath();
  context.fillStyle = inkOf(".08"); context.fill();
  context.setLineDash([5, 4]);
  context.strokeStyle = inkOf(".9"); context.lineWidth = 1.5; context.stroke();
  context.setLineDash([]);
}

// The dot under the pointer: the nearest one within a cell.
function pickDot(sx, sy) {
  const columns = Math.ceil(atlas.width / CELL), row = Math.floor(sy / CELL), column = Math.floor(sx / CELL);
  let best = -1, nearest = CELL * CELL;
  for (let r = Math.max(0, row - 1); r <= row + 1; r++) for (let c = Math.max(0, column - 1); c <= Math.min(columns - 1, column + 1); c++) {
    const cell = r * columns + c;
    for (let k = cellStart[cell]; k < cellStart[cell + 1]; k++) {
      const latent = cellItems[k], far = (screenX(atlas.x[latent]) - sx) ** 2 + (screenY(atlas.y[latent]) - sy) ** 2;
      if (far < nearest) { nearest = far; best = latent; }
    }
  }
  return best;
}

function insideFence(latent) {
  const x = atlas.x[latent], y = atlas.y[latent];
  let inside = false;
  for (let i = 0, j = atlas.fence.length - 1; i < atlas.fence.length; j = i++) {
    const [xi, yi] = atlas.fence[i], [xj, yj] = atlas.fence[j];
    if (yi > y !== yj > y && x < (xj - xi) * (y - yi) / (yj - yi) + xi) inside = !inside;
  }
  return inside;
}

let iconWait = 0;
function pointAt(latent, sx, sy) {
  if (latent === atlas.hover) return;
  atlas.hover = latent;
  drawLit();
  dotTip.hidden = latent < 0;
  plane.style.cursor = latent >= 0 ? "pointer" : "";
  bus.card.prefetch(latent >= 0 ? latent : null);
  if (latent < 0) return;
  setText(find(".pl-dot-name"), wordFor(latent));
  setText(find(".pl-dot-facts"), (all.names[latent] ? "#" + latent + " · " : "") + "fires in " + figureText("frequency", figureOf("frequency", latent)));
  dotTip.style.left = Math.min(atlas.width - 130, Math.max(130, sx)) + "px";
  dotTip.style.top = screenY(atlas.y[latent]) + "px";
  dotTip.classList.toggle("pl-below", screenY(atlas.y[latent]) < 90);
  showDotIcon();
  clearTimeout(iconWait);
  iconWait = setTimeout(() => bus.askIcons(server, [latent]), 60);
}

function showDotIcon() {
  const icon = find(".pl-dot-icon"), picture = bus.icons.get(atlas.hover);
  icon.hidden = !picture;
  if (picture) icon.src = picture;
}
bus.on("icons", showDotIcon);

let hand = "lasso", grip = null;
const showHand = switchGroup(find(".pl-hand"), (value) => { hand = value; showHand(value); plane.dataset.hand = value; });
const spot = (event) => { const box = plane.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };

plane.addEventListener("pointerdown", (event) => {
  if (event.button || !all.n) return;
  const [sx, sy] = spot(event);
  grip = { sx, sy, moved: false, view: { ...atlas.view } };
  plane.setPointerCapture(event.pointerId);
});
plane.addEventListener("pointermove", (event) => {
  if (!all.n) return;
  const [sx, sy] = spot(event);
  if (!grip) { pointAt(pickDot(sx, sy), sx, sy); return; }
  if (!grip.moved && Math.hypot(sx - grip.sx, sy - grip.sy) < 5) return;
  if (!grip.moved && hand === "lasso") atlas.fence = [[planeX(grip.sx), planeY(grip.sy)]];
  grip.moved = true;
  pointAt(-1);
  if (hand === "lasso") { if (atlas.fence.length < 2000) atlas.fence.push([planeX(sx), planeY(sy)]); drawLit(); } else {
    const step = 1 / atlas.view.scale;
    moveTo(grip.view.left - (sx - grip.sx) * step / (atlas.width - 2 * MARGIN), grip.view.top - (sy - grip.sy) * step / (atlas.height - 2 * MARGIN), atlas.view.scale);
  }
});
plane.addEventListener("pointerup", (event) => {
  if (!grip) return;
  const { moved } = grip, [sx, sy] = spot(event);
  grip = null;
  if (!moved) {
    const latent = pickDot(sx, sy);
    if (latent >= 0) bus.card.open(latent, plane); else dropFence();
  } else if (hand === "lasso") takeFence();
});
plane.addEventListener("pointercancel", () => { grip = null; });
plane.addEventListener("pointerleave", () => { if (!grip) pointAt(-1); });
plane.addEventListener("wheel", (event) => {
  if (!all.n) return;
  event.preventDefault();
  const [sx, sy] = spot(event), x = planeX(sx), y = planeY(sy);
  const scale = Math.min(60, Math.max(1, atlas.view.scale * Math.exp(-event.deltaY * 0.0018)));
  const keep = atlas.view.scale / scale;
  moveTo(x - (x - atlas.view.left) * keep, y - (y - atlas.view.top) * keep, scale);
}, { passive: false });

let frameAsked = 0;
function moveTo(left, top, scale) {
  const room = 1 - 1 / scale;
  atlas.view = { left: Math.min(room, Math.max(0, left)), top: Math.min(room, Math.max(0, top)), scale };
  cancelAnimationFrame(frameAsked);
  frameAsked = requestAnimationFrame(drawDots);
}
find(".pl-home").addEventListener("click", () => moveTo(0, 0, 1));
