// Where pictures come from: examples, the composer, a file that is picked, dropped or pasted.

const ticketOf = { last: 0 }, requests = new Map();

// How to ask for the picture in view again.
function requestFor(value) {
  const { source } = value, known = requests.get(value.ticket);
  requests.clear();
  if (known) return known;
  if (source.kind === "example") return { kind: "example", data: source.name };
  return source.scene ? { kind: "scene", data: JSON.stringify(source.scene) } : null;
}
let waitTimer = 0;

// Ask the server for a picture's code; only the newest answer is shown.
function ask(kind, data, words) {
  const ticket = ++ticketOf.last;
  root.dataset.state = "busy";
  say(words);
  clearTimeout(waitTimer);
  waitTimer = setTimeout(() => failed(ticket, "The server has not answered for a minute. Try again, or reload the page."), 60000);
  requests.set(ticket, { kind, data });
  trigger("open", { ticket, kind, data });
}

function failed(ticket, sentence) {
  if (ticket !== ticketOf.last) return;
  clearTimeout(waitTimer);
  root.dataset.state = state.code ? "ready" : "empty";
  notice(sentence, "problem");
  say(sentence);
}

function layExamples() {
  const strip = find(".pl-strip");
  for (const example of props.setup.examples) {
    const button = makeButton("pl-source pl-example"), art = make("img", "pl-source-art");
    art.src = example.thumbnail; art.alt = "";
    button.dataset.name = example.name;
    button.append(art, make("span", "pl-source-name", example.title));
    button.addEventListener("click", () => { keepConcept = false; notice([]); ask("example", example.name, "Opening " + example.title); });
    strip.append(button);
  }
}

function markSource() {
  const { source } = state.value;
  for (const button of root.querySelectorAll(".pl-example")) {
    const on = source.kind === "example" && button.dataset.name === source.name;
    button.setAttribute("aria-pressed", String(on));
    if (on && state.code) button.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
  find(".pl-own").classList.toggle("pl-on", source.kind === "upload");
  find(".pl-make").classList.toggle("pl-on", source.kind === "scene");
}

async function takeFile(file) {
  keepConcept = false;
  notice([]);
  if (file.size > props.setup.max_upload_bytes) {
    failed(ticketOf.last, "This file is larger than " + props.setup.max_upload + ". Make the picture smaller and try again.");
    return;
  }
  const ticket = ++ticketOf.last;
  root.dataset.state = "busy";
  say("Reading your picture");
  try {
    const sent = await upload(file);
    if (ticket === ticketOf.last) ask("upload", { path: sent.path, name: file.name }, "Reading your picture");
  } catch {
    failed(ticket, "The picture could not be sent. It may be larger than " + props.setup.max_upload + ", or the connection broke; try again.");
  }
}

const fileInput = find(".pl-file");
find(".pl-own").addEventListener("click", () => fileInput.click());
fileInput.addEventListener("change", () => {
  if (fileInput.files.length) takeFile(fileInput.files[0]);
  fileInput.value = "";
});

const visible = () => root.isConnected && root.offsetParent !== null;
const carriesFile = (event) => event.dataTransfer && [...event.dataTransfer.types].includes("Files");
let dragDepth = 0;
function dragging(on) { frame.classList.toggle("pl-dropping", on); }

document.addEventListener("dragenter", (event) => { if (carriesFile(event) && visible()) { dragDepth++; dragging(true); } });
document.addEventListener("dragleave", (event) => { if (carriesFile(event) && --dragDepth <= 0) { dragDepth = 0; dragging(false); } });
document.addEventListener("dragover", (event) => { if (carriesFile(event) && visible()) event.preventDefault(); });
document.addEventListener("drop", (event) => {
  if (!carriesFile(event) || !visible()) return;
  event.preventDefault();
  dragDepth = 0;
  dragging(false);
  if (event.dataTransfer.files.length) takeFile(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => {
  if (!visible() || event.target.closest && event.target.closest("input, textarea, [contenteditable]")) return;
  const file = [...(event.clipboardData ? event.clipboardData.files : [])].find((one) => one.type.startsWith("image/"));
  if (file) { event.preventDefault(); takeFile(file); }
});
