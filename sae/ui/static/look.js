// How maps and bars are drawn, for all tabs: chosen once, kept in this browser, and told in links.

import { bus } from "./bus.js";
import { readLook, restoreWith, writeLook } from "./links.js";

const KEPT = "patchlens-look";
const USUAL = { opacity: 0.75, bars: "activation" };

// What the link says goes before what this browser has kept; both may be written by anyone.
function soundOf(...said) {
  const found = { ...USUAL };
  for (const { opacity, bars } of said) {
    if (opacity >= 0 && opacity <= 1) found.opacity = opacity;
    if (["activation", "share"].includes(bars)) found.bars = bars;
  }
  return found;
}

function kept() {
  try {
    return JSON.parse(localStorage.getItem(KEPT)) || {};
  } catch {
    return {};
  }
}

export const look = soundOf(kept(), readLook());
writeLook(look, USUAL);
restoreWith("look", () => {
  Object.assign(look, soundOf(readLook()));
  bus.emit("look");
});

export function changeLook(part) {
  Object.assign(look, part);
  try {
    localStorage.setItem(KEPT, JSON.stringify(look));
  } catch {
    // A browser that keeps nothing: the link still tells.
  }
  writeLook(look, USUAL);
  bus.emit("look");
}

// A slider of the maps' opacity, per cent; all of them move together.
export function wireOpacity(slider) {
  const show = () => {
    slider.value = Math.round(100 * look.opacity);
  };
  slider.addEventListener("input", () => changeLook({ opacity: slider.value / 100 }));
  bus.on("look", show);
  show();
}
