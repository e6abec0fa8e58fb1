// The table beside the map: what was searched for, fenced in or filtered, in the order one likes.

const list = { kept: new Uint8Array(0), fenced: null, found: null, scores: null, order: [], by: "frequency", down: true, shown: 40, shownFirst: -1 };
const STEP = 40;
const tableHead = find(".pl-table thead tr"), tableBody = find(".pl-table tbody");
const filters = Object.fromEntries([...root.querySelectorAll("[data-filter]")].map((box) => [box.dataset.filter, box]));
const tableRows = [];

function layHead() {
  tableHead.replaceChildren();
  for (const [key, word, help] of COLUMNS) {
    if (key === "score" ? !list.scores : key !== "name" && !all.figures[key]) continue;
    const cell = make("th"), button = makeButton("pl-sort", word, () => sortBy(key));
    cell.scope = "col";
    cell.title = help;
    cell.setAttribute("aria-sort", list.by === key ? (list.down ? "descending" : "ascending") : "none");
    cell.append(button);
    tableHead.append(cell);
  }
}

function sortBy(key) {
  list.down = list.by === key ? !list.down : key !== "name" && key !== "entropy";
  list.by = key;
  fillTable();
  writeLatentsLink();
}

// Which concepts pass the filters, and of these which are listed.
function filterAll() {
  if (list.kept.length !== all.n) list.kept = new Uint8Array(all.n);
  const here = filters.here.checked && bus.picture ? new Set(bus.picture.code.ids) : null;
  for (let i = 0; i < all.n; i++) {
    list.kept[i] = !(filters.named.checked && !all.names[i] || filters.alive.checked && all.dead[i]
      || filters.selective.checked && all.dense[i] || here && !here.has(i)) ? 1 : 0;
  }
}

function fillTable() {
  const pool = list.found || (list.fenced ? [...list.fenced] : null);
  let chosen = [];
  if (pool) chosen = pool.filter((latent) => list.kept[latent] && (!list.found || !list.fenced || list.fenced.has(latent)));
  else for (let i = 0; i < all.n; i++) if (list.kept[i]) chosen.push(i);
  if (list.by !== "score" || !list.found) sortLatents(chosen);
  list.order = chosen;
  layHead();
  const n = Math.min(chosen.length, list.shown);
  for (let i = 0; i < n; i++) fillTableRow(tableRows[i] || makeTableRow(), chosen[i]);
  for (let i = n; i < tableRows.length; i++) tableRows[i].row.hidden = true;
  const more = find(".pl-more"), empty = find(".pl-empty");
  more.hidden = chosen.length <= n;
  setText(more, "Show more of " + chosen.length.toLocaleString("en"));
  empty.hidden = n > 0;
  setText(empty, n ? "" : "No concept fits. Take away a filter, or search for something else.");
  sayWhat(chosen.length);
  bus.askIcons(server, chosen.slice(0, n));
  showRowIcons();
}

function sortLatents(chosen) {
  const sign = list.down ? -1 : 1, by = list.by === "score" ? "frequency" : list.by;
  if (by === "name") chosen.sort((a, b) => sign * (all.names[a] === "") - sign * (all.names[b] === "") || sign * wordFor(a).localeCompare(wordFor(b)) || a - b);
  else {
    const values = all.figures[by].values, worst = list.down ? -Infinity : Infinity;
    const key = (latent) => Number.isFinite(values[latent]) ? values[latent] : worst;
    chosen.sort((a, b) => sign * (key(a) - key(b)) || a - b);
  }
}

function sayWhat(count) {
  const { found, fenced } = list;
  setText(find(".pl-title"), found ? "Found" : fenced ? "Inside the lasso" : "All concepts");
  setText(find(".pl-subtitle"), plural(count.toLocaleString("en"), "concept", "concepts").replace(/^1 concepts/, "1 concept") + (found && list.how ? " · " + list.how : ""));
  const drop = find(".pl-drop-lasso");
  drop.hidden = !fenced;
  setText(drop, fenced ? "Lasso: " + fenced.size.toLocaleString("en") + " ×" : "");
}

function makeTableRow() {
  const row = make("tr", "pl-table-row"), one = { row, latent: -1 };
  row.tabIndex = 0;
  row.addEventListener("click", () => bus.card.open(one.latent, row));
  row.addEventListener("pointerenter", () => { atlas.hover = one.latent; drawLit(); bus.card.prefetch(one.latent); });
  row.addEventListener("pointerleave", () => { atlas.hover = -1; drawLit(); bus.card.prefetch(null); });
  row.addEventListener("focus", () => { atlas.hover = one.latent; drawLit(); });
  row.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); bus.card.open(one.latent, row); }
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key], next = step && tableRows[tableRows.indexOf(one) + step];
    if (!step) return;
    event.preventDefault();
    if (next && !next.row.hidden) next.row.focus(); else if (step < 0) find(".pl-search input").focus();
  });
  tableBody.append(row);
  tableRows.push(one);
  return one;
}

function fillTableRow(one, latent) {
  one.latent = latent;
  const { row } = one, name = make("th", "pl-cell-name"), icon = make("img", "pl-mini"), words = make("span", all.names[latent] ? "" : "pl-soft", wordFor(latent));
  icon.alt = "";
  name.scope = "row";
  one.icon = icon;
  name.append(icon, words);
  if (all.names[latent]) name.append(make("small", "pl-number", "#" + latent));
  row.replaceChildren(name);
  row.hidden = false;
  for (const [key] of COLUMNS.slice(1)) {
    if (key === "score" ? !list.scores : !all.figures[key]) continue;
    const value = key === "score" ? list.scores.get(latent) : figureOf(key, latent);
    row.append(make("td", "", key === "score" ? (value === undefined ? "name" : value.toFixed(2)) : figureText(key, value)));
  }
}

function showRowIcons() {
  for (const { row, icon, latent } of tableRows) {
    const picture = bus.icons.get(latent);
    if (!row.hidden && picture && icon.src !== picture) { icon.src = picture; icon.classList.add("pl-has"); }
  }
}

bus.on("icons", showRowIcons);

function takeFence() {
  const inside = new Set();
  if (atlas.fence.length > 3) for (let i = 0; i < all.n; i++) if (list.kept[i] && insideFence(i)) inside.add(i);
  if (!inside.size) { dropFence(); return; }
  list.fenced = inside;
  list.shown = STEP;
  fillTable();
  drawLit();
  say(plural(inside.size, "concept", "concepts") + " inside the lasso");
}

function dropFence() {
  atlas.fence = null;
  list.fenced = null;
  fillTable();
  drawLit();
}
find(".pl-drop-lasso").addEventListener("click", dropFence);
find(".pl-more").addEventListener("click", () => { list.shown += 3 * STEP; fillTable(); });
