// The file of own names, notes and pins: written, checked, joined. The same format as
// sae/concepts/notes.py reads; docs/formats.md describes it. Knows nothing of the browser or the page.

const KIND = "patchlens notes";
const FORMAT = 1;
const NEXT = "Nothing was taken. Save the file again where it comes from, or choose another one.";
const KEYS = ["kind", "format", "sae", "saved", "concepts"];
const NONE = { name: "", note: "", pinned: false };

class Refused extends Error {}

function refuse(found, expected) {
  throw new Refused(`This file cannot be taken: found ${found}; expected ${expected}. ${NEXT}`);
}

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const length = (text) => [...text].length;
const cut = (text, most) => [...text].slice(0, most).join("");

// One line, without signs that do not print.
export const tidyName = (text, most) => cut(text.replace(/[\p{Cc}\p{Cs}\s]+/gu, " ").trim(), most).trim();

export function tidyNote(text, most) {
  const lines = text.replace(/\r\n?/g, "\n").replace(/[\p{Cc}\p{Cs}]/gu, (sign) => (/[\n\t]/.test(sign) ? sign : ""));
  return cut(lines.trim(), most).trim();
}

// What both say; where both say something, `one`.
export const over = (one, other = NONE) => ({
  name: one.name || other.name,
  note: one.note || other.note,
  pinned: one.pinned || other.pinned,
});

export const isEmpty = ({ name, note, pinned }) => !name && !note && !pinned;

function textOf(row, key, where, most, odd) {
  const value = row[key] === undefined ? "" : row[key];
  if (typeof value !== "string") refuse(`${where}.${key} that is no text`, "text");
  if (length(value) > most) refuse(`${where}.${key} of ${length(value)} characters`, `at most ${most}`);
  if (odd.test(value)) refuse(`${where}.${key} with a sign that does not print`, "plain text");
  return value;
}

// The entries of "concepts" as a map from numbers; throws a sentence about the first that cannot be.
export function checkRows(rows, dSae, limits) {
  if (!Array.isArray(rows)) refuse("no list of concepts", "a list");
  if (rows.length > limits.own_concepts) refuse(`${rows.length} concepts`, `at most ${limits.own_concepts}`);
  const checked = new Map();
  rows.forEach((row, at) => {
    const where = `concepts[${at}]`;
    if (!isObject(row)) refuse(`${where} that is no entry`, "an object");
    const odd = Object.keys(row).find((key) => !["latent", "name", "note", "pinned"].includes(key));
    if (odd) refuse(`${where} with the unknown key ${JSON.stringify(odd).slice(0, 40)}`, "latent, name, note, pinned");
    const { latent, pinned = false } = row;
    if (!Number.isInteger(latent) || latent < 0 || latent >= dSae || checked.has(latent)) {
      refuse(`${where}.latent ${String(JSON.stringify(latent)).slice(0, 40)}`, `each number once, 0 to ${dSae - 1}`);
    }
    if (typeof pinned !== "boolean") refuse(`${where}.pinned that is neither`, "true or false");
    const name = tidyName(textOf(row, "name", where, limits.own_name, /[\p{Cc}\p{Cs}]/u), limits.own_name);
    const odds = /[\p{Cs}]|(?![\n\t])\p{Cc}/u;
    const note = textOf(row, "note", where, limits.own_note, odds).trim();
    checked.set(latent, { name, note, pinned });
  });
  for (const [latent, one] of checked) if (isEmpty(one)) checked.delete(latent);
  return checked;
}

export const rowsOf = (notes) =>
  [...notes].sort(([a], [b]) => a - b).map(([latent, { name, note, pinned }]) => ({ latent, name, note, pinned }));

export function writeFile(notes, { sae, sha256, d_sae: dSae }, saved) {
  const owner = { id: sae, sha256, d_sae: dSae };
  return `${JSON.stringify({ kind: KIND, format: FORMAT, sae: owner, saved, concepts: rowsOf(notes) }, null, 2)}\n`;
}

function parsed(content) {
  try {
    const file = JSON.parse(content.replace(/^\uFEFF/, ""));
    if (isObject(file)) return file;
  } catch {
    // said below
  }
  return refuse("something that is no JSON object", "a file that “Take away” has saved");
}

// { notes, other }: what a file says; `other` is a sentence where it is of another SAE. Throws a sentence.
export function readFile(content, about, limits) {
  const file = parsed(content);
  if (file.kind !== KIND || file.format !== FORMAT) {
    const kind = String(JSON.stringify(file.kind)).slice(0, 40);
    refuse(`the kind ${kind}, format ${String(file.format).slice(0, 10)}`, `“${KIND}”, format ${FORMAT}`);
  }
  const odd = Object.keys(file).find((key) => !KEYS.includes(key));
  if (odd) refuse(`the unknown key ${JSON.stringify(odd).slice(0, 40)}`, KEYS.join(", "));
  const { sae } = file;
  if (!isObject(sae) || typeof sae.sha256 !== "string" || !Number.isInteger(sae.d_sae) || typeof sae.id !== "string") {
    refuse("no word about which SAE it is of", "sae with id, sha256 and d_sae");
  }
  const same = sae.d_sae === about.d_sae && (!sae.sha256 || !about.sha256 || sae.sha256 === about.sha256);
  if (same) return { notes: checkRows(file.concepts, about.d_sae, limits), other: "" };
  const most = Math.max(about.d_sae, sae.d_sae);
  const notes = checkRows(file.concepts, most, limits);
  const fits = [...notes.keys()].every((latent) => latent < about.d_sae);
  const what = `This file is of another SAE (${sae.id.slice(0, 60) || "no name"}, ${sae.d_sae} concepts). `;
  const why = "Its numbers mean other concepts there, so nothing was taken.";
  return { notes: fits ? notes : new Map(), other: what + why };
}

const differ = (one, other) => Boolean(one) && Boolean(other) && one !== other;

// Concepts of which both say something, and not the same: numbers.
export const conflictsOf = (mine, theirs) =>
  [...theirs.keys()].filter((latent) => {
    const own = mine.get(latent);
    const their = theirs.get(latent);
    return own && (differ(own.name, their.name) || differ(own.note, their.note));
  });

// Both together; of conflicts, theirs where `taken` has the number, else mine.
export function joined(mine, theirs, taken) {
  const all = new Map(mine);
  for (const [latent, their] of theirs) {
    const own = mine.get(latent);
    all.set(latent, taken.has(latent) ? over(their, own) : over(own || NONE, their));
  }
  return all;
}
