// Where one is on the map, as a link says it: the lasso in few corners, and the part that is in view.
// Knows numbers between 0 and 1 across and down the map; knows nothing of dots or screens.

import { leaveOut } from "./misfits.js";

const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_";
const LETTERS = 3; // of a number: 64 ** 3 steps
const STEPS = DIGITS.length ** LETTERS - 1;
const LOW = -1; // a lasso may leave the map by its own width
const SPAN = 3;
const MOST_CORNERS = 48;
const ZOOM = /^(\d\.\d{1,5})~(\d\.\d{1,5})~(\d{1,2}(?:\.\d{1,3})?)$/;

const stepOf = (x) => Math.round(Math.max(0, Math.min(1, (x - LOW) / SPAN)) * STEPS);
const valueOf = (step) => LOW + (SPAN * step) / STEPS;

function numberText(x) {
  let rest = stepOf(x);
  let text = "";
  for (let i = 0; i < LETTERS; i++) {
    text = DIGITS[rest % DIGITS.length] + text;
    rest = Math.floor(rest / DIGITS.length);
  }
  return text;
}

function numberIn(text) {
  let step = 0;
  for (const letter of text) step = step * DIGITS.length + DIGITS.indexOf(letter);
  return valueOf(step);
}

// How far a corner lies from the line between two others.
function offLine([x, y], [ax, ay], [bx, by]) {
  const length = Math.hypot(bx - ax, by - ay);
  if (!length) return Math.hypot(x - ax, y - ay);
  return Math.abs((bx - ax) * (ay - y) - (ax - x) * (by - ay)) / length;
}

// The corners that a line needs to stay within `reach` of the drawn one (Douglas and Peucker).
function corners(line, reach) {
  const kept = new Set([0, line.length - 1]);
  const waiting = [[0, line.length - 1]];
  while (waiting.length) {
    const [from, to] = waiting.pop();
    let worst = from;
    let far = reach;
    for (let i = from + 1; i < to; i++) {
      const off = offLine(line[i], line[from], line[to]);
      if (off > far) [worst, far] = [i, off];
    }
    if (worst === from) continue;
    kept.add(worst);
    waiting.push([from, worst], [worst, to]);
  }
  return line.filter((_, i) => kept.has(i));
}

// A lasso as a link can hold it; what it takes is the same here and where the link is opened. `unit` is
// the width of a pixel.
export function tidyLasso(line, unit) {
  let reach = unit / 2;
  let tidy = line;
  do {
    tidy = corners(line, reach);
    reach *= 1.5;
  } while (tidy.length > MOST_CORNERS);
  return tidy.map((corner) => corner.map((x) => valueOf(stepOf(x))));
}

export const lassoText = (lasso) => (lasso || []).map(([x, y]) => numberText(x) + numberText(y)).join("");

// The lasso of such a text, null for none.
export function readLasso(text) {
  if (!text) return null;
  const size = 2 * LETTERS;
  const isLasso = /^[\w-]+$/.test(text) && text.length % size === 0;
  if (!isLasso || text.length < 3 * size || text.length > MOST_CORNERS * size) {
    leaveOut("its lasso cannot be read");
    return null;
  }
  const lasso = [];
  for (let i = 0; i < text.length; i += size) {
    lasso.push([numberIn(text.slice(i, i + LETTERS)), numberIn(text.slice(i + LETTERS, i + size))]);
  }
  return lasso;
}

// A part of the map as exactly as a link says it, so that a link shows the same.
export const asLinked = ({ left, top, scale }) => ({
  left: Number(left.toFixed(5)),
  top: Number(top.toFixed(5)),
  scale: Number(scale.toFixed(3)),
});

export function zoomText({ left, top, scale }) {
  return scale > 1 ? `${left.toFixed(5)}~${top.toFixed(5)}~${scale}` : null;
}

// The part in view that such a text names, the whole map for none.
export function readZoom(text, most) {
  const match = ZOOM.exec(text || "");
  const [left, top, scale] = match ? match.slice(1).map(Number) : [0, 0, 1];
  if (text && !(match && scale >= 1 && scale <= most)) {
    leaveOut("its zoom cannot be read");
    return { left: 0, top: 0, scale: 1 };
  }
  return { left, top, scale };
}
