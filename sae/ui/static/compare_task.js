// The whole task: accuracies, where the gain comes from, the scatter of counts, masking curves.

function drawAccuracies() {
  const task = taskNow(), box = find(".pl-accuracies"), table = make("table", "pl-table"), head = make("tr");
  for (const text of ["", "trained on", "new"]) { const cell = make("th", "", text); cell.scope = "col"; head.append(cell); }
  table.append(head);
  for (const one of task.heads) {
    const row = make("tr", view.heads.includes(one.name) ? "pl-chosen" : ""), name = make("th", "", headName(one.name)), accuracy = one.accuracy || {};
    name.scope = "row";
    row.append(name);
    for (const split of ["base", "novel"]) {
      const found = accuracy[split];
      row.append(make("td", "", found ? (100 * found.mean).toFixed(1) + (found.std ? " ± " + (100 * found.std).toFixed(1) : "") + " %" : "–"));
    }
    table.append(row);
  }
  box.replaceChildren(table);
}

async function drawTask() {
  drawAccuracies();
  const head = view.heads.find((name) => name !== "zero_shot"), whole = find(".pl-whole-subtitle");
  const answer = head ? await ask({ way: "task", task: view.task, head }) : null, results = answer && answer.results;
  for (const node of [".pl-scatter-box", ".pl-curves"]) find(node).parentElement.hidden = !results;
  find(".pl-gain").replaceChildren();
  if (!results) { setText(whole, head ? "No task-level results were made for this head." : "Choose a tuned head to see what it changed over the whole task."); scatter.points = []; return; }
  setText(whole, "Zero-shot against " + headName(head) + ", over " + results.base.gain.n_images + " test pictures");
  drawGain(results);
  scatter.names = answer.names;
  scatter.classes = results.base.scatter.class_names;
  scatter.points = results.base.scatter.points;
  drawScatter();
  drawCurves(results.masking, head);
}

function drawGain(results) {
  const { gain, overlap, correlation } = results.base, list = find(".pl-gain"), percent = (value) => (100 * value).toFixed(1) + " %";
  const line = (text) => list.append(make("li", "", text));
  line("From " + percent(gain.first) + " to " + percent(gain.second) + " on the classes trained on.");
  if (gain.remapped_share !== null) line("Reading the untouched activations with the tuned head reaches " + percent(gain.remapped) + ": " + Math.round(100 * gain.remapped_share) + " % of the gain.");
  if (gain.existing_share !== null) line("Keeping only concepts that fired before as well reaches " + percent(gain.existing) + ": " + Math.round(100 * gain.existing_share) + " % of the gain.");
  line("Per class, " + overlap.high.toFixed(1) + " concepts are frequent in both models, " + overlap.high_to_low.toFixed(2) + " only before, " + overlap.low_to_high.toFixed(2) + " only after.");
  line("Counts over all classes correlate at " + correlation.toFixed(3) + ".");
}

const scatter = { points: [], names: {}, classes: [], canvas: find(".pl-scatter"), low: 1, top: 2 };
const tipOfScatter = find(".pl-scatter-box .pl-tip");

// Counts on a logarithmic axis; what never fired in one of the models lies on its edge.
function place(count, size) { return 26 + (size - 40) * Math.max(0, Math.log(Math.max(count, 1e-9) / scatter.low) / Math.log(scatter.top / scatter.low)); }

function drawScatter() {
  const { canvas, points } = scatter, size = canvas.clientWidth;
  if (!size) return;
  canvas.width = canvas.height = size * devicePixelRatio;
  const counts = points.flatMap((point) => [point[2], point[3]]).filter((count) => count > 0);
  scatter.top = Math.max(2, ...counts);
  scatter.low = Math.min(scatter.top / 2, ...counts) / 1.15;
  const context = canvas.getContext("2d"), styles = getComputedStyle(root), soft = styles.getPropertyValue("--pl-soft");
  context.scale(devicePixelRatio, devicePixelRatio);
  context.strokeStyle = styles.getPropertyValue("--pl-line");
  context.beginPath();
  context.moveTo(26, size - 26); context.lineTo(size - 14, 14);
  context.moveTo(26, 10); context.lineTo(26, size - 26); context.lineTo(size - 10, size - 26);
  context.stroke();
  for (const [, , first, second] of points) {
    const more = second > first, even = Math.abs(second - first) <= 0.25 * Math.max(first, second);
    context.beginPath();
    context.arc(place(first, size), size - place(second, size), 3, 0, 7);
    context.fillStyle = even ? soft : more ? "#d55e00" : "#0072b2";
    context.globalAlpha = even ? 0.35 : 0.8;
    context.fill();
  }
  context.globalAlpha = 1;
  context.fillStyle = soft;
  context.font = "11px system-ui, sans-serif";
  context.fillText("count, first (log)", size - 104, size - 10);
  context.save();
  context.translate(14, 110); context.rotate(-Math.PI / 2);
  context.fillText("count, second (log)", 0, 0);
  context.restore();
  canvas.setAttribute("aria-label", points.length + " concepts by class: how often they fire in the first and the second model");
}

