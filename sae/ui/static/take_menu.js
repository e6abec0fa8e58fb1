// "Take away": one small menu, the same on every tab. Its entries are made when it opens, so that they say what
// would be taken now. Knows no tab.

import { make, makeButton, setText } from "./dom.js";
import { openNotesDialog } from "./notes_dialog.js";
import { download } from "./take_files.js";

const NOT_MADE = "This file could not be made. Try again, or reload the page.";
const MARGIN = 12;

export class TakeMenu {
  // `entries()` gives [{ label, hint, take }]; `take` may give the name of the file that it saved.
  constructor(panel, place, entries) {
    this.panel = panel;
    this.entries = entries;
    this.node = make("span", "pl-take");
    this.button = makeButton("pl-button pl-take-button", "Take away", () => this.toggle());
    this.list = make("div", "pl-take-list");
    this.list.hidden = true;
    this.list.setAttribute("role", "menu");
    this.list.setAttribute("aria-label", "Take away");
    this.button.setAttribute("aria-haspopup", "menu");
    this.button.setAttribute("aria-expanded", "false");
    this.node.append(this.button, this.list);
    place.append(this.node);
    this.listen();
  }

  listen() {
    document.addEventListener("pointerdown", (event) => {
      if (!this.node.contains(event.target)) this.close();
    });
    this.node.addEventListener("focusout", (event) => {
      if (event.relatedTarget && !this.node.contains(event.relatedTarget)) this.close();
    });
    this.node.addEventListener("keydown", (event) => this.keyPressed(event));
  }

  keyPressed(event) {
    if (this.list.hidden) {
      if (event.key !== "ArrowDown") return;
      event.preventDefault();
      this.toggle();
      return;
    }
    if (event.key === "Escape") {
      event.stopPropagation();
      this.close();
      this.button.focus();
    }
    const shown = [...this.list.querySelectorAll("button")];
    const at = shown.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: shown.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    shown[(to + shown.length) % shown.length].focus();
  }

  toggle() {
    if (!this.list.hidden) {
      this.close();
      return;
    }
    const mine = {
      label: "Your names, notes and pins …",
      hint: "kept in this browser; save them, or bring some in",
      take: () => openNotesDialog(this.panel),
    };
    this.list.replaceChildren(...[...this.entries(), mine].map((entry) => this.makeEntry(entry)));
    this.list.hidden = false;
    this.button.setAttribute("aria-expanded", "true");
    this.place();
    this.list.querySelector("button").focus({ preventScroll: true });
  }

  // To the side and above or below the button, where there is room for it.
  place() {
    const { left, top, bottom } = this.node.getBoundingClientRect();
    const { height } = this.list.getBoundingClientRect();
    this.list.classList.toggle("pl-take-left", left < 300);
    this.list.classList.toggle("pl-take-up", bottom + height + MARGIN > innerHeight && top > height + MARGIN);
  }

  close() {
    this.list.hidden = true;
    this.button.setAttribute("aria-expanded", "false");
  }

  makeEntry({ label, hint, take }) {
    const entry = makeButton("pl-take-entry", "", () => this.take(take));
    entry.setAttribute("role", "menuitem");
    entry.append(make("span", "", label), make("small", "", hint));
    return entry;
  }

  async take(act) {
    this.close();
    this.button.focus({ preventScroll: true });
    try {
      const name = await act();
      if (!name) return;
      setText(this.button, "Saved");
      this.panel.say(`Saved as ${name}`);
      setTimeout(() => setText(this.button, "Take away"), 1800);
    } catch {
      this.panel.notice(NOT_MADE, "problem");
    }
  }
}

// The script that repeats a view: to read, to copy, or as a file.
export async function openPython(panel, question, name) {
  const answer = await panel.ask({ way: "python", ...question });
  if (!answer) return;
  const dialog = make("dialog", "pl-take-dialog");
  const code = make("pre", "pl-python", answer.code);
  code.tabIndex = 0;
  const copy = makeButton("pl-button pl-primary", "Copy", async () => {
    try {
      await navigator.clipboard.writeText(answer.code);
      setText(copy, "Copied");
    } catch {
      getSelection().selectAllChildren(code);
      setText(copy, "Selected: copy it now");
    }
    setTimeout(() => setText(copy, "Copy"), 1800);
  });
  const save = makeButton("pl-button", "Save as a file", () => download(name, answer.code));
  const close = makeButton("pl-button", "Close", () => dialog.close());
  const foot = make("div", "pl-actions");
  foot.append(copy, save, close);
  dialog.setAttribute("aria-label", "Python");
  dialog.append(
    make("h2", "pl-title", "The same in Python"),
    make("p", "pl-subtitle", "What is on the screen, from the library that this page is made with."),
    code,
    foot,
  );
  dialog.addEventListener("close", () => dialog.remove());
  panel.root.append(dialog);
  dialog.showModal();
}
