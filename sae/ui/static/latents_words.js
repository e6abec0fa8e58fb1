// What is written on the map: names of groups, names of dots where there is room, the ticks of its axes.
// Nothing lies over anything else: the most important word is put first, and a word without room is left
// out. Knows rectangles and texts; a few dozen nodes are made once and moved.

import { make, setText } from "./dom.js";
import { notes } from "./notes.js";

const GROUPS_UNTIL = 7;
const NAMES_FROM = 1.35;
const NAMES_A_ZOOM = 9;
const MOST_NAMES = 70;
const MOST_FOUND = 14;
const MOST_TRIES = 3000;
const TWIN_PX = 150;
const HEIGHT = { group: 20, name: 17, tick: 15 };
const FONT = { group: "650 13px", name: "500 12px", tick: "400 11px" };
const TICK_ROOM = 34;
// What the names of the axes take of the plane, at its foot and at its side.
const FOOT_PX = 23;
const SIDE_PX = 24;

export class MapWords {
  constructor(map) {
    this.map = map;
    this.node = map.panel.find(".pl-map-words");
    this.spans = [];
    this.used = 0;
    this.boxes = [];
    this.edge = [0, 0];
    this.widths = new Map();
    this.ruler = document.createElement("canvas").getContext("2d");
    this.byStrength = null;
  }

  lay() {
    const { atlas, places, all, tab } = this.map;
    this.used = 0;
    this.boxes = [];
    if (!places.moving && places.current) {
      const { found, order, kept } = tab.table.list;
      const isFrequency = atlas.placement === "frequency";
      this.edge = [isFrequency ? SIDE_PX : 2, atlas.height - FOOT_PX];
      if (isFrequency) this.layTicks();
      if (!found && atlas.view.scale < GROUPS_UNTIL) this.layGroups(places.current.groups);
      const most = Math.min(MOST_NAMES, Math.round(NAMES_A_ZOOM * (atlas.view.scale - 1)));
      if (found) this.layNames(order, kept, Math.max(MOST_FOUND, most));
      else if (atlas.view.scale >= NAMES_FROM) {
        this.layNames([...notes.named(), ...this.strongestFirst(all)], kept, most);
      }
    }
    for (let i = this.used; i < this.spans.length; i++) this.spans[i].hidden = true;
  }

  layGroups(groups) {
    for (const { label, x, y } of groups) {
      this.put("group", label, this.map.screenX(x), this.map.screenY(y));
    }
  }

  layNames(latents, kept, most) {
    const { atlas, all } = this.map;
    const { view } = atlas;
    const wide = 1 / view.scale;
    const twins = new Map();
    let left = most;
    let tries = MOST_TRIES;
    for (const latent of latents) {
      if (!left || !tries) return;
      const x = atlas.x[latent] - view.left;
      const y = atlas.y[latent] - view.top;
      const name = notes.name(latent) || all.names[latent];
      if (!kept[latent] || !name || !(x >= 0 && y >= 0 && x <= wide && y <= wide)) continue;
      tries--;
      const sx = this.map.screenX(atlas.x[latent]);
      const sy = this.map.screenY(atlas.y[latent]) - 13;
      const seen = twins.get(name) || [];
      if (seen.some(([tx, ty]) => Math.abs(tx - sx) < TWIN_PX && Math.abs(ty - sy) < TWIN_PX)) continue;
      if (!this.put("name", name, sx, sy)) continue;
      twins.set(name, [...seen, [sx, sy]]);
      left--;
    }
  }

  // Named concepts: sure names first, of these what fires most often.
  strongestFirst(all) {
    if (this.byStrength) return this.byStrength;
    const often = all.figures[all.usualOrder.by];
    const weight = (latent) => {
      const value = often ? often.values[latent] : 0;
      return (all.names[latent].endsWith("?") ? 0 : 10) + (Number.isFinite(value) ? value : 0);
    };
    const named = [...all.names.keys()].filter((latent) => all.names[latent] && !all.dead[latent]);
    const weights = new Map(named.map((latent) => [latent, weight(latent)]));
    this.byStrength = named.sort((a, b) => weights.get(b) - weights.get(a) || a - b);
    return this.byStrength;
  }

