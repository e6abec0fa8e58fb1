// The Steer tab: joins picture, rack and answers; asks the server; keeps the address bar.

const promptField = find(".pl-prompt");
let ticket = 0, writing = false, nextTurn = 0, nextWait = 0, writeWait = 0, asking = false;

const patchesNow = () => bus.picture ? bus.picture.patches() : [];
const question = () => ({ picture: bus.picture && bus.picture.request, steer: steerRequest(patchesNow()) });

// After every change: draw at once, ask for the next word soon, write the texts a little later.
function changed() {
  drawRack();
  drawPrompts();
  drawMarks();
  writeSteerLink();
  if (!bus.picture || !bus.picture.request || root.offsetParent === null) return;
  clearTimeout(nextWait);
  clearTimeout(writeWait);
  nextWait = setTimeout(askNext, 60);
  writeWait = setTimeout(write, 380);
}

async function ask(wanted) {
  if (!bus.picture) { notice("The picture is still on its way. Try again in a moment."); return null; }
  try {
    const answer = await server.ask(wanted);
    if (!answer.problem) return answer;
    notice(answer.problem, "problem");
  } catch { notice("The server did not answer. Try again, or reload the page.", "problem"); }
  return null;
}

async function askNext() {
  const turn = ++nextTurn;
  if (asking) return;
  asking = true;
  const answer = await ask({ way: "next", start: find(".pl-start").value, ...question() });
  asking = false;
  if (turn !== nextTurn) { askNext(); return; }
  if (!answer) return;
  notice([]);
  drawNext(answer);
  setText(find(".pl-python"), answer.python);
  performance.mark("patchlens-next");
}

function write() {
  if (!bus.picture || !bus.picture.request) return;
  if (writing) trigger("halt", {});
  ticket += 1;
  writing = true;
  find(".pl-stop").disabled = false;
  find(".pl-answers").classList.add("pl-writing");
  trigger("write", { ticket, ...question() });
}

function stopped() {
  writing = false;
  find(".pl-stop").disabled = true;
  find(".pl-answers").classList.remove("pl-writing");
}

function take(value) {
  if (!value || value.ticket !== ticket) return;
  if (value.problem) { stopped(); notice(value.problem, "problem"); return; }
  if (value.ended) { stopped(); if (shown.steered) performance.mark("patchlens-written"); return; }
  drawAnswers(value, { writing: !value.done });
  if (value.done) { stopped(); say("Steered text: " + shown.steered); performance.mark("patchlens-written"); }
}

function drawPrompts() {
  if (document.activeElement !== promptField) promptField.value = rackState.prompt;
  for (const chip of root.querySelectorAll(".pl-prompt-chip")) chip.setAttribute("aria-pressed", String(chip.dataset.prompt === rackState.prompt));
  find(".pl-error-term").checked = rackState.errorTerm;
}

// An answer to "describe" begins with "a": what comes after it is the word worth looking at.
const startFor = (prompt) => prompt === PROMPTS[0] ? "a" : "";
find(".pl-start").addEventListener("change", askNext);

function setPrompt(text) {
  if (!text.trim()) return;
  find(".pl-start").value = startFor(text);
  rackState.prompt = text;
  keep("prompt");
  changed();
}

function drawSubject() {
  const { picture } = bus;
  if (!picture) return;
  const photo = find(".pl-subject-photo");
  photo.src = picture.value.picture.src;
  photo.alt = picture.value.picture.alt;
  for (const button of root.querySelectorAll(".pl-subject-example")) button.setAttribute("aria-pressed", String(picture.source.kind === "example" && button.dataset.name === picture.source.name));
  photo.decode().then(drawMarks, () => {});
}

