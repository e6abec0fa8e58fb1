// The Latents tab: opens the data, searches, and keeps map, table and address bar together.

const field = find(".pl-search input"), LATENTS_KEYS = ["q", "sort"];
let searchTurn = 0, searchWait = 0;

function writeLatentsLink() {
  const pairs = [], text = field.value.trim();
  if (text) pairs.push(["q", encodeURIComponent(text)]);
  if (list.by !== "frequency" || !list.down) pairs.push(["sort", list.by + (list.down ? "" : "~up")]);
  writeQuery(LATENTS_KEYS, pairs);
}

function showFound(found, scores, how) {
  Object.assign(list, { found, scores, how, shown: STEP, shownFirst: found && found.length ? found[0] : -1 });
  if (found) list.by = "score"; else if (list.by === "score") Object.assign(list, { by: "frequency", down: true });
  fillTable();
  drawLit();
}

// Names answer at once, in the browser; meaning follows from the server and is merged behind them.
function searchText() {
  const text = field.value, turn = ++searchTurn;
  clearTimeout(searchWait);
  writeLatentsLink();
  if (!text.trim()) { showFound(null, null, ""); return; }
  const local = localMatches(text);
  showFound(local, null, "by name");
  if (!props.setup.by_meaning || /^#?\d+$/.test(text.trim())) return;
  searchWait = setTimeout(async () => {
    const answer = await askServer({ text });
    if (turn !== searchTurn || !answer) return;
    const scores = new Map(answer.found), names = new Set(local);
    showFound([...local, ...answer.found.map(([latent]) => latent).filter((latent) => !names.has(latent))], scores, "by name, then by meaning");
    say(plural(list.order.length, "concept", "concepts") + " found");
  }, 150);
}

async function askServer(wanted) {
  try {
    const answer = await server.find(wanted);
    if (answer.problem) { notice(answer.problem, "problem"); return null; }
    return answer;
  } catch { notice("The search could not be answered. Try again.", "problem"); return null; }
}

async function searchLike(patches) {
  const turn = ++searchTurn;
  notice([]);
  field.value = "";
  root.dataset.state = "busy";
  const answer = await askServer({ picture: bus.picture.request, patches });
  root.dataset.state = "ready";
  if (turn !== searchTurn || !answer) return;
  showFound(answer.found.map(([latent]) => latent), new Map(answer.found), patches ? "like the chosen patches" : "like the picture");
}

function offerPicture() {
  const { picture } = bus, patches = picture ? picture.patches() : [];
  find(".pl-like-picture").hidden = !props.setup.by_picture;
  find(".pl-like-region").hidden = !props.setup.by_picture;
  find(".pl-like-picture").disabled = !picture || !picture.request;
  find(".pl-like-region").disabled = !picture || !picture.request || !patches.length;
}

function layColours() {
  const choice = find(".pl-colour-by");
  const offers = [["", "one colour"], ["entropy", "label spread"], ["monosemanticity", "same look (monosemanticity)"], ["confidence", "fit of the name"], ["steerability", "steerability"]];
  for (const [key, word] of offers) if (!key || all.figures[key]) { const one = make("option", "", word); one.value = key; choice.append(one); }
  choice.value = atlas.colour = all.figures.entropy ? "entropy" : "";
  choice.addEventListener("change", () => { atlas.colour = choice.value; drawDots(); layLegend(); });
  layLegend();
}

function layLegend() {
  const figure = all.figures[atlas.colour], ramp = find(".pl-ramp"), context = ramp.getContext("2d"), image = context.createImageData(128, 1);
  find(".pl-legend").hidden = !figure;
  if (!figure) return;
  for (let i = 0; i < 128; i++) image.data.set([...colours.subarray(i * 6, i * 6 + 3), 255], i * 4);
  context.putImageData(image, 0, 0);
  setText(find(".pl-legend-low"), figureText(atlas.colour, figure.low));
  setText(find(".pl-legend-high"), figureText(atlas.colour, figure.high));
}

function refresh() {
  if (!all.n) return;
  offerPicture();
  filterAll();
  fillTable();
  drawDots();
}

// A link of this tab: ?tab=latents&q=…&sort=…; anything it does not know is left out.
function followLatentsLink() {
  const query = new URLSearchParams(bus.opened), [by, way] = (query.get("sort") || "").split("~");
  if (by && (by === "name" || all.figures[by] && COLUMNS.some(([key]) => key === by))) Object.assign(list, { by, down: way !== "up" });
  field.value = (query.get("q") || "").slice(0, 200);
  if (field.value) searchText();
}

// A browser compiles the drawing loop after a few rounds: let it do so before anybody moves the map.
function drawWhileIdle(rounds) {
  const idle = window.requestIdleCallback || ((act) => setTimeout(act, 50));
  if (rounds) idle(() => { drawDots(); drawWhileIdle(rounds - 1); });
}

async function openLatents() {
  if (!props.setup.has_index) {
    root.dataset.state = "empty";
    notice("This SAE has no concept index yet, so there is no map. Build one: python training/index.py --sae DIR --data DIR");
    find(".pl-main").hidden = true;
    find(".pl-find").hidden = true;
    return;
  }
  try { takeFigures(await server.latents()); } catch {
    root.dataset.state = "empty";
    notice("The map could not be fetched. Reload the page to try again.", "problem");
    return;
  }
  root.dataset.state = "ready";
  placeDots();
  filterAll();
  layColours();
  const alive = all.n - all.dead.reduce((sum, flag) => sum + flag, 0);
  plane.setAttribute("aria-label", alive.toLocaleString("en") + " living concepts by how often and how strongly they fire; the table beside it lists them");
  fitPlane();
  fillTable();
  offerPicture();
  followLatentsLink();
  performance.mark("patchlens-map-ready");
  drawWhileIdle(4);
  bus.receive("latents", ({ concept }) => { field.value = "#" + concept; searchText(); });
}

showHand(hand);
plane.dataset.hand = hand;
field.placeholder = props.setup.by_meaning ? "Search by name, number or meaning: tiger, striped, #1203 …" : "Search by name or number: tiger, #1203 …";
field.addEventListener("input", searchText);
field.addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown" && tableRows[0] && !tableRows[0].row.hidden) { event.preventDefault(); tableRows[0].row.focus(); }
  if (event.key === "Escape") { field.value = ""; searchText(); }
});
find(".pl-like-picture").addEventListener("click", () => searchLike(null));
find(".pl-like-region").addEventListener("click", () => searchLike(bus.picture.patches()));
for (const box of Object.values(filters)) box.addEventListener("change", refresh);
find(".pl-light").addEventListener("change", drawDots);
find(".pl-notice-close").addEventListener("click", () => notice([]));
setText(find(".pl-keys"), "Point at a dot to see what it is, click it for its card. Drag around dots to list them; the wheel zooms. / jumps to the search.");
bus.on("picture", refresh);
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest && event.target.closest("input, textarea, select, [contenteditable]");
  if (event.key !== "/" || typing || !root.isConnected || root.offsetParent === null || bus.card.isOpen()) return;
  event.preventDefault();
  field.focus();
});
new IntersectionObserver((entries) => { if (entries.some((entry) => entry.isIntersecting)) offerPicture(); }).observe(root);
openLatents();
