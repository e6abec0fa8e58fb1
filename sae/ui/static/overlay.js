// Activations over a picture, in one way on every tab: a tint that is as strong as the patch fires. Where
// nothing fires the picture keeps its pixels, and no pixel is tinted more than its patch fires.
// Knows canvases and the three tints; knows nothing of concepts or events.

import { pictureColour } from "./dom.js";

const FINE = 8;
const EDGE = (FINE - 1) / 2;
// Per sample across a patch: the side it lies on, and how far it is from the middle (0) to the edge (1).
const SIDE = Array.from({ length: FINE }, (_, i) => (i < EDGE ? -1 : 1));
const OUT = Array.from({ length: FINE }, (_, i) => (Math.abs(i - EDGE) - 0.5) / (EDGE - 0.5));
const soft = document.createElement("canvas");

function bytesOf(hex) {
  return [1, 3, 5].map((at) => Number.parseInt(hex.slice(at, at + 2), 16));
}

// The colour of the first, second or third of the maps that lie over one picture.
export const tintColour = (tint) =>
  [pictureColour("map-first"), pictureColour("map-second"), pictureColour("map-third")][tint];

const strongestOf = (map) => map.reduce((most, amount) => Math.max(most, amount), 0);

// Shares of `top` at FINE × FINE samples a patch: what the patch fires in its middle, and towards its edge
// what the weaker neighbour fires.
export function fieldOf(map, { rows, columns }, top) {
  const width = columns * FINE;
  const field = new Float32Array(width * rows * FINE);
  const at = (row, column) =>
    map[Math.min(rows - 1, Math.max(0, row)) * columns + Math.min(columns - 1, Math.max(0, column))];
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const own = at(row, column);
      if (!(own > 0)) continue;
      for (let i = 0; i < FINE * FINE; i++) {
        const y = Math.floor(i / FINE);
        const x = i % FINE;
        const beside = Math.min(own, at(row, column + SIDE[x]));
        const above = Math.min(own, at(row + SIDE[y], column));
        const across = Math.min(beside, above, at(row + SIDE[y], column + SIDE[x]));
        const inner = own + (beside - own) * OUT[x];
        const outer = above + (across - above) * OUT[x];
        field[(row * FINE + y) * width + column * FINE + x] = Math.min(1, (inner + (outer - inner) * OUT[y]) / top);
      }
    }
  }
  return { field, width, height: rows * FINE };
}

// Line pieces where the field crosses `level`, in samples (marching squares).
function contour({ field, width, height }, level) {
  const lines = [];
  const cut = (a, b) => (level - a) / (b - a);
  for (let y = 0; y + 1 < height; y++) {
    for (let x = 0; x + 1 < width; x++) {
      const i = y * width + x;
      const a = field[i];
      const b = field[i + 1];
      const c = field[i + width + 1];
      const d = field[i + width];
      const points = [];
      if (a >= level !== b >= level) points.push(x + cut(a, b), y);
      if (b >= level !== c >= level) points.push(x + 1, y + cut(b, c));
      if (d >= level !== c >= level) points.push(x + cut(d, c), y + 1);
      if (a >= level !== d >= level) points.push(x, y + cut(a, d));
      for (let p = 0; p + 3 < points.length; p += 4) lines.push(points.slice(p, p + 4));
    }
  }
  return lines;
}

function tinted(context, width, height, [red, green, blue], shareAt, opacity) {
  const image = context.createImageData(width, height);
  for (let i = 0; i < width * height; i++) image.data.set([red, green, blue, 255 * opacity * shareAt(i)], 4 * i);
  return image;
}

// The outline of where it fires at least half as strongly as at most in this picture.
function drawOutline(context, fine, half, [left, upper, width, height], inner) {
  const sx = width / fine.width;
  const sy = height / fine.height;
  context.beginPath();
  for (const [x0, y0, x1, y1] of contour(fine, half)) {
    context.moveTo(left + (x0 + 0.5) * sx, upper + (y0 + 0.5) * sy);
    context.lineTo(left + (x1 + 0.5) * sx, upper + (y1 + 0.5) * sy);
  }
  const line = Math.min(1.6 * devicePixelRatio, Math.max(0.8, width / 260));
  context.strokeStyle = pictureColour("under-line");
  context.lineWidth = 2 * line;
  context.stroke();
  context.strokeStyle = inner;
  context.lineWidth = line;
  context.stroke();
}

// One concept's map in a rectangle `area` of a canvas: `map` has an amount a patch, row by row, and full
// tint, at full opacity, stands for `top`.
export function drawOverlay(context, map, grid, { top, opacity, area, tint = 0, outline = "on-picture" }) {
  const strongest = strongestOf(map);
  if (!(strongest > 0)) return;
  const fine = fieldOf(map, grid, top);
  soft.width = fine.width;
  soft.height = fine.height;
  const softly = soft.getContext("2d");
  const paint = tinted(softly, fine.width, fine.height, bytesOf(tintColour(tint)), (i) => fine.field[i], opacity);
  softly.putImageData(paint, 0, 0);
  context.imageSmoothingEnabled = true;
  context.drawImage(soft, ...area);
  if (outline) drawOutline(context, fine, Math.min(1, strongest / top) / 2, area, pictureColour(outline));
}

// The map over a picture that fills its box: a canvas as large as the box, for cards and dialogs.
export function coverWith(canvas, map, grid, look) {
  const width = Math.round((canvas.clientWidth || 120) * devicePixelRatio);
  const height = Math.round((canvas.clientHeight || 120) * devicePixelRatio);
  Object.assign(canvas, { width, height });
  drawOverlay(canvas.getContext("2d"), map, grid, { ...look, area: [0, 0, width, height] });
}

// A tiny map for a list row, one pixel a patch, against the concept's maximum in this picture.
export function tinyMap(context, map, { rows, columns }, tint = 0) {
  const strongest = strongestOf(map) || 1;
  return tinted(context, columns, rows, bytesOf(tintColour(tint)), (i) => map[i] / strongest, 1);
}

// From nothing to the full tint, for a legend.
export function drawTintRamp(canvas, tint = 0) {
  const context = canvas.getContext("2d");
  context.putImageData(
    tinted(
      context,
      canvas.width,
      canvas.height,
      bytesOf(tintColour(tint)),
      (i) => (i % canvas.width) / canvas.width,
      1,
    ),
    0,
    0,
  );
}