// The chosen patches, outlined on the small picture.
function drawMarks() {
  const canvas = find(".pl-subject-marks"), photo = find(".pl-subject-photo"), context = canvas.getContext("2d");
  canvas.width = photo.clientWidth * devicePixelRatio || 1;
  canvas.height = photo.clientHeight * devicePixelRatio || 1;
  const patches = patchesNow(), uses = rackState.rows.some((row) => ofRegion(row));
  if (!bus.picture || !patches.length || !uses) return;
  const { code, value } = bus.picture, [l, t, r, b] = value.box, w = (r - l) * canvas.width / code.columns, h = (b - t) * canvas.height / code.rows;
  context.strokeStyle = "#fff"; context.lineWidth = 1.5 * devicePixelRatio;
  context.fillStyle = "rgba(242,197,0,.35)";
  for (const patch of patches) {
    const x = l * canvas.width + (patch % code.columns) * w, y = t * canvas.height + Math.floor(patch / code.columns) * h;
    context.fillRect(x, y, w, h);
    context.strokeRect(x, y, w, h);
  }
}

function layPrompts() {
  for (const prompt of PROMPTS) {
    const chip = makeButton("pl-chip pl-prompt-chip", prompt, () => setPrompt(prompt));
    chip.dataset.prompt = prompt;
    find(".pl-prompts").append(chip);
  }
  for (const example of props.setup.examples) {
    const button = makeButton("pl-subject-example"), art = make("img");
    art.src = example.thumbnail; art.alt = example.title;
    button.title = example.title;
    button.dataset.name = example.name;
    button.append(art);
    button.addEventListener("click", () => bus.send("lens", { kind: "example", data: example.name }));
    find(".pl-subject-strip").append(button);
  }
  find(".pl-subject-strip").append(makeButton("pl-quiet", "Your own picture …", () => bus.goTo("concepts")));
}

function layPresets() {
  const box = find(".pl-presets");
  box.hidden = !props.setup.presets.length;
  props.setup.presets.forEach((preset) => {
    const chip = makeButton("pl-chip", preset.title, () => tryPreset(preset));
    chip.append(make("small", "pl-recorded", "recorded"));
    box.append(chip);
  });
}

// A preset shows its recorded answer at once, then the live one.
function tryPreset(preset) {
  rackState.prompt = preset.prompt;
  find(".pl-start").value = startFor(preset.prompt);
  rackState.rows = preset.edits.map((edit) => ({ ...newRow(edit.latent, edit.strength), mode: edit.mode || "set", where: (edit.scope || {}).where || "all" }));
  keep();
  learn(rackState.rows.map((row) => row.latent));
  drawAnswers(preset.recorded, { recorded: true });
  const patches = preset.edits.map((edit) => (edit.scope || {}).patches).find(Boolean);
  if (!patches && bus.picture && bus.picture.source.name === preset.example) changed();
  else { drawRack(); bus.send("lens", { kind: "example", data: preset.example, patches }); }
}

function applyRecipe(recipe) {
  const rack = readRack(recipe.steer, props.setup.d_sae);
  rackState.rows = rack;
  if (typeof recipe.ask === "string" && recipe.ask.trim()) rackState.prompt = recipe.ask.slice(0, 2000);
  rackState.errorTerm = recipe.keep !== "0";
  kept = snapshot();
  learn(rack.map((row) => row.latent));
}

promptField.addEventListener("change", () => setPrompt(promptField.value));
promptField.addEventListener("keydown", (event) => { if (event.key === "Enter") setPrompt(promptField.value); });
find(".pl-error-term").addEventListener("change", (event) => { rackState.errorTerm = event.target.checked; keep(); changed(); });
find(".pl-limit").addEventListener("change", (event) => { rackState.limit = Math.max(1, Math.min(256, Math.round(Number(event.target.value)) || 48)); event.target.value = rackState.limit; changed(); });
find(".pl-write").addEventListener("click", () => { clearTimeout(writeWait); write(); });
find(".pl-stop").addEventListener("click", () => { trigger("halt", {}); stopped(); setText(find(".pl-answers .pl-subtitle"), "Stopped; the text so far is kept."); });
find(".pl-copy").addEventListener("click", (event) => copyLink(event.currentTarget));
find(".pl-notice-close").addEventListener("click", () => notice([]));
find(".pl-copy-python").addEventListener("click", async (event) => { try { await navigator.clipboard.writeText(find(".pl-python").textContent); setText(event.target, "Copied"); setTimeout(() => setText(event.target, "Copy Python"), 1500); } catch { notice("Select the code above and copy it."); } });

