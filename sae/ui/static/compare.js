// The Compare tab: choices, pictures and questions; asks the server and keeps the address bar.

const COMPARE_KEYS = ["task", "heads", "split", "pic", "off"];
const taskBox = find(".pl-task"), boxes = [find(".pl-head-a"), find(".pl-head-b")], classBoxes = [find(".pl-class-a"), find(".pl-class-b")], wordsBox = find(".pl-words-in");
Object.assign(view, { task: "", heads: ["zero_shot", "maple"], split: "base", number: 0, own: false, label: "", request: null, classes: null, after: null });
let explainTurn = 0, offTurn = 0, offWait = 0;

const taskNow = () => props.setup.tasks.find((one) => one.name === view.task);

async function ask(wanted) {
  try {
    const answer = await server.ask(wanted);
    if (!answer.problem) return answer;
    notice(answer.problem, "problem");
  } catch { notice("The server did not answer. Try again, or reload the page.", "problem"); }
  return null;
}

const question = () => ({ picture: view.request, task: view.task, split: view.split, heads: view.heads, classes: view.classes, words: wordsBox.value.trim() });

function fillBox(box, pairs, value) {
  box.replaceChildren(...pairs.map(([key, text]) => { const option = make("option", "", text); option.value = key; return option; }));
  box.value = value;
}

function layTask() {
  const task = taskNow(), names = task.heads.map((one) => one.name).filter((name) => view.split === "base" || name !== "linear");
  view.heads = view.heads.map((name, side) => names.includes(name) ? name : names[Math.min(side * (names.length - 1), names.length - 1)]);
  boxes.forEach((box, side) => fillBox(box, names.map((name) => [name, headName(name)]), view.heads[side]));
  fillBox(taskBox, props.setup.tasks.map((one) => [one.name, one.title]), view.task);
  setText(find(".pl-cause"), task.cause);
  layClasses();
  drawTask();
}

function layClasses() {
  const task = taskNow(), names = task[view.split], pairs = [["", "what they disagree on"], ...names.map((name) => [name, name])];
  fillBox(classBoxes[0], pairs, view.classes ? view.classes[0] : "");
  fillBox(classBoxes[1], names.map((name) => [name, name]), view.classes ? view.classes[1] : names[1]);
  classBoxes[1].parentElement.hidden = !view.classes;
}

async function openSample() {
  view.own = false;
  const answer = await ask({ way: "sample", task: view.task, split: view.split, number: view.number });
  if (answer) show(answer.picture, answer.request, answer.label);
}

// The first picture from `from` on to which the two heads give different answers. A task opens on
// one that the second head has `right`; the button takes whatever comes.
async function openDiffering(from, right) {
  const asked = { task: view.task, split: view.split, heads: view.heads };
  const answer = await ask({ way: "differ", number: from, right: Boolean(right), ...asked });
  if (answer && answer.number !== null) view.number = answer.number;
  else if (answer) say("They agree on the pictures that were tried.");
  await openSample();
  if (answer && answer.number === null && !right) notice("The two say the same of the next 48 pictures of this task.");
}

function show(picture, request, label) {
  Object.assign(view, { request, label, locked: -1 });
  for (const image of root.querySelectorAll(".pl-one img")) { image.src = picture.src; image.alt = picture.alt; }
  explain();
}

async function explain() {
  if (!view.request) return;
  const turn = ++explainTurn;
  root.dataset.state = "busy";
  const answer = await ask({ way: "explain", ...question() });
  if (turn !== explainTurn) return;
  root.dataset.state = "ready";
  if (!answer) return;
  notice([]);
  view.found = { ...answer, codes: fromBase64(answer.maps.codes, Uint8Array), scale: answer.maps.scale };
  view.after = null;
  view.shown = 12;
  if (view.locked < 0) view.locked = answer.concepts.findIndex((one) => Math.max(...one.activations) > 0);
  for (const figure of root.querySelectorAll(".pl-one")) setText(figure.querySelector("figcaption span"), headName(view.heads[Number(figure.dataset.side)]));
  drawAll();
  writeCompareLink();
  if (view.off.size) askOff();
  performance.mark("patchlens-explained");
}

