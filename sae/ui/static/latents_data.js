// All concepts' figures in the browser, asked once when the tab is first opened.

import { fromBase64 } from "./code.js";
import { figureText } from "./dom.js";

export const UNKNOWN = 65535;
const NAME = { name: "name", column: "Concept", explanation: "name or number" };
const FIT = { name: "score", column: "Fit", explanation: "how well it fits the search" };

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

// A text as names are compared: the same as `folded` of sae/concepts/search.py.
export function folded(text) {
  const lower = text.normalize("NFKC").toLowerCase().replaceAll("ß", "ss").replaceAll("ς", "σ");
  return lower.trim().replace(/\s+/g, " ");
}

export class AllConcepts {
  // `statistics` says of each figure how it is called and written.
  constructor(statistics) {
    this.n = 0;
    this.names = [];
    this.folded = [];
    this.byOrder = [];
    this.figures = {};
    this.statistics = statistics;
    this.columns = [NAME, ...statistics.filter((one) => one.column), FIT];
  }

  take(packed) {
    this.n = packed.n;
    this.figures = {};
    for (const [name, figure] of Object.entries(packed.figures)) this.figures[name] = readFigure(figure);
    const flags = fromBase64(packed.flags, Uint8Array);
    this.dead = flags.map((flag) => flag & 1);
    this.dense = flags.map((flag) => flag & 2);
    this.names = packed.names.map((name, latent) => (flags[latent] & 4 ? `${name}?` : name));
    this.folded = packed.names.map(folded);
    this.byOrder = [];
    fromBase64(packed.order, Int32Array).forEach((place, latent) => {
      if (place < this.n) this.byOrder[place] = latent;
    });
  }

  figure(name, latent) {
    return this.figures[name] ? this.figures[name].values[latent] : NaN;
  }

  text(name, value) {
    return figureText(this.statistics.find((one) => one.name === name).format, value);
  }

  word(latent) {
    return this.names[latent] || `Concept ${latent}`;
  }

  // Concepts by name or number, at every keystroke: the order of `NameSearch` of sae/concepts/search.py,
  // without names that are spelt alike. tests/browser/test_latents.py holds the two together.
  matches(text) {
    const wanted = folded(text);
    if (!wanted) return [];
    const number = /^#?[0-9]+$/.test(wanted) ? Number(wanted.replace("#", "")) : this.n;
    const whole = number < this.n ? [number] : [];
    const [begins, wordBegins, inside] = [[], [], []];
    for (const latent of this.byOrder) {
      const name = this.folded[latent];
      const at = name.indexOf(wanted);
      if (at < 0 || latent === number) continue;
      if (at === 0) (name === wanted ? whole : begins).push(latent);
      else (name.includes(` ${wanted}`) ? wordBegins : inside).push(latent);
    }
    return [...whole, ...begins, ...wordBegins, ...inside];
  }
}
