// All concepts' figures in the browser, asked once when the tab is first opened.

import { fromBase64 } from "./code.js";
import { amountText } from "./dom.js";

export const UNKNOWN = 65535;
export const COLUMNS = [
  ["name", "Concept", "name or number"],
  ["frequency", "Fires in", "share of the data set's pictures"],
  ["mean", "Mean", "averaged over every patch of the pictures it fires in"],
  ["maximum", "Max", "largest activation over the data set"],
  ["entropy", "Spread", "entropy of the labels of its strongest pictures, nats: 0 is one label only"],
  ["monosemanticity", "Look", "same look, the monosemanticity score: how alike its pictures are, at most 1"],
  ["steerability", "Steers", "how far it moves a model's words when clamped"],
  ["score", "Fit", "how well it fits the search"],
];

// A figure of every concept: 16 bits between `low` and `high`, linear or logarithmic, UNKNOWN for none.
function readFigure(packed) {
  if (!packed) return null;
  const codes = fromBase64(packed.codes, Uint16Array);
  const values = new Float32Array(codes.length);
  const low = packed.log ? Math.log(packed.low) : packed.low;
  const high = packed.log ? Math.log(packed.high) : packed.high;
  for (let i = 0; i < codes.length; i++) {
    const at = low + ((high - low) * codes[i]) / (UNKNOWN - 1);
    values[i] = codes[i] === UNKNOWN ? NaN : packed.log ? Math.exp(at) : at;
  }
  return { codes, values, low: packed.low, high: packed.high };
}

export function figureText(name, value) {
  if (!Number.isFinite(value)) return "–";
  if (name === "frequency") return value >= 0.1 ? `${Math.round(100 * value)} %` : `${(100 * value).toPrecision(2)} %`;
  return name === "mean" || name === "maximum" ? amountText(value) : value.toFixed(2);
}

export class AllConcepts {
  constructor() {
    this.n = 0;
    this.names = [];
    this.lower = [];
    this.figures = {};
  }

  take(packed) {
    this.n = packed.n;
    this.figures = {};
    for (const [name, figure] of Object.entries(packed.figures)) this.figures[name] = readFigure(figure);
    const flags = fromBase64(packed.flags, Uint8Array);
    this.dead = flags.map((flag) => flag & 1);
    this.dense = flags.map((flag) => flag & 2);
    this.names = packed.names;
    this.lower = packed.names.map((name) => name.toLowerCase());
  }

  figure(name, latent) {
    return this.figures[name] ? this.figures[name].values[latent] : NaN;
  }

  word(latent) {
    return this.names[latent] || `Concept ${latent}`;
  }

  // Concepts whose name or number begins with, holds a word that begins with, or contains `text`.
  matches(text) {
    const wanted = text.trim().toLowerCase();
    const found = [[], [], []];
    if (!wanted) return [];
    const number = /^#?\d+$/.test(wanted) ? Number(wanted.replace("#", "")) : -1;
    for (let latent = 0; latent < this.n; latent++) {
      const at = this.lower[latent].indexOf(wanted);
      if (latent === number) found[0].unshift(latent);
      else if (at === 0) found[0].push(latent);
      else if (at > 0) found[this.lower[latent][at - 1] === " " ? 1 : 2].push(latent);
    }
    return found.flat();
  }
}
