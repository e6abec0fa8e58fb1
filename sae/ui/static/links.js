// The address bar, for all tabs: what a link says and how it is written. Every tab owns some keys of
// the query and leaves the others alone. A link is written by anyone, so every part is checked.
// The picture's own keys are read by Python (sae/ui/links.py), which checks them against the models.

import { bus } from "./bus.js";
import { setText } from "./dom.js";
import { leaveOut } from "./misfits.js";
import { onTravel, query, record } from "./steps.js";

const KEYS = {
  tab: ["tab"],
  card: ["card"],
  concepts: ["img", "p", "z", "rank", "scale"],
  latents: ["q", "like", "map", "sort", "show", "lasso", "zoom", "colour"],
  steer: ["steer", "ask", "keep"],
  compare: ["task", "heads", "split", "pic", "says", "off"],
  look: ["op", "bars"],
  beside: ["with", "lit"],
};
const VERSION = "v";
const MARK = "sae";
const ORDER = [VERSION, MARK, ...Object.values(KEYS).flat()];
// What means nothing to another SAE.
const OF_THE_SAE = ["card", "z", "lit", "lasso", "zoom", "steer", "off"];
const PICTURE = /^(?:ex:[a-z-]{1,40}|own:[a-z0-9]{1,20}|ix:\d{1,9}|sc:[\w.~-]{1,400})$/;
const WHERE_LETTERS = { all: "", patches: "p", cls: "c", region: "r", only: "o" };
const EDIT = /^(\d{1,7})\*(-?\d{1,5}(?:\.\d{1,3})?)([pcro]?)(a?)(x?)$/;
// What of a value counts as chosen on purpose: all of it, but for these. Composing, doses, typing and
// zooming go on and on, and a card that is closed leaves the view behind it.
const SETTLED = {
  img: (text) => (text.startsWith("sc:") ? "sc:" : text),
  steer: (text) => text.replace(/\*-?[\d.]+/g, ""),
  op: () => "",
  q: () => "",
  zoom: () => "",
};

// What the address asks for: as the visitor came or went back to; the tabs rewrite it soon after.
let opened = new URLSearchParams(location.search);
if (opened.has(VERSION) && opened.get(VERSION) !== "1") {
  opened = new URLSearchParams();
  leaveOut("another version of PatchLens made it");
}
let mark = "";
const followers = new Map();

// Whether the link names a view, which the server then answers.
export const namesView = [VERSION, ...KEYS.concepts, ...KEYS.card].some((key) =>
  new URLSearchParams(location.search).has(key),
);

// From now on links carry the mark of this page's SAE; of one that another SAE made, its concepts are left out.
export function markLinks({ mark: mine, other_sae: otherSae }) {
  if (mark) return;
  mark = mine;
  const other = opened.get(MARK);
  if (other === null || other === mine) return;
  for (const key of OF_THE_SAE) opened.delete(key);
  opened.set(MARK, mine);
  record(`?${opened}`, false);
  leaveOut(otherSae);
}

// `act()` restores a tab's own part of the view after Back and Forward.
export function restoreWith(owner, act) {
  followers.set(owner, act);
}

onTravel((before) => {
  const left = new URLSearchParams(before);
  opened = new URLSearchParams(query());
  for (const [owner, act] of followers) {
    const isOther = KEYS[owner].some((key) => opened.get(key) !== left.get(key));
    const notOpen = owner === "compare" && !opened.has("task") && !opened.has("says");
    if (isOther && !notOpen) act();
  }
});

export function writeTab(tab) {
  write("tab", { tab });
}

export function writeCard(latent) {
  write("card", { card: latent });
}

export function writeConcepts({ image, patches, concept, rank, scale }, usual) {
  write("concepts", {
    img: image,
    p: patchRanges(patches),
    z: concept,
    rank: rank === usual.rank ? null : rank,
    scale: scale === "dataset" ? null : scale,
  });
}

// Pictures side by side, as other keys call pictures, and the concept that is lit in them.
export function readBeside(limits, most) {
  const parts = (opened.get("with") || "").split(",").filter(Boolean);
  const links = [...new Set(parts)].filter((part) => PICTURE.test(part)).slice(0, most);
  if (links.length < parts.length) leaveOut("some of its pictures do not exist");
  return { links, lit: readNumber("lit", limits.d_sae) };
}

export function writeBeside({ links, lit }) {
  write("beside", { with: links.join(","), lit: links.length ? lit : null });
}

export function readLook() {
  const opacity = opened.get("op") || "";
  return { opacity: /^\d{1,3}$/.test(opacity) ? opacity / 100 : undefined, bars: opened.get("bars") };
}

export function writeLook({ opacity, bars }, usual) {
  write("look", {
    op: opacity === usual.opacity ? null : Math.round(100 * opacity),
    bars: bars === usual.bars ? null : bars,
  });
}

