// Steps that can be undone and done again, and the keys for it. Knows nothing of what a step changes.

import { bus } from "./bus.js";
import { takesText } from "./dom.js";

const MOST = 100;
const ONE_STEP_MS = 1200;

export class Undo {
  // `first`: what there is before any change, as text; so are all that follow.
  constructor(first) {
    this.past = [];
    this.future = [];
    this.begin(first);
  }

  // From here on, without a step: what the page itself opens.
  begin(now) {
    this.kept = now;
    this.keptAt = 0;
    this.keptOf = undefined;
  }

  // After every change; changes of one thing in quick succession are one step. An object stands for one
  // movement of the hand, which is one step however long it takes.
  keep(now, of) {
    if (now === this.kept) return;
    const soon = typeof of === "object" || performance.now() - this.keptAt < ONE_STEP_MS;
    const same = of !== undefined && of === this.keptOf && soon;
    if (!same) this.past.push(this.kept);
    if (this.past.length > MOST) this.past.shift();
    this.future.length = 0;
    this.kept = now;
    this.keptAt = performance.now();
    this.keptOf = of;
  }

  // What there was one step before, or after; null where there is none.
  back() {
    return this.travel(this.past, this.future);
  }

  forward() {
    return this.travel(this.future, this.past);
  }

  travel(from, to) {
    if (!from.length) return null;
    to.push(this.kept);
    this.begin(from.pop());
    return this.kept;
  }
}

// Ctrl+Z and Ctrl+Shift+Z or Ctrl+Y call `back` and `forward` while `isMine()`, unless a text is being written.
export function undoByKeys(isMine, back, forward) {
  document.addEventListener("keydown", (event) => {
    const key = event.key.toLowerCase();
    const isUndo = (event.ctrlKey || event.metaKey) && !event.altKey && (key === "z" || key === "y");
    if (!isUndo || takesText(event) || bus.card.isOpen() || !isMine()) return;
    event.preventDefault();
    if (key === "y" || event.shiftKey) forward();
    else back();
  });
}
