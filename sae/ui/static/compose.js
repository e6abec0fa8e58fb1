// Composing a scene by hand: a background, up to three objects, their places. The server draws it.

const composer = find(".pl-composer");
let art = null, scene = null, chosen = 0, parts = null, composeTimer = 0;

find(".pl-make").addEventListener("click", async () => {
  const open = composer.hidden;
  composer.hidden = !open;
  find(".pl-make").setAttribute("aria-expanded", String(open));
  if (!open) return;
  if (!art) {
    composer.replaceChildren(make("div", "pl-card-wait"));
    try { art = await server.composer(); } catch {
      composer.replaceChildren(make("p", "pl-empty", "The drawing box could not be fetched. Close it and open it again."));
      return;
    }
    buildComposer();
  }
  scene = structuredClone(state.value && state.value.source.scene || art.first);
  chosen = Math.max(0, scene.objects.length - 1);
  renderComposer();
});

function spriteStyle(node, kind, style, side) {
  const number = art.kinds.findIndex((one) => one.name === kind), rowsTotal = art.rows_per_style * art.styles.length;
  const column = number % art.columns, row = art.styles.indexOf(style) * art.rows_per_style + Math.floor(number / art.columns);
  node.style.backgroundImage = "url(" + art.sheet + ")";
  node.style.backgroundSize = art.columns * side + "px " + rowsTotal * side + "px";
  node.style.backgroundPosition = -column * side + "px " + -row * side + "px";
  node.style.width = node.style.height = side + "px";
}

function buildComposer() {
  parts = {
    stage: make("div", "pl-mini"), objects: make("div", "pl-objects"), tune: make("div", "pl-tune"),
    backgrounds: make("div", "pl-backgrounds"), search: make("input", "pl-search"), kinds: make("div", "pl-kinds"),
  };
  const left = make("div", "pl-mini-side"), middle = make("div", "pl-choices"), right = make("div", "pl-choices");
  left.append(parts.stage, make("p", "pl-note", "Drag the objects, or use the arrow keys."));
  parts.search.type = "search";
  parts.search.placeholder = "Find an object: " + art.kinds.slice(0, 3).map((kind) => kind.name).join(", ") + " …";
  parts.search.setAttribute("aria-label", "Find an object");
  parts.search.addEventListener("input", renderKinds);
  parts.stage.setAttribute("role", "group");
  parts.stage.setAttribute("aria-label", "The scene you compose");
  for (const background of art.backgrounds) {
    const button = makeButton("pl-swatch", undefined, () => change(() => { scene.background = background.name; }));
    button.style.backgroundImage = "url(" + background.picture + ")";
    button.title = background.name;
    button.setAttribute("aria-label", "Background: " + background.name);
    button.dataset.name = background.name;
    parts.backgrounds.append(button);
  }
  middle.append(labelled("Background", parts.backgrounds), labelled("Objects", parts.objects, parts.tune));
  right.append(labelled("Add or change", parts.search, parts.kinds));
  composer.replaceChildren(left, middle, right);
}

function labelled(text, ...nodes) {
  const box = make("div", "pl-field");
  box.append(make("h2", "", text), ...nodes);
  return box;
}

function change(edit) {
  edit();
  renderComposer();
  clearTimeout(composeTimer);
  composeTimer = setTimeout(sendScene, 60);
}

function sendScene() {
  keepConcept = true;
  ask("scene", JSON.stringify(scene), "Composing the scene");
}

function renderComposer() {
  parts.stage.style.backgroundImage = "url(" + art.backgrounds.find((one) => one.name === scene.background).picture + ")";
  for (const button of parts.backgrounds.children) button.setAttribute("aria-pressed", String(button.dataset.name === scene.background));
  renderMini();
  renderObjects();
  renderTune();
  renderKinds();
}

function renderMini() {
  while (parts.stage.children.length > scene.objects.length) parts.stage.lastChild.remove();
  scene.objects.forEach((object, i) => {
    const node = parts.stage.children[i] || parts.stage.appendChild(makeMiniObject());
    const side = art.sizes[object.size] * 2;
    spriteStyle(node, object.kind, object.style, side);
    node.style.left = object.x * 2 - side / 2 + "px";
    node.style.top = object.y * 2 - side / 2 + "px";
    node.style.rotate = -object.angle + "deg";
    node.classList.toggle("pl-on", i === chosen);
    node.setAttribute("aria-label", object.kind + ", move it with the arrow keys");
  });
}

const within = (at) => Math.max(0, Math.min(art.side - 1, Math.round(at)));

