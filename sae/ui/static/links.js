// The address bar, for all tabs: what a link says and how it is written. Every tab owns some keys of
// the query and leaves the others alone. A link is written by anyone, so every part is checked.
// The picture's own keys are read by Python (sae/ui/links.py), which checks them against the models.

import { bus } from "./bus.js";
import { setText } from "./dom.js";

const KEYS = {
  tab: ["tab"],
  card: ["card"],
  concepts: ["img", "p", "z", "rank", "scale"],
  latents: ["q", "map", "sort"],
  steer: ["steer", "ask", "keep"],
  compare: ["task", "heads", "split", "pic", "off"],
  look: ["op", "bars"],
};
const VERSION = "v";
const WHERE_LETTERS = { all: "", patches: "p", cls: "c", region: "r", only: "o" };
const EDIT = /^(\d{1,7})\*(-?\d{1,5}(?:\.\d{1,3})?)([pcro]?)(a?)(x?)$/;

// As the visitor came; the tabs rewrite the address soon after.
const opened = new URLSearchParams(location.search);

// Whether the link names a view, which the server then answers.
export const namesView = [VERSION, ...KEYS.concepts, ...KEYS.card].some((key) => opened.has(key));

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
  const query = new URLSearchParams(location.search);
  return { img: query.get("img"), p: query.get("p") };
}

// The name of the example that `img` stands for, or "".
export function exampleOf(img) {
  const match = /^ex:([a-z-]{1,40})$/.exec(img || "");
  return match ? match[1] : "";
}

export function readLatents(letters) {
  const [by, way] = (opened.get("sort") || "").split("~");
  const text = (opened.get("q") || "").slice(0, letters);
  return { text, by, down: way !== "up", placement: opened.get("map") };
}

export function writeLatents({ text, by, down, map }, usual) {
  const unsaid = (by === usual.by && down === usual.down) || by === "score";
  write("latents", { q: encodeURIComponent(text), map, sort: unsaid ? null : by + (down ? "" : "~up") });
}

export function readSteer() {
  return Object.fromEntries(KEYS.steer.map((key) => [key, opened.get(key)]));
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
    const where = Object.keys(WHERE_LETTERS).find((key) => WHERE_LETTERS[key] === match[3]);
    rows.push({ latent, strength, on: !match[5], where, mode: match[4] ? "add" : "set" });
  }
  return rows;
}

export function readCompare(limits) {
  const number = opened.get("pic") || "";
  const off = (opened.get("off") || "").split(",", limits.off);
  return {
    task: opened.get("task"),
    split: opened.get("split") === "novel" ? "novel" : "",
    heads: (opened.get("heads") || "").split(","),
    number: /^\d{1,3}$/.test(number) ? Number(number) : null,
    off: off.filter((part) => /^\d{1,7}$/.test(part)).map(Number),
  };
}

export function writeCompare({ task, heads, split, number, own, off }) {
  write("compare", {
    task,
    heads: heads.join(","),
    split: split === "base" ? null : split,
    pic: own ? null : number,
    off: [...off].join(","),
  });
}

// The open tab: read once, written with every change; `tabs` are their ids, the first goes unsaid.
export function followTabs(tabs) {
  bus.tabs = tabs;
  document.addEventListener("click", (event) => {
    const button = event.target.closest && event.target.closest("#tabs button");
    const tab = button && bus.tabOf(button);
    if (tab) writeTab(tab === tabs[0] ? null : tab);
  });
  document.addEventListener("keydown", (event) => stepTab(event, tabs));
  const asked = opened.get("tab");
  if (tabs.includes(asked)) openOnceThere(asked, 100);
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

// Replace a tab's keys by `pairs` of texts that need no escaping; null and "" leave a key out.
function write(owner, pairs) {
  const others = [...new URLSearchParams(location.search)].filter(
    ([key]) => !KEYS[owner].includes(key) && key !== VERSION,
  );
  const said = Object.entries(pairs).filter(([, text]) => text !== null && text !== undefined && text !== "");
  const parts = [...others.map(([key, text]) => [encodeURIComponent(key), escaped(text)]), ...said];
  const query = `?${[[VERSION, 1], ...parts].map(([key, text]) => `${key}=${text}`).join("&")}`;
  if (query === location.search) return;
  history.replaceState(history.state, "", location.pathname + query + location.hash);
  if (window.parent !== window) window.parent.postMessage({ queryString: query.slice(1) }, "https://huggingface.co");
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