function drawAll() { drawMaps(); drawGuesses(); drawFall(); }

function askOff() {
  writeCompareLink();
  clearTimeout(offWait);
  if (!view.off.size) { view.after = null; offTurn++; drawGuesses(); drawFall(); return; }
  offWait = setTimeout(async () => {
    const turn = ++offTurn, answer = await ask({ way: "off", off: [...view.off], ...question() });
    if (turn !== offTurn || !answer) return;
    view.after = answer;
    drawGuesses();
    drawFall();
    say("With these concepts off: " + answer.predictions.map((one, side) => headName(view.heads[side]) + " says " + one[0].class).join(", "));
  }, 60);
}

function writeCompareLink() {
  if (!view.task) return;
  const pairs = [["task", view.task], ["heads", view.heads.join(",")]];
  if (view.split !== "base") pairs.push(["split", view.split]);
  if (!view.own) pairs.push(["pic", view.number]);
  if (view.off.size) pairs.push(["off", [...view.off].slice(0, 64).join(",")]);
  writeQuery(COMPARE_KEYS, pairs);
}

// A link's parts are looked up in what there is; the rest is left out.
function followCompareLink() {
  const query = new URLSearchParams(bus.opened), { tasks } = props.setup;
  view.task = (tasks.find((one) => one.name === query.get("task")) || tasks[0]).name;
  if (query.get("split") === "novel") view.split = "novel";
  const names = taskNow().heads.map((one) => one.name), heads = (query.get("heads") || "").split(",");
  if (heads.length === 2 && heads.every((name) => names.includes(name))) view.heads = heads;
  if (/^\d{1,3}$/.test(query.get("pic") || "")) view.number = Math.min(399, Number(query.get("pic")));
  for (const part of (query.get("off") || "").split(",").slice(0, 64)) if (/^\d{1,7}$/.test(part)) view.off.add(Number(part));
}

const changeTask = () => { view.classes = null; view.off.clear(); layTask(); openDiffering(0, true); };
taskBox.addEventListener("change", () => { view.task = taskBox.value; changeTask(); });
boxes.forEach((box, side) => box.addEventListener("change", () => { view.heads[side] = box.value; layTask(); explain(); }));
const showSplit = switchGroup(find(".pl-split"), (value) => { view.split = value; showSplit(value); changeTask(); });
const showUsed = switchGroup(find(".pl-used"), (value) => { view.used = value; view.shown = 12; showUsed(value); drawFall(); });
find(".pl-next-picture").addEventListener("click", () => { view.number = (view.number + 1) % 400; view.off.clear(); openSample(); });
find(".pl-differ").addEventListener("click", (event) => { view.off.clear(); busyWhile(event.currentTarget, () => openDiffering((view.number + 1) % 400)); });
find(".pl-previous").addEventListener("click", () => { view.number = (view.number + 399) % 400; view.off.clear(); openSample(); });
find(".pl-use").addEventListener("click", () => { if (bus.picture && bus.picture.request) { view.own = true; view.off.clear(); show(bus.picture.value.picture, bus.picture.request, ""); } });
find(".pl-more").addEventListener("click", () => { view.shown += 12; drawFall(); });
find(".pl-all-on").addEventListener("click", () => { view.off.clear(); askOff(); });
find(".pl-notice-close").addEventListener("click", () => notice([]));
classBoxes[0].addEventListener("change", () => {
  const first = classBoxes[0].value, names = taskNow()[view.split];
  view.classes = first ? [first, classBoxes[1].value && classBoxes[1].value !== first ? classBoxes[1].value : names.find((name) => name !== first)] : null;
  wordsBox.value = "";
  layClasses();
  explain();
});
classBoxes[1].addEventListener("change", () => { if (classBoxes[1].value === view.classes[0]) return; view.classes = [view.classes[0], classBoxes[1].value]; explain(); });
wordsBox.addEventListener("change", explain);
wordsBox.addEventListener("keydown", (event) => { if (event.key === "Enter") explain(); });

followCompareLink();
showSplit(view.split);
showUsed(view.used);
layTask();
if (new URLSearchParams(bus.opened).has("pic")) openSample(); else openDiffering(0, true);