function makeMiniObject() {
  const node = makeButton("pl-mini-object");
  const number = () => [...parts.stage.children].indexOf(node);
  let grip = null;
  node.addEventListener("focus", () => { chosen = number(); renderMini(); renderObjects(); renderTune(); });
  node.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    node.focus();
    node.setPointerCapture(event.pointerId);
    const { x, y } = scene.objects[number()];
    grip = { dx: event.clientX / 2 - x, dy: event.clientY / 2 - y };
  });
  node.addEventListener("pointermove", (event) => {
    if (!grip) return;
    const object = scene.objects[number()], x = within(event.clientX / 2 - grip.dx), y = within(event.clientY / 2 - grip.dy);
    if (object.x === x && object.y === y) return;
    object.x = x; object.y = y;
    renderMini();
    if (root.dataset.state !== "busy") sendScene(); else { clearTimeout(composeTimer); composeTimer = setTimeout(sendScene, 60); }
  });
  node.addEventListener("pointerup", () => { grip = null; });
  node.addEventListener("pointercancel", () => { grip = null; });
  node.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-4, 0], ArrowRight: [4, 0], ArrowUp: [0, -4], ArrowDown: [0, 4] }[event.key];
    if (step) {
      event.preventDefault();
      change(() => { const object = scene.objects[number()]; object.x = within(object.x + step[0]); object.y = within(object.y + step[1]); });
    }
    if (event.key === "Delete" || event.key === "Backspace") { event.preventDefault(); removeObject(number()); }
  });
  return node;
}

function removeObject(number) {
  change(() => { scene.objects.splice(number, 1); chosen = Math.max(0, Math.min(chosen, scene.objects.length - 1)); });
}

function renderObjects() {
  parts.objects.replaceChildren();
  scene.objects.forEach((object, i) => {
    const chip = make("span", "pl-chip"), pick = makeButton("pl-chip-pick", undefined, () => { chosen = i; renderComposer(); }), face = make("i", "pl-chip-face");
    spriteStyle(face, object.kind, object.style, 24);
    pick.append(face, make("span", "", object.kind));
    pick.setAttribute("aria-pressed", String(i === chosen));
    const remove = makeButton("pl-quiet", "×", () => removeObject(i));
    remove.setAttribute("aria-label", "Remove " + object.kind);
    chip.append(pick, remove);
    chip.classList.toggle("pl-on", i === chosen);
    parts.objects.append(chip);
  });
  if (scene.objects.length < art.max_objects) {
    const add = makeButton("pl-chip pl-chip-new", "+ New object", () => { chosen = scene.objects.length; renderComposer(); parts.search.focus(); });
    add.setAttribute("aria-pressed", String(chosen === scene.objects.length));
    parts.objects.append(add);
  }
}

function renderTune() {
  const object = scene.objects[chosen];
  parts.tune.replaceChildren();
  if (!object) { parts.tune.append(make("p", "pl-note", "Choose what to add below.")); return; }
  const choice = (label, values, words, key) => {
    const group = make("div", "pl-switch");
    group.setAttribute("role", "radiogroup");
    group.setAttribute("aria-label", label);
    values.forEach((value, i) => {
      const option = makeButton("", words[i]);
      option.setAttribute("role", "radio");
      option.dataset.value = String(value);
      group.append(option);
    });
    const byText = new Map(values.map((value) => [String(value), value]));
    const show = switchGroup(group, (value) => { change(() => { object[key] = byText.get(value); }); refocus(label, value); });
    show(String(object[key]));
    parts.tune.append(group);
  };
  choice("Size", Object.keys(art.sizes), Object.keys(art.sizes).map(capital), "size");
  choice("Drawing style", art.styles, art.styles.map(capital), "style");
  choice("Tilt", art.angles, art.angles.map((angle) => angle > 0 ? "↺" + angle + "°" : angle < 0 ? "↻" + -angle + "°" : "0°"), "angle");
}

const capital = (word) => word[0].toUpperCase() + word.slice(1);
function refocus(label, value) {
  const group = [...parts.tune.children].find((one) => one.getAttribute("aria-label") === label);
  const option = group && [...group.children].find((one) => one.dataset.value === value);
  if (option) option.focus();
}

function renderKinds() {
  const words = parts.search.value.trim().toLowerCase(), current = scene.objects[chosen], style = current ? current.style : "noto";
  const found = art.kinds.filter((kind) => !words || [kind.name, kind.group, kind.realm].some((text) => text.includes(words)));
  parts.kinds.replaceChildren();
  if (!found.length) parts.kinds.append(make("p", "pl-note", "No object by that name. Try a wider word, such as animal or food."));
  for (const kind of found) {
    const tile = makeButton("pl-kind", undefined, () => pickKind(kind.name, style)), face = make("i");
    spriteStyle(face, kind.name, style, 32);
    tile.append(face);
    tile.title = kind.name;
    tile.setAttribute("aria-label", kind.name);
    tile.setAttribute("aria-pressed", String(Boolean(current) && current.kind === kind.name));
    parts.kinds.append(tile);
  }
}

function pickKind(name, style) {
  change(() => {
    if (scene.objects[chosen]) { scene.objects[chosen].kind = name; return; }
    const places = [[30, 34], [66, 60], [34, 70]], [x, y] = places[scene.objects.length] || places[0];
    scene.objects.push({ kind: name, style, x, y, size: "large", angle: 0 });
    chosen = scene.objects.length - 1;
  });
}