function scatterPick(event) {
  const area = scatter.canvas.getBoundingClientRect(), x = event.clientX - area.left, y = event.clientY - area.top;
  let best = null, nearest = 144;
  for (const point of scatter.points) {
    const far = (place(point[2], area.width) - x) ** 2 + (area.width - place(point[3], area.width) - y) ** 2;
    if (far < nearest) { nearest = far; best = point; }
  }
  return best;
}
scatter.canvas.addEventListener("pointermove", (event) => {
  const point = scatterPick(event);
  tipOfScatter.hidden = !point;
  if (!point) return;
  const size = scatter.canvas.clientWidth;
  setText(tipOfScatter, (scatter.names[point[1]] || "Concept " + point[1]) + " in “" + scatter.classes[point[0]] + "”: " + point[2] + " → " + point[3]);
  tipOfScatter.style.left = Math.max(90, Math.min(size - 90, place(point[2], size))) + "px";
  tipOfScatter.style.top = size - place(point[3], size) + 12 + "px";
});
scatter.canvas.addEventListener("pointerleave", () => { tipOfScatter.hidden = true; });
scatter.canvas.addEventListener("click", (event) => { const point = scatterPick(event); if (point) bus.card.open(point[1], scatter.canvas); });
new ResizeObserver(() => { if (scatter.points.length) drawScatter(); }).observe(scatter.canvas);

const FAMILIES = [["oracle", "true class (oracle)"], ["predicted", "predicted class"], ["dataset", "whole data set's"], ["random", "random"]];
const DASHES = ["", "6 4", "2 3", "8 3 2 3"], SHADES = ["#0072b2", "#d55e00", "#009e73", "#7f7f7f"];
const SVG = "http://www.w3.org/2000/svg";
function svg(name, attributes) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

function drawCurves(masking, head) {
  const box = find(".pl-curves");
  box.replaceChildren();
  for (const name of ["zero_shot", head]) {
    const found = masking && masking[name];
    if (!found) continue;
    box.append(make("h4", "pl-curve-title", headName(name)), curveOf(found));
  }
  const legend = make("ul", "pl-curve-legend");
  FAMILIES.forEach(([, text], i) => { const item = make("li"), line = svg("svg", { viewBox: "0 0 26 6", width: 26, height: 6 }); line.append(svg("line", { x1: 0, x2: 26, y1: 3, y2: 3, stroke: SHADES[i], "stroke-width": 2.5, "stroke-dasharray": DASHES[i] })); item.append(line, text); legend.append(item); });
  box.append(legend);
}

function curveOf(found) {
  const width = 360, height = 128, left = 42, bottom = 22, plot = svg("svg", { viewBox: "0 0 " + width + " " + height, class: "pl-curve", role: "img" });
  const last = Math.log(found.ks[found.ks.length - 1]), x = (k) => left + (width - left - 8) * Math.log(k) / last, y = (value) => 8 + (height - bottom - 8) * (1 - value);
  plot.setAttribute("aria-label", FAMILIES.map(([key, text]) => text + ": " + found.ks.map((k, i) => "top " + k + " " + shareText((found.curves[key + "/none/on"] || [])[i] || 0)).join(", ")).join("; "));
  plot.append(svg("line", { x1: left, x2: width - 8, y1: y(found.plain), y2: y(found.plain), class: "pl-curve-plain" }));
  for (const value of [0, 0.5, 1]) { const label = svg("text", { x: left - 5, y: y(value) + 4, "text-anchor": "end" }); label.textContent = 100 * value + " %"; plot.append(label); }
  for (const k of [found.ks[0], found.ks[Math.floor(found.ks.length / 2)], found.ks[found.ks.length - 1]]) { const label = svg("text", { x: x(k), y: height - 6, "text-anchor": k === found.ks[0] ? "start" : k === found.ks[found.ks.length - 1] ? "end" : "middle" }); label.textContent = "top " + k; plot.append(label); }
  FAMILIES.forEach(([key], i) => {
    const values = found.curves[key + "/none/on"];
    if (values) plot.append(svg("polyline", { points: found.ks.map((k, n) => x(k) + "," + y(values[n])).join(" "), fill: "none", stroke: SHADES[i], "stroke-width": 2.2, "stroke-dasharray": DASHES[i] }));
  });
  return plot;
}
