// All concepts' figures in the browser, asked once when the tab is first opened.

const UNKNOWN = 65535;
const all = { n: 0, names: [], lower: [] };
const COLUMNS = [
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
  const codes = fromBase64(packed.codes, Uint16Array), values = new Float32Array(codes.length);
  const low = packed.log ? Math.log(packed.low) : packed.low, high = packed.log ? Math.log(packed.high) : packed.high;
  for (let i = 0; i < codes.length; i++) {
    const at = low + (high - low) * codes[i] / (UNKNOWN - 1);
    values[i] = codes[i] === UNKNOWN ? NaN : packed.log ? Math.exp(at) : at;
  }
  return { codes, values, low: packed.low, high: packed.high };
}

function takeFigures(packed) {
  all.n = packed.n;
  all.figures = {};
  for (const [name, figure] of Object.entries(packed.figures)) all.figures[name] = readFigure(figure);
  const flags = fromBase64(packed.flags, Uint8Array);
  all.dead = flags.map((flag) => flag & 1);
  all.dense = flags.map((flag) => flag & 2);
  all.names = packed.names;
  all.lower = packed.names.map((name) => name.toLowerCase());
}

const figureOf = (name, latent) => all.figures[name] ? all.figures[name].values[latent] : NaN;
const wordFor = (latent) => all.names[latent] || "Concept " + latent;

function figureText(name, value) {
  if (!Number.isFinite(value)) return "–";
  if (name === "frequency") return value >= 0.1 ? Math.round(100 * value) + " %" : (100 * value).toPrecision(2) + " %";
  return name === "mean" || name === "maximum" ? amountText(value) : value.toFixed(2);
}

// Concepts whose name or number begins with, holds a word that begins with, or contains `text`.
function localMatches(text) {
  const wanted = text.trim().toLowerCase(), found = [[], [], []];
  if (!wanted) return [];
  const number = /^#?\d+$/.test(wanted) ? Number(wanted.replace("#", "")) : -1;
  for (let latent = 0; latent < all.n; latent++) {
    const at = all.lower[latent].indexOf(wanted);
    if (latent === number) found[0].unshift(latent);
    else if (at === 0) found[0].push(latent);
    else if (at > 0) found[all.lower[latent][at - 1] === " " ? 1 : 2].push(latent);
  }
  return found.flat();
}
