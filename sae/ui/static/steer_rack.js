// The rack: one row a concept, with its dose in multiples of its own maximum.

const rackNode = find(".pl-rack"), rackRows = new Map();
const nameOfConcept = (latent) => (known.get(latent) || {}).name || "Concept " + latent;
const doseText = (dose) => (dose > 0 ? "+" : dose < 0 ? "−" : "") + Math.abs(dose).toFixed(2).replace(/\.?0+$/, "") + " ×";

async function learn(latents) {
  const missing = [...new Set(latents)].filter((latent) => !known.has(latent));
  if (!missing.length) return;
  try {
    const answer = await server.ask({ way: "suggest", latents: missing });
    for (const about of answer.found || []) known.set(about.latent, about);
  } catch { return; }
  drawRack();
}

function drawRack() {
  const wanted = new Set(rackState.rows.map((row) => row.latent));
  for (const [latent, made] of rackRows) if (!wanted.has(latent)) { made.item.remove(); rackRows.delete(latent); }
  for (const row of rackState.rows) {
    const made = rackRows.get(row.latent) || makeRackRow(row.latent);
    fillRackRow(made, row);
    rackNode.append(made.item);
  }
  const empty = find(".pl-rack-empty");
  empty.hidden = rackState.rows.length > 0;
  setText(empty, "Nothing is turned yet. Take a concept from the list below, or search for one.");
  find(".pl-undo").disabled = !past.length;
  find(".pl-redo").disabled = !future.length;
}

const rowOf = (latent) => rackState.rows.find((row) => row.latent === latent);

function makeRackRow(latent) {
  const item = make("li", "pl-rack-row"), on = make("input"), icon = make("img", "pl-mini"), name = makeButton("pl-rack-name", "", () => bus.card.open(latent, name));
  const slider = make("input", "pl-dose"), number = make("input", "pl-dose-number pl-input"), raw = make("small", "pl-raw");
  const where = make("select", "pl-where pl-input"), away = makeButton("pl-quiet pl-remove", "×", () => changeRack((rows) => rows.filter((row) => row.latent !== latent)));
  on.type = "checkbox";
  slider.type = "range"; slider.min = -LIMIT; slider.max = LIMIT; slider.step = LIMIT / 60;
  number.type = "number"; number.min = -MOST; number.max = MOST; number.step = LIMIT / 30;
  icon.alt = "";
  for (const [value, word] of [["all", "everywhere"], ["region", "chosen patches"], ["only", "chosen patches, nothing else there"], ["patches", "all patches"], ["cls", "summary token"]]) {
    if (value === "cls" && !props.setup.has_summary) continue;
    const option = make("option", "", word);
    option.value = value;
    where.append(option);
  }
  on.addEventListener("change", () => changeRow(latent, { on: on.checked }));
  slider.addEventListener("input", () => changeRow(latent, { strength: Math.abs(slider.value) < LIMIT / 38 ? 0 : Number(slider.value) }));
  number.addEventListener("change", () => { const dose = Math.max(-MOST, Math.min(MOST, Number(number.value) || 0)); changeRow(latent, { strength: dose }); });
  where.addEventListener("change", () => changeRow(latent, { where: where.value }));
  const top = make("div", "pl-rack-top"), bottom = make("div", "pl-rack-bottom"), switchBox = make("label", "pl-check");
  switchBox.append(on);
  top.append(switchBox, icon, name, where, away);
  bottom.append(slider, number, raw);
  item.append(top, bottom);
  const made = { item, on, icon, name, slider, number, raw, where, away };
  rackRows.set(latent, made);
  return made;
}

function fillRackRow(made, row) {
  const about = known.get(row.latent) || {}, label = nameOfConcept(row.latent);
  made.item.classList.toggle("pl-off", !row.on);
  made.on.checked = row.on;
  made.on.setAttribute("aria-label", "Switch " + label + " on or off");
  setText(made.name, label);
  made.name.title = "Open the card of concept " + row.latent;
  made.slider.setAttribute("aria-label", "Dose of " + label + ", in multiples of its maximum");
  made.slider.setAttribute("aria-valuetext", doseText(row.strength));
  if (document.activeElement !== made.slider || Number(made.slider.value) !== row.strength) made.slider.value = row.strength;
  if (document.activeElement !== made.number) made.number.value = row.strength;
  made.number.setAttribute("aria-label", "Dose of " + label + " as a number");
  setText(made.raw, about.maximum ? "× max = " + (row.strength * about.maximum).toFixed(2) : props.setup.has_index ? "× max" : "raw");
  made.where.value = row.where;
  made.where.setAttribute("aria-label", "Where " + label + " is changed");
  made.away.setAttribute("aria-label", "Remove " + label);
  made.icon.hidden = !about.icon;
  if (about.icon && made.icon.src !== about.icon) made.icon.src = about.icon;
}

