// Own names, notes and pins of concepts: kept in this browser for one SAE, by the hash of its weights, and told
// to whoever shows concepts as "notes". They never leave the browser but in a file that one saves.

import { bus } from "./bus.js";
import { make } from "./dom.js";
import { checkRows, isEmpty, rowsOf, tidyName, tidyNote } from "./notes_file.js";

const NONE = Object.freeze({ name: "", note: "", pinned: false });
const NOT_KEPT =
  "This browser keeps nothing for this page, so your names last until it is closed. Save them as a file.";
const DAMAGED =
  "Your names and notes could not be read any more; what was kept is set aside, and new ones can be given.";

class Notes {
  constructor() {
    this.all = new Map();
    this.about = null;
    this.limits = null;
    this.problem = "";
    this.turn = 0; // grows with every change
  }

  // Once a page: whoever shows concepts asks for it before the first look.
  open({ about, limits }) {
    if (this.about) return;
    Object.assign(this, { about, limits, key: `patchlens-notes-${about.sha256}` });
    this.read();
    window.addEventListener("storage", (event) => {
      if (event.key !== this.key && event.key !== null) return;
      this.read();
      this.tell();
    });
  }

  read() {
    let text = null;
    try {
      text = localStorage.getItem(this.key);
      this.all = text ? checkRows(JSON.parse(text), this.about.d_sae, this.limits) : new Map();
    } catch {
      this.problem = text === null ? NOT_KEPT : DAMAGED;
      if (text !== null) this.setAside(text);
    }
  }

  setAside(text) {
    try {
      localStorage.setItem(`${this.key}-damaged`, text);
      localStorage.removeItem(this.key);
    } catch {
      // it stays where it is
    }
  }

  tell() {
    this.turn++;
    bus.emit("notes");
  }

  get(latent) {
    return this.all.get(latent) || NONE;
  }

  name(latent) {
    return this.get(latent).name;
  }

  isPinned(latent) {
    return this.get(latent).pinned;
  }

  // What a concept is called in a sentence; `model` is the model's own name for it.
  word(latent, model) {
    const own = this.name(latent);
    return own ? `${own} (yours)` : model || `Concept ${latent}`;
  }

  pins() {
    return [...this.all.keys()].filter((latent) => this.isPinned(latent)).sort((a, b) => a - b);
  }

  named() {
    return [...this.all.keys()].filter((latent) => this.name(latent)).sort((a, b) => a - b);
  }

  // Pinned ones first, else in their order; `latentOf` says which concept an entry is.
  pinnedFirst(entries, latentOf = (entry) => entry) {
    const pinned = entries.filter((entry) => this.isPinned(latentOf(entry)));
    return pinned.length ? [...pinned, ...entries.filter((entry) => !this.isPinned(latentOf(entry)))] : entries;
  }

  // Whether there was room for it.
  change(latent, change) {
    const next = { ...this.get(latent), ...change };
    next.name = tidyName(next.name, this.limits.own_name);
    next.note = tidyNote(next.note, this.limits.own_note);
    if (!this.all.has(latent) && !isEmpty(next) && this.all.size >= this.limits.own_concepts) return false;
    const all = new Map(this.all);
    if (isEmpty(next)) all.delete(latent);
    else all.set(latent, next);
    this.replace(all);
    return true;
  }

  replace(all) {
    this.all = all;
    this.problem = "";
    try {
      if (all.size) localStorage.setItem(this.key, JSON.stringify(rowsOf(all)));
      else localStorage.removeItem(this.key);
    } catch {
      this.problem = NOT_KEPT;
    }
    this.tell();
  }
}

export const notes = new Notes();

function modelWord(model) {
  const word = make("small", "pl-mine-model", model);
  word.title = "The model's own name for it";
  return word;
}

// A concept's name in a list: one's own is marked as such, and the model's stands beside it.
export function showName(node, latent, model) {
  const { name, pinned } = notes.get(latent);
  const parts = [name || model || `Concept ${latent}`];
  if (pinned) {
    const pin = make("span", "pl-mine-pin");
    pin.title = "Pinned by you";
    pin.setAttribute("role", "img");
    pin.setAttribute("aria-label", "pinned");
    parts.unshift(pin);
  }
  if (name) {
    parts[parts.length - 1] = make("bdi", "", name);
    parts.push(make("small", "pl-mine", "yours"));
    if (model) parts.push(modelWord(model));
  }
  node.classList.toggle("pl-mine-named", Boolean(name) || pinned);
  node.replaceChildren(...parts);
}