// The picture that the address names, as { img, p }.
export function pictureInLink() {
  const now = new URLSearchParams(query());
  return { img: now.get("img"), p: now.get("p") };
}

// The view of a picture that the address asks for; what cannot be is left out.
export function readConcepts(limits) {
  return {
    image: opened.get("img") || "",
    patches: readRanges(opened.get("p") || "", limits.n_patches),
    concept: readNumber("z", limits.d_sae),
    rank: opened.get("rank") || limits.rank,
    scale: opened.get("scale") === "image" ? "image" : "dataset",
  };
}

export function readCard(limits) {
  return readNumber("card", limits.d_sae);
}

// The name of the example that `img` stands for, or "".
export function exampleOf(img) {
  const match = /^ex:([a-z-]{1,40})$/.exec(img || "");
  return match ? match[1] : "";
}

export function readLatents(letters) {
  const [by, way] = (opened.get("sort") || "").split("~");
  const text = opened.get("q") || "";
  if (text.length > letters) leaveOut("its search is too long");
  return {
    text: text.slice(0, letters),
    like: opened.get("like"),
    by,
    down: way !== "up",
    map: opened.get("map"),
    show: opened.get("show"),
    lasso: opened.get("lasso"),
    zoom: opened.get("zoom"),
    colour: opened.get("colour"),
  };
}

export function writeLatents({ text, by, down, ...rest }, usual) {
  const unsaid = (by === usual.by && down === usual.down) || by === "score";
  write("latents", { q: encodeURIComponent(text), sort: unsaid ? null : by + (down ? "" : "~up"), ...rest });
}

export function readSteer(limits) {
  const said = Object.fromEntries(KEYS.steer.map((key) => [key, opened.get(key)]));
  const parts = said.steer ? said.steer.split(",").length : 0;
  if (readRack(said.steer, limits).length < parts) leaveOut("some of its doses do not fit");
  if ((said.ask || "").length > limits.prompt_letters) leaveOut("its question is too long");
  return said;
}

export function writeSteer({ rows, prompt, errorTerm }) {
  write("steer", { steer: rackText(rows), ask: encodeURIComponent(prompt), keep: errorTerm ? null : "0" });
}

// 1203*2.5,88*-1r,17*0x: latent, dose, where, "a" if it is added, "x" if it is switched off.
export function rackText(rows) {
  return rows.map(editText).join(",");
}

function editText({ latent, strength, where, mode, on }) {
  return `${latent}*${strength}${WHERE_LETTERS[where]}${mode === "add" ? "a" : ""}${on ? "" : "x"}`;
}

// The rows of a rackText that are within the server's limits.
export function readRack(text, limits) {
  const rows = [];
  for (const part of String(text || "").split(",", limits.edits)) {
    const match = EDIT.exec(part);
    if (!match) continue;
    const latent = Number(match[1]);
    const strength = Number(match[2]);
    if (latent >= limits.d_sae || Math.abs(strength) > limits.strength_most) continue;
    if (rows.some((row) => row.latent === latent)) continue;
    const where = Object.keys(WHERE_LETTERS).find((key) => WHERE_LETTERS[key] === match[3]);
    rows.push({ latent, strength, on: !match[5], where, mode: match[4] ? "add" : "set" });
  }
  return rows;
}

export function readCompare(limits) {
  const number = opened.get("pic");
  const isNumber = /^\d{1,3}$/.test(number || "") && Number(number) < limits.samples;
  const isOwn = PICTURE.test(number || "");
  if (number !== null && !isNumber && !isOwn) leaveOut("it names no picture of the task");
  return {
    task: opened.get("task"),
    split: opened.get("split"),
    heads: opened.get("heads"),
    number: isNumber ? Number(number) : null,
    own: isOwn ? number : "",
    off: readOff(limits),
  };
}

export function writeCompare({ task, heads, split, number, own, off }) {
  write("compare", {
    task,
    heads: heads.join(","),
    split: split === "base" ? null : split,
    pic: own || number,
    off: [...off].join(","),
  });
}

// Two of a classifier's classes by number, and what is switched off; null where the link names none.
export function readClasses(limits, nClasses) {
  const text = opened.get("says");
  const numbers = /^\d{1,6},\d{1,6}$/.test(text || "") ? text.split(",").map(Number) : null;
  const known = numbers && numbers[0] !== numbers[1] && numbers.every((one) => one < nClasses);
  if (text !== null && !known) leaveOut("its classes do not exist");
  return { classes: known ? numbers : null, off: readOff(limits) };
}

export function writeClasses({ classes, off }) {
  write("compare", { says: classes.join(","), off: [...off].join(",") });
}

function readOff(limits) {
  const parts = (opened.get("off") || "").split(",").filter(Boolean);
  const off = parts.slice(0, limits.off).filter((part) => /^\d{1,7}$/.test(part) && Number(part) < limits.d_sae);
  if (off.length < parts.length) leaveOut("some concepts that it switches off do not exist");
  return off.map(Number);
}