function changeRow(latent, change) {
  const row = rowOf(latent);
  if (!row) return;
  Object.assign(row, change);
  keep(latent);
  changed();
}

function changeRack(act) {
  rackState.rows = act(rackState.rows);
  keep();
  changed();
}

function addConcept(latent, strength) {
  if (rowOf(latent)) { const made = rackRows.get(latent); if (made) made.slider.focus(); return; }
  if (rackState.rows.length >= 24) { notice("The rack holds 24 concepts; remove one first."); return; }
  learn([latent]);
  changeRack((rows) => [...rows, newRow(latent, strength)]);
  say("Added " + nameOfConcept(latent));
}

find(".pl-undo").addEventListener("click", () => { travel(past, future); changed(); });
find(".pl-redo").addEventListener("click", () => { travel(future, past); changed(); });

// Adding: what fires in the picture when the field is empty, matches while one types.
const adder = find(".pl-add"), suggestions = find(".pl-suggestions");
let suggestTurn = 0, suggestWait = 0, marked = -1;
adder.placeholder = "Add a concept: name or number, or take one from the picture";

function showSuggestions(found, lead) {
  suggestions.replaceChildren();
  marked = -1;
  if (lead) suggestions.append(make("li", "pl-suggestion-lead", lead));
  for (const about of found) {
    known.set(about.latent, { ...known.get(about.latent), ...about });
    const item = make("li", "pl-suggestion"), icon = make("img", "pl-mini");
    item.setAttribute("role", "option");
    icon.alt = "";
    if (about.icon) icon.src = about.icon;
    item.append(icon, make("span", "", nameOfConcept(about.latent)), make("small", "pl-number", "#" + about.latent));
    item.addEventListener("pointerdown", (event) => { event.preventDefault(); takeSuggestion(about.latent); });
    item.dataset.latent = about.latent;
    suggestions.append(item);
  }
  suggestions.hidden = !suggestions.children.length;
  adder.setAttribute("aria-expanded", String(!suggestions.hidden));
}

function takeSuggestion(latent) {
  adder.value = "";
  showSuggestions([]);
  addConcept(latent, 1);
}

function suggest() {
  clearTimeout(suggestWait);
  const text = adder.value.trim(), turn = ++suggestTurn;
  suggestWait = setTimeout(async () => {
    const asked = text ? { way: "suggest", text } : { way: "suggest", latents: strongestHere(10) };
    let answer;
    try { answer = await server.ask(asked); } catch { return; }
    if (turn !== suggestTurn || document.activeElement !== adder) return;
    const found = answer.found || [];
    showSuggestions(found, found.length ? (text ? "" : "Strongest in this picture") : "No concept is called that. Try its number, or look in the Latents tab.");
  }, text ? 90 : 0);
}

function strongestHere(n) {
  if (!bus.picture) return [];
  const { code } = bus.picture, slots = [...code.ids.keys()].filter((slot) => !code.dense.has(slot));
  return slots.sort((a, b) => code.max[b] - code.max[a]).slice(0, n).map((slot) => code.ids[slot]);
}

adder.addEventListener("focus", suggest);
adder.addEventListener("input", suggest);
adder.addEventListener("blur", () => showSuggestions([]));
adder.addEventListener("keydown", (event) => {
  const items = [...suggestions.querySelectorAll("[data-latent]")];
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step && items.length) {
    event.preventDefault();
    marked = (marked + step + items.length) % items.length;
    items.forEach((item, i) => item.setAttribute("aria-selected", String(i === marked)));
  }
  if (event.key === "Enter" && items.length) takeSuggestion(Number(items[Math.max(0, marked)].dataset.latent));
  if (event.key === "Escape") { adder.value = ""; adder.blur(); }
});