find(".pl-ladder-go").addEventListener("click", (event) => busyWhile(event.currentTarget, async () => {
  if (!rackState.rows.some((row) => row.on)) { notice("Turn a concept first: the ladder runs the rack at five strengths."); return; }
  const answer = await ask({ way: "ladder", word: find(".pl-word").value, ...question() });
  if (answer) drawLadder(answer);
}));
find(".pl-would-go").addEventListener("click", (event) => busyWhile(event.currentTarget, async () => {
  const word = find(".pl-target").value.trim();
  if (!word) { notice("Type a word first: which one should the model say?"); return; }
  find(".pl-word").value = word;
  const answer = await ask({ way: "candidates", word, less: find(".pl-would-way").value === "less", start: find(".pl-start").value, ...question() });
  if (answer) { notice([]); drawCandidates(answer); }
}));
find(".pl-target").addEventListener("keydown", (event) => { if (event.key === "Enter") find(".pl-would-go").click(); });
find(".pl-png").addEventListener("click", async () => {
  const link = new URLSearchParams(location.search), png = await experimentPng({ v: 1, img: link.get("img"), p: link.get("p"), steer: rackCode(), ask: rackState.prompt, keep: rackState.errorTerm ? "1" : "0" });
  const a = make("a");
  a.href = URL.createObjectURL(new Blob([png], { type: "image/png" }));
  a.download = "patchlens-steering.png";
  a.click();
  setTimeout(() => URL.revokeObjectURL(a.href), 5000);
});
document.addEventListener("drop", async (event) => {
  const file = root.offsetParent !== null && event.dataTransfer && event.dataTransfer.files[0];
  if (!file) return;
  event.preventDefault();
  const text = file.size < 30e6 ? recipeIn(new Uint8Array(await file.arrayBuffer())) : null;
  try { openRecipe(JSON.parse(text)); } catch { notice("This picture carries no experiment. Drop one that was saved here; open your own pictures in the Concepts tab."); }
});
document.addEventListener("dragover", (event) => { if (root.offsetParent !== null) event.preventDefault(); });
function openRecipe(recipe) {
  begun = true;
  applyRecipe(recipe);
  notice("The experiment of this picture was taken up.");
  const link = /^ex:([a-z-]{1,40})$/.exec(recipe.img || "");
  if (link) bus.send("lens", { kind: "example", data: link[1] }); else changed();
}

// The first look at an empty rack opens the first preset, if the picture in view is that preset's.
let begun = false;
function begin() {
  const [preset] = props.setup.presets;
  if (begun || !bus.picture || root.offsetParent === null) return false;
  begun = true;
  if (!preset || bus.picture.source.name !== preset.example || preset.edits.some((edit) => (edit.scope || {}).patches)) return false;
  tryPreset(preset);
  return true;
}
watch("value", () => take(props.value));
bus.receive("steer", ({ concept }) => { begun = true; addConcept(concept, 1.5); });
layPrompts();
layPresets();
const linkQuery = new URLSearchParams(bus.opened);
applyRecipe({ steer: linkQuery.get("steer"), ask: linkQuery.get("ask"), keep: linkQuery.get("keep") });
find(".pl-start").value = startFor(rackState.prompt);
drawSubject();
begun = rackState.rows.length > 0;
bus.on("picture", () => { drawSubject(); if (!begin()) changed(); });
new IntersectionObserver((entries) => { if (entries.some((entry) => entry.isIntersecting) && !begin()) changed(); }).observe(root);
