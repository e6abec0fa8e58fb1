// Where the dots lie: on one of the index's maps of likeness, or by two of its figures; and the way from one
// to the other. Knows positions and the switch that chooses them; knows nothing of drawing.

import { fromBase64 } from "./code.js";
import { setText, switchGroup } from "./dom.js";
import { UNKNOWN } from "./latents_data.js";

const FREQUENCY = "frequency";
const MOVE_MS = 450;
const CLOSE = {
  meaning: "close together: what their pictures mean is alike",
  cofiring: "close together: they fire in the same pictures",
  decoder: "close together: they point in like directions inside the model",
};

const isCalm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

export class LatentsPlaces {
  // `redraw` is told of every step on the way, `choose` of a placement that a person chose.
  constructor(panel, atlas, { redraw, choose }) {
    Object.assign(this, { panel, atlas, redraw });
    this.maps = new Map();
    this.lacking = new Map();
    this.axes = null;
    this.moving = 0;
    this.usual = FREQUENCY;
    this.count = 0;
    const node = panel.find(".pl-place");
    this.options = [...node.querySelectorAll("[role=radio]")];
    this.showChoice = switchGroup(node, (name) => {
      if (this.take(name)) choose();
    });
  }

  get current() {
    return this.maps.get(this.atlas.placement);
  }

  // What the server packed; the first map that is there is the usual one.
  open(all, packed, axes) {
    this.axes = axes;
    const names = this.options.map((option) => option.dataset.value);
    this.lacking = new Map(Object.entries(packed.lacking || {}));
    this.maps = new Map([[FREQUENCY, byFigures(all, axes)]]);
    for (const [name, map] of Object.entries(packed.maps || {})) this.maps.set(name, readMap(map));
    this.usual = names.find((name) => this.maps.has(name));
    for (const option of this.options) {
      const why = this.lacking.get(option.dataset.value);
      option.setAttribute("aria-disabled", String(Boolean(why)));
      if (why) option.title = why;
    }
    this.say(this.usual === FREQUENCY ? this.lacking.get(names[0]) : "");
    this.put(this.usual);
  }

  say(sentence) {
    const note = this.panel.find(".pl-place-note");
    note.hidden = !sentence;
    setText(note, sentence || "");
  }

  // Go to a placement; where the index lacks it, say why. Whether it went.
  take(name) {
    if (!this.maps.has(name)) {
      this.say(this.lacking.get(name));
      return false;
    }
    if (name === this.atlas.placement) return false;
    this.say("");
    const from = this.current;
    this.put(name);
    if (from && !isCalm()) this.glide(from, this.current);
    else this.redraw();
    return true;
  }

  // Lay the dots out by a placement, the whole of it in view.
  put(name) {
    cancelAnimationFrame(this.moving);
    this.moving = 0;
    const { x, y } = this.maps.get(name);
    Object.assign(this.atlas, { placement: name, x, y, view: { left: 0, top: 0, scale: 1 }, fence: null });
    this.showChoice(name);
    const { x: across, y: up } = this.axes;
    const isFrequency = name === FREQUENCY;
    setText(this.panel.find(".pl-axis-x"), isFrequency ? `${across.grows} (${across.unit}) →` : CLOSE[name]);
    setText(this.panel.find(".pl-axis-y"), isFrequency ? `${up.grows} (${up.unit}) →` : "");
    this.tell();
  }

  // What the map shows, for who does not see it and under a picture of it.
  tell() {
    const how = CLOSE[this.atlas.placement] || "by how often and how strongly they fire";
    const words = `${this.count.toLocaleString("en")} living concepts, ${how}; the table beside lists them`;
    this.panel.find(".pl-plane").setAttribute("aria-label", words);
  }

  // Let the dots move; one that has a place on one of the two only is where that is.
  glide(from, to) {
    const n = to.x.length;
    const x = new Float32Array(n);
    const y = new Float32Array(n);
    const started = performance.now();
    const step = (now) => {
      const share = Math.min(1, Math.max(0, (now - started) / MOVE_MS));
      const eased = share * share * (3 - 2 * share);
      for (let i = 0; i < n; i++) {
        const fromX = Number.isNaN(from.x[i]) ? to.x[i] : from.x[i];
        const fromY = Number.isNaN(from.y[i]) ? to.y[i] : from.y[i];
        x[i] = fromX + (to.x[i] - fromX) * eased;
        y[i] = fromY + (to.y[i] - fromY) * eased;
      }
      const done = share === 1;
      this.moving = done ? 0 : requestAnimationFrame(step);
      Object.assign(this.atlas, done ? { x: to.x, y: to.y } : { x, y });
      this.redraw();
    };
    this.moving = requestAnimationFrame(step);
  }
}

function byFigures(all, { x: across, y: up }) {
  const x = new Float32Array(all.n);
  const y = new Float32Array(all.n);
  const figures = [all.figures[across.name], all.figures[up.name]];
  for (let i = 0; i < all.n; i++) {
    const [right, high] = figures.map(({ codes }) => codes[i]);
    const dead = right === UNKNOWN || high === UNKNOWN;
    x[i] = dead ? NaN : right / (UNKNOWN - 1);
    y[i] = dead ? NaN : 1 - high / (UNKNOWN - 1);
  }
  return { x, y, groups: [] };
}

// Pairs of 16 bits, stretched to fill the plane; groups as [label, concepts, x, y], the largest first.
function readMap({ xy, groups }) {
  const codes = fromBase64(xy, Uint16Array);
  const [x, acrossAt] = stretched(codes, 0);
  const [y, downAt] = stretched(codes, 1);
  const named = groups.map(([label, n, across, down]) => ({ label, n, x: acrossAt(across), y: downAt(down) }));
  return { x, y, groups: named.sort((a, b) => b.n - a.n) };
}

// Every second number from `first` on as a share of what they span, and how any share comes to lie there.
function stretched(codes, first) {
  let low = UNKNOWN;
  let high = 0;
  for (let i = first; i < codes.length; i += 2) {
    if (codes[i] === UNKNOWN) continue;
    low = Math.min(low, codes[i]);
    high = Math.max(high, codes[i]);
  }
  const span = Math.max(1, high - low);
  const values = new Float32Array(codes.length / 2);
  for (let i = 0; i < values.length; i++) {
    const code = codes[2 * i + first];
    values[i] = code === UNKNOWN ? NaN : (code - low) / span;
  }
  return [values, (share) => (share * (UNKNOWN - 1) - low) / span];
}
