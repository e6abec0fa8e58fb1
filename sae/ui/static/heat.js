// Soft maps: activations to colour, and the contour at half of the maximum.
// Knows canvases and the colour table; knows nothing of concepts or events.

import { fromBase64, mapOf } from "./code.js";
import { pictureColour } from "./dom.js";

const FINE = 8;

// Values at a fine lattice, bilinear between patch centres, flat beyond the outer ones.
function refine(map, rows, columns, top) {
  const width = columns * FINE;
  const height = rows * FINE;
  const field = new Float32Array(width * height);
  for (let y = 0; y < height; y++) {
    const v = Math.min(rows - 1, Math.max(0, (y + 0.5) / FINE - 0.5));
    const y0 = Math.floor(v);
    const y1 = Math.min(rows - 1, y0 + 1);
    const fy = v - y0;
    for (let x = 0; x < width; x++) {
      const u = Math.min(columns - 1, Math.max(0, (x + 0.5) / FINE - 0.5));
      const x0 = Math.floor(u);
      const x1 = Math.min(columns - 1, x0 + 1);
      const fx = u - x0;
      const a = map[y0 * columns + x0] * (1 - fx) + map[y0 * columns + x1] * fx;
      const b = map[y1 * columns + x0] * (1 - fx) + map[y1 * columns + x1] * fx;
      field[y * width + x] = Math.min(1, (a * (1 - fy) + b * fy) / top);
    }
  }
  return { field, width, height };
}

// Line pieces where the field crosses `level`, in lattice units (marching squares).
function contour(fine, level) {
  const { field, width, height } = fine;
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

// Draws with one colour table: 256 colours of three bytes, packed as base64.
export class HeatMaps {
  constructor(packed) {
    this.colours = fromBase64(packed, Uint8Array);
    this.soft = document.createElement("canvas");
  }

  paint(fine, opacity) {
    this.soft.width = fine.width;
    this.soft.height = fine.height;
    const context = this.soft.getContext("2d");
    const image = context.createImageData(fine.width, fine.height);
    for (let i = 0; i < fine.field.length; i++) {
      const share = fine.field[i];
      const at = Math.round(share * 255) * 3;
      image.data[i * 4] = this.colours[at];
      image.data[i * 4 + 1] = this.colours[at + 1];
      image.data[i * 4 + 2] = this.colours[at + 2];
      image.data[i * 4 + 3] = 255 * opacity * (0.44 + 0.44 * share);
    }
    context.putImageData(image, 0, 0);
    return this.soft;
  }

  // The map of one concept in a rectangle of a canvas.
  draw(context, map, code, top, opacity, left, upper, width, height) {
    const fine = refine(map, code.rows, code.columns, top);
    context.imageSmoothingEnabled = true;
    context.drawImage(this.paint(fine, opacity), left, upper, width, height);
    let strongest = 0;
    for (const amount of map) if (amount > strongest) strongest = amount;
    if (strongest <= 0) return;
    const sx = width / fine.width;
    const sy = height / fine.height;
    context.beginPath();
    for (const [x0, y0, x1, y1] of contour(fine, Math.min(1, strongest / top) / 2)) {
      context.moveTo(left + (x0 + 0.5) * sx, upper + (y0 + 0.5) * sy);
      context.lineTo(left + (x1 + 0.5) * sx, upper + (y1 + 0.5) * sy);
    }
    context.strokeStyle = pictureColour("under-line");
    context.lineWidth = 3.5 * devicePixelRatio;
    context.stroke();
    context.strokeStyle = pictureColour("on-picture");
    context.lineWidth = 1.6 * devicePixelRatio;
    context.stroke();
  }

  // A tiny map for a list row: one pixel a patch, against the concept's maximum in this picture.
  drawTiny(canvas, slot, code) {
    if (canvas.width !== code.columns || canvas.height !== code.rows) {
      canvas.width = code.columns;
      canvas.height = code.rows;
    }
    if (!code.tiny.has(slot)) code.tiny.set(slot, this.tinyPicture(mapOf(code, slot), code));
    canvas.getContext("2d").putImageData(code.tiny.get(slot), 0, 0);
  }

  tinyPicture(map, code) {
    const image = new ImageData(code.columns, code.rows);
    let strongest = 0;
    for (const amount of map) if (amount > strongest) strongest = amount;
    for (let i = 0; i < map.length; i++) {
      const at = strongest > 0 ? Math.round((map[i] / strongest) * 255) * 3 : 0;
      image.data[i * 4] = this.colours[at];
      image.data[i * 4 + 1] = this.colours[at + 1];
      image.data[i * 4 + 2] = this.colours[at + 2];
      image.data[i * 4 + 3] = 255;
    }
    return image;
  }

  // The colour table as a line of 128 pixels, for a legend.
  drawRamp(canvas) {
    const context = canvas.getContext("2d");
    const image = context.createImageData(128, 1);
    for (let i = 0; i < 128; i++) {
      image.data.set([...this.colours.subarray(i * 6, i * 6 + 3), 255], i * 4);
    }
    context.putImageData(image, 0, 0);
  }
}