// The open tab: as the address says, written with every change; `tabs` are their ids, the first goes unsaid.
export function followTabs(tabs) {
  bus.tabs = tabs;
  document.addEventListener("click", (event) => {
    const button = event.target.closest && event.target.closest("#tabs button");
    const tab = button && bus.tabOf(button);
    if (tab) writeTab(tab === tabs[0] ? null : tab);
  });
  document.addEventListener("keydown", (event) => stepTab(event, tabs));
  restoreWith("tab", () => bus.goTo(tabs.includes(opened.get("tab")) ? opened.get("tab") : tabs[0]));
  const asked = opened.get("tab");
  if (tabs.includes(asked)) openOnceThere(asked, 100);
  else if (asked !== null) leaveOut("its tab does not exist");
}

// Left and right on the tabs' own buttons open the tab beside, Home and End the first and the last.
function stepTab(event, tabs) {
  const button = event.target.closest && event.target.closest("#tabs button[role=tab]");
  const at = button ? tabs.indexOf(bus.tabOf(button)) : -1;
  const last = tabs.length - 1;
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: last }[event.key];
  if (at < 0 || to === undefined) return;
  event.preventDefault();
  const tab = tabs[(to + tabs.length) % tabs.length];
  bus.goTo(tab);
  document.querySelector(`#tabs button[role=tab][data-tab-id="${tab}"]`)?.focus();
}

function openOnceThere(tab, tries) {
  if (document.querySelector("#tabs button[role=tab]")) bus.goTo(tab);
  else if (tries) setTimeout(() => openOnceThere(tab, tries - 1), 50);
}

// 0,1,5-9: runs of three and more as a range, the same as sae/ui/links.py writes.
function patchRanges(patches) {
  const sorted = [...patches].sort((a, b) => a - b);
  const parts = [];
  for (let from = 0, to = 0; from < sorted.length; from = to + 1) {
    to = from;
    while (sorted[to + 1] === sorted[to] + 1) to++;
    parts.push(to > from + 1 ? `${sorted[from]}-${sorted[to]}` : sorted.slice(from, to + 1).join(","));
  }
  return parts.join(",");
}

// The patches that such a text names, of those that exist.
function readRanges(text, n) {
  const patches = [];
  const parts = text ? text.slice(0, 2000).split(",") : [];
  for (const part of parts) {
    const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(part);
    const [low, high] = match ? [Number(match[1]), Number(match[2] || match[1])] : [0, n];
    if (low > high || high >= n) leaveOut("some of its patches do not exist");
    else for (let patch = low; patch <= high; patch++) patches.push(patch);
  }
  return patches;
}

function readNumber(key, end) {
  const text = opened.get(key);
  if (text === null) return null;
  if (/^\d{1,7}$/.test(text) && Number(text) < end) return Number(text);
  leaveOut("its concept does not exist");
  return null;
}

// Replace a tab's keys by `pairs` of texts that need no escaping; null and "" leave a key out.
function write(owner, pairs) {
  const now = new URLSearchParams(query());
  const others = [...now].filter(([key]) => ![...KEYS[owner], VERSION, MARK].includes(key));
  const said = Object.entries(pairs).filter(([, text]) => text !== null && text !== undefined && text !== "");
  const kept = others.map(([key, text]) => [encodeURIComponent(key), escaped(text)]);
  const sae = mark || escaped(now.get(MARK) || ""); // until this page's own is known, the link's
  const made = [[VERSION, 1], ...(sae ? [[MARK, sae]] : []), ...kept, ...said];
  made.sort(([a], [b]) => (ORDER.indexOf(a) + 1 || 99) - (ORDER.indexOf(b) + 1 || 99));
  const text = `?${made.map(([key, value]) => `${key}=${value}`).join("&")}`;
  const next = new URLSearchParams(text);
  const isChosen = (key) => settled(key, now.get(key)) !== settled(key, next.get(key));
  const closed = owner === "card" && !next.has("card");
  record(text, !closed && KEYS[owner].some(isChosen));
}

function settled(key, text) {
  return text !== null && SETTLED[key] ? SETTLED[key](text) : text || "";
}

function escaped(text) {
  return encodeURIComponent(text).replace(/%2C/g, ",").replace(/%3A/g, ":").replace(/%7E/g, "~");
}

export async function copyLink(panel, button) {
  const copied = await copyAddress(panel);
  setText(button, copied ? "Copied" : "Copy from the address bar");
  setTimeout(() => setText(button, "Copy link"), 1800);
  panel.say(copied ? "Link copied" : "The link is in the address bar");
}

async function copyAddress(panel) {
  try {
    await navigator.clipboard.writeText(location.href);
    return true;
  } catch {
    return copyByHand(panel.root);
  }
}

function copyByHand(root) {
  const field = document.createElement("textarea");
  field.className = "pl-hidden-field";
  field.value = location.href;
  root.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  return done;
}