  layTicks() {
    const { atlas, all, places } = this.map;
    const { view, width, height } = atlas;
    const { x, y } = places.axes;
    for (const { at, text } of ticksOf(all, x, view.left, view.left + 1 / view.scale)) {
      const sx = this.map.screenX(at);
      if (sx > TICK_ROOM + 20 && sx < width - 20) this.put("tick", text, sx, height - 31, "pl-tick-x");
    }
    for (const { at, text } of ticksOf(all, y, 1 - view.top - 1 / view.scale, 1 - view.top)) {
      const sy = this.map.screenY(1 - at);
      const sx = TICK_ROOM + this.width("tick", text) / 2;
      if (sy > 12 && sy < height - 48) this.put("tick", text, sx, sy, "pl-tick-y");
    }
  }

  width(kind, text) {
    const key = kind + text;
    if (!this.widths.has(key)) {
      this.ruler.font = `${FONT[kind]} ${getComputedStyle(this.node).fontFamily}`;
      this.widths.set(key, Math.ceil(this.ruler.measureText(text).width) + 8);
    }
    return this.widths.get(key);
  }

  // Write a text around a point if there is room for it; whether there was.
  put(kind, text, sx, sy, more = "") {
    const { width } = this.map.atlas;
    const wide = this.width(kind, text);
    const high = HEIGHT[kind];
    const left = Math.round(sx - wide / 2);
    const top = Math.round(sy - high / 2);
    if (left < this.edge[0] || top < 2 || left + wide > width - 2 || top + high > this.edge[1]) return false;
    const box = [left, top, left + wide, top + high];
    if (this.boxes.some((one) => overlap(one, box))) return false;
    this.boxes.push(box);
    const span = this.spans[this.used] || this.makeSpan();
    this.used++;
    span.hidden = false;
    span.className = `pl-map-word pl-map-word-${kind} ${more}`;
    setText(span, text);
    span.style.transform = `translate(${left}px, ${top}px)`;
    span.style.width = `${wide}px`;
    return true;
  }

  makeSpan() {
    const span = make("span", "pl-map-word");
    this.spans.push(span);
    this.node.append(span);
    return span;
  }
}

function overlap([left, top, right, bottom], other) {
  return left < other[2] && other[0] < right && top < other[3] && other[1] < bottom;
}

// Round numbers of a figure between two shares of its axis: [{at (share of the axis), text}].
export function ticksOf(all, { name }, from, to) {
  const figure = all.figures[name];
  const { low, high, log } = figure;
  const valueAt = (share) => (log ? low * (high / low) ** share : low + (high - low) * share);
  const shareOf = (value) => (log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low));
  const { format } = all.statistics.find((one) => one.name === name);
  return roundNumbers(valueAt(from), valueAt(to), log).map((value) => ({
    at: shareOf(value),
    text: format === "share" ? `${Number((100 * value).toPrecision(6))} %` : String(Number(value.toPrecision(6))),
  }));
}

// Powers of ten, then fives and twos, where there are several decades; else even steps.
function roundNumbers(first, last, log) {
  if (!(first < last)) return [];
  if (log && last / first >= 8) {
    const lowest = Math.floor(Math.log10(first));
    const powers = Array.from({ length: Math.ceil(Math.log10(last)) - lowest + 1 }, (_, k) => 10 ** (lowest + k));
    const all = [1, 5, 2].flatMap((digit) => powers.map((power) => digit * power));
    return all.filter((value) => value >= first && value <= last);
  }
  const rough = (last - first) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((digit) => digit * power >= rough) * power;
  const values = [];
  for (let k = Math.ceil(first / step); k * step <= last && values.length < 20; k++) values.push(k * step);
  return values;
}
