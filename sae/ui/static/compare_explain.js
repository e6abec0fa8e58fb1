// One picture through two heads: maps on one scale, predictions, and the margin concept by concept.

const HEADS = { zero_shot: "Zero-shot (as it is)", coop: "CoOp (learned words)", vpt: "VPT (learned patches)", maple: "MaPLe (both, coupled)", linear: "Linear probe" };
const headName = (name) => HEADS[name] || name;
const tableOfColours = fromBase64(props.setup.colours, Uint8Array);
const view = { found: null, off: new Set(), hover: -1, locked: -1, used: "all", shown: 12, before: null, picture: null };
const signed = (value) => { const text = Math.abs(value).toFixed(2); return (text === "0.00" ? "" : value > 0 ? "+" : "−") + text; };

function mapCodes(row, side) {
  const { codes, grid } = view.found, cells = grid[0] * grid[1];
  return codes.subarray((2 * row + side) * cells, (2 * row + side + 1) * cells);
}

function drawMaps() {
  const { found } = view, row = view.hover >= 0 ? view.hover : view.locked;
  for (const figure of root.querySelectorAll(".pl-one")) {
    const canvas = figure.querySelector("canvas"), side = Number(figure.dataset.side);
    canvas.width = found.grid[1]; canvas.height = found.grid[0];
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (row < 0) continue;
    const image = context.createImageData(canvas.width, canvas.height), codes = mapCodes(row, side);
    for (let i = 0; i < codes.length; i++) {
      const at = codes[i] * 3;
      image.data.set([tableOfColours[at], tableOfColours[at + 1], tableOfColours[at + 2], 95 + 130 * codes[i] / 255], i * 4);
    }
    context.putImageData(image, 0, 0);
    const [l, t, r, b] = found.box;
    Object.assign(canvas.style, { left: 100 * l + "%", top: 100 * t + "%", width: 100 * (r - l) + "%", height: 100 * (b - t) + "%" });
  }
  const concept = row >= 0 ? found.concepts[row] : null;
  setText(find(".pl-map-says"), concept ? rowName(concept) + ": strongest patch " + amountText(concept.activations[0]) + " and " + amountText(concept.activations[1]) + ", one scale for both" : "Point at a concept to see where it fires, in both.");
}

const rowName = (concept) => concept.name || "Concept " + concept.latent;

function drawGuesses() {
  const { found } = view, after = view.after;
  for (const list of root.querySelectorAll(".pl-guesses")) {
    const side = Number(list.dataset.side), plain = found.heads[side].predictions, now = after ? after.predictions[side] : plain;
    const was = new Map(plain.map((one) => [one.class, one.probability]));
    list.replaceChildren();
    for (const guess of now.slice(0, 5)) {
      const item = make("li", guess.class === view.label ? "pl-right" : ""), bar = make("span", "pl-guess-bar"), fill = make("i", side ? "pl-fill-b" : "pl-fill-a");
      fill.style.width = 100 * guess.probability + "%";
      bar.append(fill);
      if (after) { const ghost = make("em"); ghost.style.left = 100 * (was.get(guess.class) || 0) + "%"; ghost.title = "before"; bar.append(ghost); }
      item.append(make("span", "pl-guess", guess.class), bar, make("b", "", shareText(guess.probability)));
      list.append(item);
    }
  }
  const truth = view.label ? "The picture is of: " + view.label + "." : "Nobody has told what this picture is of; the heads know only the task's classes.";
  setText(find(".pl-truth"), truth + (after ? " With " + plural(view.off.size, "concept", "concepts") + " off; the thin mark is where it stood." : ""));
}

// The waterfall: concepts, then all others, then what concepts do not explain; it adds up to the margin.
function drawFall() {
  const { found } = view, box = find(".pl-fall"), pool = found.concepts.map((concept, row) => ({ concept, row })).filter(({ concept }) => view.used === "all" || concept.used_by === view.used);
  const listed = pool.slice(0, view.shown), heads = found.heads;
  const most = Math.max(1e-6, ...found.concepts.map((one) => Math.max(Math.abs(one.shares[0]), Math.abs(one.shares[1]))), ...heads.flatMap((head) => [Math.abs(head.residual)]));
  box.replaceChildren(fallHead());
  for (const { concept, row } of listed) box.append(conceptLine(concept, row, most));
  const rest = [0, 1].map((side) => heads[side].margin - heads[side].residual - listed.reduce((sum, { concept }) => sum + concept.shares[side], 0));
  box.append(sumLine("All other concepts", rest, most, "pl-rest"));
  box.append(sumLine("Not explained by concepts", heads.map((head) => head.residual), most, "pl-unexplained"));
  box.append(sumLine(found.classes ? "Margin" : "Match", heads.map((head) => head.margin), Math.max(most, ...heads.map((head) => Math.abs(head.margin))), "pl-total"));
  if (view.after) box.append(sumLine("… with those switched off", view.after.scores, Math.max(most, ...heads.map((head) => Math.abs(head.margin))), "pl-total"));
  const more = find(".pl-more");
  more.hidden = pool.length <= view.shown;
  setText(more, "Show " + Math.min(12, pool.length - view.shown) + " more of " + pool.length);
  find(".pl-all-on").hidden = !view.off.size;
  setText(find(".pl-why .pl-subtitle"), found.question.charAt(0).toUpperCase() + found.question.slice(1));
  setText(find(".pl-method"), (heads[0].exact && heads[1].exact ? "Shares are exact: from this layer on the path to the score is linear." : "Shares are integrated gradients through the layers behind the SAE; what is left over is shown as not explained.") + unexplainedParts(heads));
}

