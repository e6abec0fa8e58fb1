// The experiment: prompt, rack and switches, with undo, and as a link. Knows no server.

const PROMPTS = ["describe the image", "what is shown, in one word", "what is the background", "how many objects"];
// Doses are multiples of a concept's own maximum; without an index they are plain activations.
const [LIMIT, MOST] = props.setup.has_index ? [3, 20] : [100, 10000];
const rackState = { prompt: PROMPTS[0], rows: [], errorTerm: true, limit: 48 };
const known = new Map();
const past = [], future = [];
const copyRows = () => rackState.rows.map((row) => ({ ...row }));
const snapshot = () => JSON.stringify({ prompt: rackState.prompt, rows: rackState.rows, errorTerm: rackState.errorTerm });
let kept = snapshot();

// Call after every change; changes of one row in quick succession are one step of undo.
let keptAt = 0, keptRow = null;
function keep(row) {
  const now = snapshot();
  if (now === kept) return;
  const same = row !== undefined && row === keptRow && performance.now() - keptAt < 1200;
  if (!same) { past.push(kept); if (past.length > 100) past.shift(); }
  future.length = 0;
  kept = now;
  keptRow = row;
  keptAt = performance.now();
}

function travel(from, to) {
  if (!from.length) return;
  to.push(kept);
  kept = from.pop();
  keptRow = null;
  Object.assign(rackState, JSON.parse(kept));
}

function newRow(latent, strength) {
  return { latent, strength: strength === undefined ? 1 : strength, on: true, where: "all", mode: "set" };
}

// Of the patches that were chosen; "only" switches every other concept off there too.
const ofRegion = (row) => row.where === "region" || row.where === "only";

function scopeOf(row, patches) {
  if (!ofRegion(row)) return { where: row.where };
  return patches.length ? { where: "region", patches } : { where: "all" };
}

// The request as sae.steering.SteerRequest reads it.
function steerRequest(patches) {
  const edits = rackState.rows.filter((row) => row.on).flatMap((row) => {
    const edit = { latent: row.latent, mode: row.mode, strength: row.strength, units: props.setup.has_index ? "max" : "raw", scope: scopeOf(row, patches) };
    return row.where === "only" && patches.length ? [edit, { ...edit, mode: "only", strength: 0 }] : [edit];
  });
  return { prompt: rackState.prompt, edits, error_term: rackState.errorTerm, max_new_tokens: rackState.limit };
}

const WHERE_CODES = { all: "", patches: "p", cls: "c", region: "r", only: "o" };

// steer=1203*2.5,88*-1r,17*0off : latent, dose, scope, "off" if switched off, "a" for added.
function rackCode() {
  return rackState.rows.map((row) => row.latent + "*" + row.strength + WHERE_CODES[row.where] + (row.mode === "add" ? "a" : "") + (row.on ? "" : "x")).join(",");
}

function readRack(text, dSae) {
  const rows = [];
  for (const part of String(text || "").slice(0, 600).split(",").slice(0, 24)) {
    const match = /^(\d{1,7})\*(-?\d{1,5}(?:\.\d{1,3})?)([pcro]?)(a?)(x?)$/.exec(part);
    if (!match || Number(match[1]) >= dSae || Math.abs(Number(match[2])) > MOST) continue;
    const where = Object.keys(WHERE_CODES).find((key) => WHERE_CODES[key] === match[3]);
    rows.push({ latent: Number(match[1]), strength: Number(match[2]), on: !match[5], where, mode: match[4] ? "add" : "set" });
  }
  return rows;
}

const STEER_KEYS = ["steer", "ask", "keep"];
function writeSteerLink() {
  const pairs = [];
  if (rackState.rows.length) pairs.push(["steer", rackCode()]);
  if (rackState.prompt !== PROMPTS[0]) pairs.push(["ask", encodeURIComponent(rackState.prompt)]);
  if (!rackState.errorTerm) pairs.push(["keep", "0"]);
  writeQuery(STEER_KEYS, pairs);
}

// Words of `text` that are not in `other` in this order: [[word, changed], …] (longest common part).
function changedWords(text, other) {
  const a = text.split(/\s+/).filter(Boolean), b = other.split(/\s+/).filter(Boolean);
  const best = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--) for (let j = b.length - 1; j >= 0; j--) {
    best[i][j] = a[i] === b[j] ? best[i + 1][j + 1] + 1 : Math.max(best[i + 1][j], best[i][j + 1]);
  }
  const out = [];
  for (let i = 0, j = 0; i < a.length; i++) {
    while (j < b.length && a[i] !== b[j] && best[i][j + 1] >= best[i + 1][j]) j++;
    const same = j < b.length && a[i] === b[j];
    out.push([a[i], !same]);
    if (same) j++;
  }
  return out;
}
