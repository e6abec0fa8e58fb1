// The experiment: prompt, rack and switches, with undo, and as a link. Knows no server.

import { writeSteer } from "./links.js";
import { Undo } from "./undo.js";

export const PROMPTS = [
  "describe the image",
  "what is shown, in one word",
  "what is the background",
  "how many objects",
];

export function newRow(latent, strength) {
  return { latent, strength: strength === undefined ? 1 : strength, on: true, where: "all", mode: "set" };
}

// Of the patches that were chosen; "only" switches every other concept off there too.
export const ofRegion = (row) => row.where === "region" || row.where === "only";

function scopeOf(row, patches) {
  if (!ofRegion(row)) return { where: row.where };
  return patches.length ? { where: "region", patches } : { where: "all" };
}

export class Experiment {
  constructor(tab) {
    this.tab = tab;
    this.panel = tab.panel;
    // Doses are multiples of a concept's own maximum; without an index they are plain activations.
    this.sliderMost = tab.limits.strength;
    this.doseMost = tab.limits.strength_most;
    this.state = { prompt: PROMPTS[0], rows: [], errorTerm: true, limit: tab.limits.usual_tokens };
    this.known = new Map();
    this.undo = new Undo(this.snapshot());
  }

  snapshot() {
    return JSON.stringify({ prompt: this.state.prompt, rows: this.state.rows, errorTerm: this.state.errorTerm });
  }

  // Call after every change; changes of one row in quick succession are one step of undo.
  keep(row) {
    this.undo.keep(this.snapshot(), row);
  }

  // What `undo` gives, if it gives anything.
  restore(kept) {
    if (kept) Object.assign(this.state, JSON.parse(kept));
  }

  // The request as sae.steering.SteerRequest reads it.
  steerRequest(patches) {
    const edits = this.state.rows
      .filter((row) => row.on)
      .flatMap((row) => {
        const edit = {
          latent: row.latent,
          mode: row.mode,
          strength: row.strength,
          units: this.tab.limits.has_index ? "max" : "raw",
          scope: scopeOf(row, patches),
        };
        return row.where === "only" && patches.length ? [edit, { ...edit, mode: "only", strength: 0 }] : [edit];
      });
    return { prompt: this.state.prompt, edits, error_term: this.state.errorTerm, max_new_tokens: this.state.limit };
  }

  writeLink() {
    writeSteer({
      rows: this.state.rows,
      prompt: this.state.prompt === PROMPTS[0] ? "" : this.state.prompt,
      errorTerm: this.state.errorTerm,
    });
  }
}