// What "not explained" is made of, in words.
function unexplainedParts(heads) {
  const of = (name) => heads.map((head) => signed(head.residual_parts[name])).join(" and ");
  const gap = heads.some((head) => Math.abs(head.residual_parts.gap) >= 0.005) ? ", and rounding of the integral " + of("gap") : "";
  return " It is what the head says with no concept at all (" + of("start") + "), what the SAE leaves out (" + of("error") + ")" + gap + ".";
}

function fallHead() {
  const line = make("div", "pl-fall-line pl-fall-head");
  line.setAttribute("role", "row");
  for (const text of ["", "Concept", headName(view.heads[0]), headName(view.heads[1])]) { const cell = make("span", "", text); cell.setAttribute("role", "columnheader"); line.append(cell); }
  return line;
}

function bars(shares, most) {
  return shares.map((share, side) => {
    const cell = make("span", "pl-fall-cell"), track = make("span", "pl-fall-track"), fill = make("i", side ? "pl-fill-b" : "pl-fill-a"), width = 50 * Math.min(1, Math.abs(share) / most);
    fill.style.width = width + "%";
    fill.style.left = (share < 0 ? 50 - width : 50) + "%";
    cell.setAttribute("role", "cell");
    track.append(fill);
    cell.append(track, make("b", "", signed(share)));
    return cell;
  });
}

function conceptLine(concept, row, most) {
  const line = make("div", "pl-fall-line"), on = make("input"), name = make("span", "pl-fall-name"), open = makeButton("pl-rack-name", rowName(concept), () => bus.card.open(concept.latent, open)), icon = make("img", "pl-mini");
  on.type = "checkbox";
  on.checked = !view.off.has(concept.latent);
  on.setAttribute("aria-label", "Keep " + rowName(concept) + " on");
  on.title = "Switch this concept off and ask both again";
  on.addEventListener("change", () => { if (on.checked) view.off.delete(concept.latent); else view.off.add(concept.latent); line.classList.toggle("pl-off", !on.checked); askOff(); });
  icon.alt = "";
  if (view.found.icons[concept.latent]) icon.src = view.found.icons[concept.latent];
  name.append(icon, open);
  const box = make("label", "pl-check");
  box.append(on);
  line.append(box, name, ...bars(concept.shares, most));
  line.setAttribute("role", "row");
  line.classList.toggle("pl-off", view.off.has(concept.latent));
  line.classList.toggle("pl-locked", view.locked === row);
  line.addEventListener("pointerenter", () => { view.hover = row; drawMaps(); bus.card.prefetch(concept.latent); });
  line.addEventListener("pointerleave", () => { view.hover = -1; drawMaps(); });
  line.addEventListener("focusin", () => { view.hover = row; drawMaps(); });
  line.addEventListener("click", (event) => { if (event.target.closest("input, button, label")) return; view.locked = view.locked === row ? -1 : row; drawFall(); drawMaps(); });
  return line;
}

function sumLine(text, shares, most, kind) {
  const line = make("div", "pl-fall-line pl-fall-sum " + kind);
  line.setAttribute("role", "row");
  line.append(make("span"), make("span", "pl-fall-name", text), ...bars(shares, most));
  return line;
}

// Hovering either picture shows, for the concept in view, the same patch in both.
for (const frame of root.querySelectorAll(".pl-one-frame")) {
  frame.addEventListener("pointermove", (event) => {
    if (!view.found) return;
    const area = frame.getBoundingClientRect(), [l, t, r, b] = view.found.box, [nRows, nColumns] = view.found.grid;
    const column = Math.floor(((event.clientX - area.left) / area.width - l) / (r - l) * nColumns), row = Math.floor(((event.clientY - area.top) / area.height - t) / (b - t) * nRows);
    if (row < 0 || column < 0 || row >= nRows || column >= nColumns) return;
    markPatch(row, column);
    const concept = view.hover >= 0 ? view.hover : view.locked;
    if (concept < 0) return;
    const at = row * nColumns + column, top = view.found.scale[concept] / 255, value = (side) => amountText(mapCodes(concept, side)[at] * top);
    setText(find(".pl-map-says"), rowName(view.found.concepts[concept]) + " in row " + (row + 1) + ", column " + (column + 1) + ": " + value(0) + " and " + value(1));
  });
  frame.addEventListener("pointerleave", () => { for (const mark of root.querySelectorAll(".pl-patch-mark")) mark.remove(); if (view.found) drawMaps(); });
}

function markPatch(row, column) {
  const [l, t, r, b] = view.found.box, [nRows, nColumns] = view.found.grid, w = (r - l) / nColumns, h = (b - t) / nRows;
  for (const frame of root.querySelectorAll(".pl-one-frame")) {
    const mark = frame.querySelector(".pl-patch-mark") || frame.appendChild(make("span", "pl-patch-mark"));
    Object.assign(mark.style, { left: 100 * (l + column * w) + "%", top: 100 * (t + row * h) + "%", width: 100 * w + "%", height: 100 * h + "%" });
  }
}
