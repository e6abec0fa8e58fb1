// Which concepts the list shows, in which order, and which of them are weak. Knows sparse codes and the
// server's limits; knows nothing of the DOM.

import { rankPatches, rankPicture } from "./code.js";

// Amounts as shares of each concept's own maximum over the data set.
function sharesOf(code, slots, amounts) {
  const shares = {};
  for (const slot of slots) shares[slot] = code.datasetMax[slot] > 0 ? amounts[slot] / code.datasetMax[slot] : 0;
  return shares;
}

// A concept is weak where it stays below a share of its own maximum, wherever it is strongest here, or
// where as many others come before it. The ones that lead never are, nor those
// that are chosen or pinned.
function isStrong(code, places, rank, limits) {
  if (!code.datasetMax) return () => true;
  if (places) {
    const { slots, amounts } = rankPatches(code, places, "max");
    const shares = sharesOf(code, slots, amounts);
    return (slot) => shares[slot] >= limits.weak_share;
  }
  const most = rank === "cls" ? code.summary : code.max;
  return (slot) => most[slot] >= limits.weak_share * code.datasetMax[slot];
}

// The list for some places, null for the whole picture: `strong` and `weak` slots in order, how many are
// `always` on, and the `amounts` that the bars show, which are shares if `bars` says so.
export function orderConcepts(code, places, { rank, bars, showDense, isKept }, limits) {
  const ranked = places ? rankPatches(code, places, rank) : rankPicture(code, rank);
  const asShares = bars === "share" && Boolean(code.datasetMax);
  const amounts = asShares ? sharesOf(code, ranked.slots, ranked.amounts) : ranked.amounts;
  if (asShares) ranked.slots.sort((a, b) => amounts[b] - amounts[a] || a - b);
  const plain = ranked.slots.filter((slot) => !code.dense.has(slot));
  const always = ranked.slots.length - plain.length;
  const found = showDense ? ranked.slots : plain;
  const known = new Set(found);
  const leading = !places && rank === limits.rank ? code.leading.filter((slot) => known.has(slot)) : [];
  const strong = [...leading];
  const weak = [];
  const reaches = isStrong(code, places, rank, limits);
  for (const slot of found) {
    if (leading.includes(slot)) continue;
    const isShown = isKept(slot) || (strong.length < limits.n_strong && reaches(slot));
    (isShown ? strong : weak).push(slot);
  }
  if (!strong.length && weak.length) strong.push(weak.shift());
  return { strong, weak, always, amounts, asShares };
}
