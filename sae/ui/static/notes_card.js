// What one says of a concept oneself, on its card: a pin, a name, a note; and taking it all away again.

import { bus } from "./bus.js";
import { make, makeButton, setText } from "./dom.js";
import { notes } from "./notes.js";

const KEEP_AFTER_MS = 500;
const FULL = "No room for more: remove some under “Take away”, “Your names, notes and pins”.";

function labelled(text, field, id) {
  const box = make("div", "pl-mine-field");
  const label = make("label", "pl-label", text);
  field.id = id;
  label.htmlFor = id;
  box.append(label, field);
  return box;
}

export class OwnNotes {
  constructor() {
    this.latent = -1;
    this.removed = null;
    this.wait = 0;
    this.node = make("section", "pl-mine-card");
    this.node.setAttribute("aria-label", "Your own name and note");
    this.pin = makeButton("pl-button pl-mine-pinning", "Pin", () =>
      this.keep({ pinned: !notes.isPinned(this.latent) }),
    );
    this.name = make("input", "pl-input pl-mine-own-name");
    this.note = make("textarea", "pl-input pl-mine-own-note");
    this.note.rows = 2;
    this.fields = make("div", "pl-mine-fields");
    this.more = makeButton("pl-button pl-mine-more", "Name it, or note something", () => this.open(this.fields.hidden));
    this.remove = makeButton("pl-quiet pl-mine-remove", "Remove yours", () => this.takeAway());
    this.undo = makeButton("pl-quiet pl-mine-undo", "Undo", () => this.takeBack());
    this.said = make("span", "pl-note pl-mine-kept");
    this.said.setAttribute("role", "status");
    this.lay();
  }

  lay() {
    this.name.type = "text";
    this.name.autocomplete = "off";
    this.name.placeholder = "what you call it";
    this.note.placeholder = "what you found out";
    const head = make("div", "pl-mine-line");
    head.append(this.pin, this.more, this.said);
    const foot = make("div", "pl-mine-line");
    foot.append(this.remove, this.undo);
    this.fields.append(
      labelled("Your name for it", this.name, "pl-own-name"),
      labelled("Your note", this.note, "pl-own-note"),
    );
    this.node.append(head, this.fields, foot);
    for (const field of [this.name, this.note]) {
      field.addEventListener("input", () => this.keepSoon());
      field.addEventListener("change", () => this.keepFields());
    }
    this.name.addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.keepFields();
    });
    bus.on("notes", () => this.draw());
  }

  open(on) {
    this.fields.hidden = !on;
    this.more.setAttribute("aria-expanded", String(on));
    if (on && document.activeElement === this.more) this.name.focus();
  }

  keepSoon() {
    clearTimeout(this.wait);
    this.wait = setTimeout(() => this.keepFields(), KEEP_AFTER_MS);
  }

  keepFields() {
    clearTimeout(this.wait);
    this.wait = 0;
    if (this.latent >= 0) this.keep({ name: this.name.value, note: this.note.value });
  }

  keep(change) {
    this.removed = null;
    const kept = notes.change(this.latent, change);
    setText(this.said, kept ? notes.problem || "Kept in this browser." : FULL);
  }

  takeAway() {
    clearTimeout(this.wait);
    this.removed = notes.get(this.latent);
    notes.change(this.latent, { name: "", note: "", pinned: false });
    setText(this.said, "Removed.");
    this.undo.focus();
  }

  takeBack() {
    const before = this.removed;
    this.removed = null;
    notes.change(this.latent, before);
    setText(this.said, "As it was before.");
    this.open(true);
    this.name.focus();
  }

  // Before another concept is shown, or the card closes: nothing that was typed is lost.
  leave() {
    if (this.wait) this.keepFields();
    this.latent = -1;
  }

  show(latent) {
    if (latent === this.latent) return;
    this.leave();
    this.latent = latent;
    this.removed = null;
    this.name.maxLength = notes.limits.own_name;
    this.note.maxLength = notes.limits.own_note;
    setText(this.said, notes.problem);
    const { name, note } = notes.get(latent);
    this.open(Boolean(name || note));
    this.draw();
  }

  draw() {
    if (this.latent < 0) return;
    const { name, note, pinned } = notes.get(this.latent);
    if (document.activeElement !== this.name) this.name.value = name;
    if (document.activeElement !== this.note) this.note.value = note;
    this.pin.setAttribute("aria-pressed", String(pinned));
    setText(this.pin, pinned ? "Pinned" : "Pin");
    this.pin.title = pinned ? "Take the pin away" : "Show it first in lists, and marked on the map";
    this.remove.hidden = !notes.all.has(this.latent);
    this.undo.hidden = !this.removed;
  }
}
