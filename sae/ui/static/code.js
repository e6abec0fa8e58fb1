// Packed numbers from the server, and the sparse code of one picture: decode, index both ways, rank.
// Knows the packed format of sae/views/code.py; knows nothing of the DOM.

export function fromBase64(text, Type) {
  const raw = atob(text || "");
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return new Type(bytes.buffer);
}

function countingIndex(keys, n) {
  const start = new Uint32Array(n + 1);
  for (const key of keys) start[key + 1]++;
  for (let i = 0; i < n; i++) start[i + 1] += start[i];
  const order = new Uint32Array(keys.length);
  const next = start.slice(0, n);
  for (let i = 0; i < keys.length; i++) order[next[keys[i]]++] = i;
  return { start, order };
}

let codeTurn = 0;
export function readCode(value) {
  const packed = value.code;
  const code = {
    turn: ++codeTurn,
    tiny: new Map(),
    rows: value.grid[0],
    columns: value.grid[1],
    patches: value.grid[0] * value.grid[1],
    places: packed.places,
    hasSummary: packed.places > value.grid[0] * value.grid[1],
    ids: fromBase64(packed.latents, Uint32Array),
    scale: fromBase64(packed.scale, Float32Array),
    place: fromBase64(packed.place, Uint16Array),
    level: fromBase64(packed.value, Uint8Array),
    slot: fromBase64(packed.slot, packed.wide ? Uint32Array : Uint16Array),
    error: fromBase64(value.error, Float32Array),
    total: fromBase64(value.total, Float32Array),
    names: value.concepts.names,
    datasetMax: value.concepts.dataset_max ? fromBase64(value.concepts.dataset_max, Float32Array) : null,
    dense: new Set(value.concepts.dense),
    leading: value.leading || [],
  };
  const n = code.ids.length;
  code.byPlace = countingIndex(code.place, code.places);
  code.bySlot = countingIndex(code.slot, n);
  code.slotOf = new Map(Array.from(code.ids, (id, slot) => [id, slot]));
  return Object.assign(code, amountsOf(code, n));
}

// Of every concept: its maximum and mean over patches, and what it has in the summary token.
function amountsOf(code, n) {
  const found = { max: new Float32Array(n), mean: new Float32Array(n), summary: new Float32Array(n) };
  for (let i = 0; i < code.slot.length; i++) {
    const slot = code.slot[i];
    const amount = (code.level[i] / 255) * code.scale[slot];
    if (code.place[i] >= code.patches) {
      found.summary[slot] = amount;
      continue;
    }
    found.mean[slot] += amount / code.patches;
    if (amount > found.max[slot]) found.max[slot] = amount;
  }
  return found;
}

function ordered(slots, amounts) {
  slots.sort((a, b) => amounts[b] - amounts[a] || a - b);
  return slots;
}

// The concepts of the whole picture ("mean", "max" or "cls"): slots in order, and their amounts.
export function rankPicture(code, by) {
  const amounts = by === "cls" ? code.summary : by === "mean" ? code.mean : code.max;
  const slots = [];
  for (let slot = 0; slot < amounts.length; slot++) if (amounts[slot] > 0) slots.push(slot);
  return { slots: ordered(slots, amounts), amounts };
}

// The same for some patches: their union, by mean or by maximum.
export function rankPatches(code, patches, by) {
  const amounts = {};
  const slots = [];
  for (const patch of patches) {
    for (let i = code.byPlace.start[patch]; i < code.byPlace.start[patch + 1]; i++) {
      const at = code.byPlace.order[i];
      const slot = code.slot[at];
      const amount = (code.level[at] / 255) * code.scale[slot];
      if (amounts[slot] === undefined) {
        amounts[slot] = 0;
        slots.push(slot);
      }
      if (by === "mean") amounts[slot] += amount / patches.length;
      else if (amount > amounts[slot]) amounts[slot] = amount;
    }
  }
  return { slots: ordered(slots, amounts), amounts };
}

// One concept's activation in every patch.
export function mapOf(code, slot) {
  const map = new Float32Array(code.patches);
  if (slot === undefined) return map;
  for (let i = code.bySlot.start[slot]; i < code.bySlot.start[slot + 1]; i++) {
    const at = code.bySlot.order[i];
    if (code.place[at] < code.patches) map[code.place[at]] = (code.level[at] / 255) * code.scale[slot];
  }
  return map;
}

// How much of these places the concepts explain: 1 - sum of errors / sum of totals, as a share.
export function explained(code, places) {
  let error = 0;
  let total = 0;
  for (const place of places) {
    error += code.error[place];
    total += code.total[place];
  }
  return total > 0 ? Math.max(0, Math.min(1, 1 - error / total)) : 0;
}
