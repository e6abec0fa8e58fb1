// All dots of the map, drawn straight into pixels, and sorted into cells for the pointer: 49,152 of them take
// a few milliseconds, because nothing is made anew for a dot. Knows where dots lie and what colour they have;
// knows nothing of concepts.

import { UNKNOWN } from "./latents_data.js";

export const MARGIN = 26;
export const CELL = 12;

export class Dots {
  constructor(canvas, atlas) {
    Object.assign(this, { canvas, atlas });
    this.pixels = null;
    this.cellStart = new Int32Array(1);
    this.cellItems = new Int32Array(0);
    this.cellOf = this.cellItems;
    // The dots' colours, kept until another figure is shown or the picture's concepts are lit.
    this.shading = { key: "", shades: new Uint32Array(0) };
  }

  // `kept` says of each dot whether it is drawn; `dim` is its opacity, 0 to 255.
  draw(kept, colours, figure, dim) {
    const { width, height } = this.canvas;
    const context = this.canvas.getContext("2d");
    if (!this.pixels || this.pixels.width !== width || this.pixels.height !== height) {
      this.pixels = context.createImageData(width, height);
    }
    if (this.cellOf.length !== kept.length) {
      this.cellOf = new Int32Array(kept.length);
      this.cellItems = new Int32Array(kept.length);
    }
    const shades = this.shadesOf(kept.length, colours, figure, dim);
    this.fillPixels(new Uint32Array(this.pixels.data.buffer), kept, shades);
    this.sortIntoCells();
    context.putImageData(this.pixels, 0, 0);
  }

  // Draw every dot that is kept and in view, and note its cell.
  fillPixels(out, kept, shades) {
    const { cellOf } = this;
    const { width, height } = this.canvas;
    const { x, y, view, width: across, height: down } = this.atlas;
    const ratio = devicePixelRatio;
    const zoom = Math.min(2.2, Math.sqrt(view.scale));
    const size = Math.max(2, Math.round((kept.length > 8000 ? 2 : 3.4) * ratio * zoom));
    const columns = Math.ceil(across / CELL);
    const kx = view.scale * (across - 2 * MARGIN);
    const ky = view.scale * (down - 2 * MARGIN);
    out.fill(0);
    for (let i = 0; i < kept.length; i++) {
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

  shadesOf(n, colours, figure, dim) {
    const key = this.atlas.colour + dim;
    if (this.shading.key === key && this.shading.shades.length === n) return this.shading.shades;
    const shades = new Uint32Array(n);
    for (let i = 0; i < n; i++) {
      const at = shadeOf(figure, i);
      shades[i] = ((dim << 24) | (colours[at + 2] << 16) | (colours[at + 1] << 8) | colours[at]) >>> 0;
    }
    Object.assign(this.shading, { key, shades });
    return shades;
  }

  // The dot under the pointer: the nearest one within a cell, -1 for none.
  pick(sx, sy) {
    const { x, y, view, width, height } = this.atlas;
    const columns = Math.ceil(width / CELL);
    const row = Math.floor(sy / CELL);
    const column = Math.floor(sx / CELL);
    let best = -1;
    let nearest = CELL * CELL;
    for (let r = Math.max(0, row - 1); r <= row + 1; r++) {
      for (let c = Math.max(0, column - 1); c <= Math.min(columns - 1, column + 1); c++) {
        const cell = r * columns + c;
        for (let k = this.cellStart[cell]; k < this.cellStart[cell + 1]; k++) {
          const dot = this.cellItems[k];
          const right = MARGIN + (x[dot] - view.left) * view.scale * (width - 2 * MARGIN) - sx;
          const below = MARGIN + (y[dot] - view.top) * view.scale * (height - 2 * MARGIN) - sy;
          if (right ** 2 + below ** 2 < nearest) {
            nearest = right ** 2 + below ** 2;
            best = dot;
          }
        }
      }
    }
    return best;
  }
}

// Where in the colours' bytes the shade of a dot begins: the middle for none.
export function shadeOf(figure, dot) {
  if (!figure || figure.codes[dot] === UNKNOWN) return 3 * 100;
  return 3 * Math.round((figure.codes[dot] / (UNKNOWN - 1)) * 255);
}
