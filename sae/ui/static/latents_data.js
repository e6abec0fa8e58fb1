// All concepts' figures in the browser, asked once when the tab is first opened.

import { fromBase64 } from "./code.js";
import { figureText } from "./dom.js";
import { notes } from "./notes.js";

export const UNKNOWN = 65535;
const FITS = [0.9, 0.8, 0.75, 0.7];
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
  return { codes, values, low: packed.low, high: packed.high, log: packed.log };
}

// A text as names are compared: the same as `folded` of sae/concepts/search.py.
export function folded(text) {
  const lower = text.normalize("NFKC").toLowerCase().replaceAll("ß", "ss").replaceAll("ς", "σ");
  return lower.trim().replace(/\s+/g, " ");
}

const inWord = (text, at) => /[\p{L}\p{N}\p{M}]/u.test(letterAt(text, at));

// The character, maybe of two code units, that begins at `at` or, for the second of them, ends there.
function letterAt(text, at) {
  if (at < 0 || at >= text.length) return "";
  const isSecond = at > 0 && /[\uDC00-\uDFFF]/.test(text[at]);
  return String.fromCodePoint(text.codePointAt(isSecond ? at - 1 : at));
}

// How well `wanted` fits `name`, 0 for not at all: the same as `_literal` of sae/concepts/search.py.
function fitOf(wanted, name) {
  let best = 0;
  for (let at = name.indexOf(wanted); at >= 0; at = name.indexOf(wanted, at + 1)) {
    const end = at + wanted.length;
    const whole = !inWord(name, end) || !inWord(wanted, wanted.length - 1);
    if (at === 0) best = Math.max(best, end === name.length ? 1 : whole ? 0.9 : 0.75);
    else if (!inWord(name, at - 1) || !inWord(wanted, 0)) best = Math.max(best, whole ? 0.8 : 0.7);
  }
  return best;
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
    // Until somebody chooses: the order of the first column, the colour of the first that colours.
    const [first] = statistics.filter((one) => one.column);
    this.usualOrder = { by: first ? first.name : "name", down: Boolean(first) && !first.rising };
    this.usualColour = (statistics.find((one) => one.colour) || { name: "" }).name;
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
    const fits = new Map([[1, number < this.n ? [number] : []], ...FITS.map((fit) => [fit, []])]);
    for (const latent of this.byOrder) {
      const fit = latent === number ? 0 : fitOf(wanted, this.folded[latent]);
      if (fit) fits.get(fit).push(latent);
    }
    return [...fits.values()].flat();
  }

  // Concepts that the text finds by names of one's own.
  yours(text) {
    const wanted = folded(text);
    return wanted ? notes.named().filter((latent) => fitOf(wanted, folded(notes.name(latent)))) : [];
  }

  // Words that this search finds, for the field: two names and a number.
  examples() {
    const shown = (latent) => !this.dead[latent] && !this.dense[latent];
    const words = this.byOrder.filter((latent) => shown(latent) && !this.names[latent].endsWith("?"));
    const names = [...new Set(words.map((latent) => this.names[latent]))];
    const chosen = [names[Math.floor(names.length / 3)], names[Math.floor((2 * names.length) / 3)]];
    const first = Math.max(0, [...this.names.keys()].findIndex(shown));
    return [...new Set(chosen.filter(Boolean)), `#${first}`];
  }
}
