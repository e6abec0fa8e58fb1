// The concept card: a dialog over the page, whatever tab is open. Asked from the server once, then kept.

const card = find(".pl-card");
const cards = new Map();
const ACTIONS = [
  ["concepts", "Show in the picture", true],
  ["latents", "Show on the map", false],
  ["steer", "Steer with it", false],
];

function askCard(latent) {
  if (!cards.has(latent)) {
    const asked = server.card(latent);
    cards.set(latent, asked);
    asked.then((facts) => { cards.set(latent, facts); }, () => cards.delete(latent));
  }
  return cards.get(latent);
}

let dwell = 0;
function prefetchCard(latent) {
  clearTimeout(dwell);
  if (latent !== null) dwell = setTimeout(() => askCard(latent), 80);
}

let cardOpener = null, cardTurn = 0;
function openCard(latent, opener) {
  const turn = ++cardTurn, facts = askCard(latent);
  cardOpener = opener || document.activeElement;
  if (facts instanceof Promise) {
    fillCard(cardHead({ latent, name: bus.picture ? bus.picture.name(latent) : "" }), make("div", "pl-card-wait"));
    facts.then((ready) => { if (turn === cardTurn && card.open) drawCard(ready); },
      () => { if (turn === cardTurn) fillCard(cardHead({ latent }), make("p", "pl-empty", "The card could not be fetched. Close it and try again.")); });
  } else drawCard(facts);
  if (!card.open) card.showModal();
  card.scrollTop = 0;
  find(".pl-card-close", card).focus();
  writeQuery(["card"], [["card", latent]]);
}

function closeCard() { if (card.open) card.close(); }
card.addEventListener("close", () => {
  if (card.open) return;
  cardTurn++;
  writeQuery(["card"], []);
  if (cardOpener && cardOpener.isConnected) cardOpener.focus({ preventScroll: true });
});
card.addEventListener("click", (event) => { if (event.target === card) closeCard(); });

function fillCard(...parts) { card.replaceChildren(...parts); }

function cardHead(facts) {
  const head = make("header", "pl-card-head"), words = make("div");
  const title = make("h2", "pl-card-title", facts.name || "Concept " + facts.latent);
  title.id = "pl-card-title";
  words.append(title, make("p", "pl-card-origin", originSentence(facts)));
  const close = makeButton("pl-quiet pl-card-close", "×", closeCard);
  close.setAttribute("aria-label", "Close the card");
  head.append(words, close);
  return head;
}

function originSentence(facts) {
  const number = "Concept #" + facts.latent;
  if (facts.figures === undefined) return number;
  if (!facts.name) return number + " · not named: no word fits it well enough";
  const score = typeof facts.name_score === "number" ? " · score " + facts.name_score.toFixed(2) : "";
  return number + " · named from " + (facts.name_source || "an unknown source") + score;
}

const builtCards = new Map();
function drawCard(facts) {
  let built = builtCards.get(facts.latent);
  if (!built || built.picture !== bus.picture) {
    built = { picture: bus.picture, parts: buildCard(facts) };
    if (builtCards.size > 60) builtCards.clear();
    builtCards.set(facts.latent, built);
  }
  fillCard(...built.parts);
}

function buildCard(facts) {
  if (facts.error) return [cardHead(facts), make("p", "pl-empty", facts.error)];
  const body = make("div", "pl-card-body");
  if (facts.dead) body.append(make("p", "pl-card-flag", "This concept never fired on the data set."));
  if (facts.dense) body.append(make("p", "pl-card-flag", "Always on: it fires nearly everywhere, so it says little about any one picture."));
  const weak = weakness(facts);
  if (weak) body.append(make("p", "pl-card-weak", weak));
  if ((facts.exemplars.top || []).length) body.append(exemplarRow(facts, facts.exemplars.top, "Where it fires most", "the strongest pictures"));
  if (TENTHS.some((level) => (facts.exemplars[level] || []).length)) body.append(tenthsBox(facts));
  if (!body.querySelector("figure")) body.append(make("p", "pl-empty", "No example pictures are known for this concept."));
  if (facts.figures) body.append(figureTiles(facts), histogramBox(facts), relatives(facts));
  return [cardHead(facts), body, cardFoot(facts)];
}

const TENTHS = Array.from({ length: 10 }, (_, i) => "tenth" + i);

// What speaks against trusting this concept, said first.
function weakness(facts) {
  const { figures } = facts, said = [];
  if (!figures || facts.dead) return "";
  if (facts.rare) said.push("it fired on very few pictures, so its examples may mislead");
  if (facts.name && facts.name_confidence !== null && facts.name_confidence < 0.7) said.push("the name is a guess");
  if (figures.entropy !== null && figures.entropy > 1.4) said.push("its strongest pictures are of many kinds");
  if (figures.monosemanticity !== null && figures.monosemanticity !== undefined && figures.monosemanticity < 0.1) said.push("its pictures look little alike");
  return said.length ? "Weak points: " + said.join("; ") + "." : "";
}

// Exemplars drawn by chance from every tenth of the pictures in which it fires, strongest tenth first.
function tenthsBox(facts) {
  const section = make("section", "pl-tenths"), head = make("h3", "", "From strong to weak"), slider = make("input", "pl-tenth"), words = make("small"), row = make("div");
  slider.type = "range"; slider.min = 1; slider.max = 10; slider.value = 5;
  slider.setAttribute("aria-label", "Tenth of the pictures, from the strongest to the weakest");
  const draw = () => {
    const exemplars = facts.exemplars[TENTHS[slider.value - 1]] || [];
    setText(words, ["strongest", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "weakest"][slider.value - 1] + " tenth of the pictures, drawn by chance");
    row.replaceChildren(exemplars.length ? exemplarRow(facts, exemplars, "", "") : make("p", "pl-note", "No picture was kept from this tenth."));
  };
  slider.addEventListener("input", draw);
  head.append(words);
  section.append(head, slider, row);
  draw();
  return section;
}

// Concepts near this one, and its classes: each a button or a bar.
function relatives(facts) {
  const section = make("section", "pl-relatives");
  const classes = (facts.classes || []).filter(([label]) => label);
  if (classes.length) {
    const box = make("div"), list = make("ol", "pl-classes");
    for (const [label, share] of classes) {
      const item = make("li"), bar = make("span", "pl-bar"), fill = make("i");
      fill.style.transform = "scaleX(" + share + ")";
      bar.append(fill);
      item.append(make("span", "", label), bar, make("b", "", shareText(share)));
      list.append(item);
    }
    box.append(make("h3", "", "Classes it fires for"), list);
    section.append(box);
  }
  for (const [rowsOf, title, help] of [[facts.neighbours, "Points the same way", "cosine of decoder directions"], [facts.cofiring, "Fires together with", "share of pictures in common"]]) {
    if (!(rowsOf || []).length) continue;
    const box = make("div"), list = make("div", "pl-near");
    for (const [latent, name, score] of rowsOf) {
      const chip = makeButton("pl-chip", name || "Concept " + latent, () => openCard(latent, cardOpener));
      chip.append(make("small", "pl-recorded", score.toFixed(2)));
      chip.title = "Concept " + latent + ", " + help + " " + score.toFixed(2);
      list.append(chip);
    }
    box.append(make("h3", "", title), list);
    section.append(box);
  }
  return section;
}

function exemplarRow(facts, exemplars, title, hint) {
  const section = make("section", "pl-exemplars"), head = make("h3", "", title), row = make("div", "pl-exemplar-row");
  head.append(make("small", "", hint));
  head.hidden = !title;
  for (const exemplar of exemplars) {
    const figure = make("figure"), picture = make("div", "pl-exemplar"), image = make("img"), veil = make("canvas");
    image.src = facts.images[exemplar.image];
    image.alt = exemplar.label || "example picture";
    veil.setAttribute("aria-hidden", "true");
    lightPatches(veil, exemplar, facts);
    picture.append(image, veil);
    const caption = make("figcaption");
    caption.title = exemplar.label || "";
    caption.append(make("span", "", exemplar.label || ""), make("b", "", amountText(exemplar.activation)));
    figure.append(picture, caption);
    row.append(figure);
  }
  section.append(head, row);
  return section;
}

// Firing patches stay bright, the rest is dimmed: the more a patch fires, the clearer it is.
function lightPatches(canvas, exemplar, facts) {
  const [nRows, nColumns] = facts.grid, most = Math.max(...exemplar.values, 1e-9);
  canvas.width = nColumns; canvas.height = nRows;
  const context = canvas.getContext("2d"), image = context.createImageData(nColumns, nRows);
  for (let i = 0; i < nRows * nColumns; i++) image.data.set([10, 12, 22, 165], i * 4);
  exemplar.patches.forEach((patch, i) => { image.data[patch * 4 + 3] = 165 * (1 - Math.min(1, 0.45 + 0.55 * exemplar.values[i] / most)); });
  context.putImageData(image, 0, 0);
}

function figureTiles(facts) {
  const tiles = make("dl", "pl-figures"), { figures } = facts;
  const rarely = figures.frequency >= 0.1 ? shareText(figures.frequency) : (100 * figures.frequency).toFixed(2).replace(/0$/, "") + " %";
  const add = (term, text, help) => {
    const box = make("div");
    box.title = help;
    box.append(make("dt", "", term), make("dd", "", text), make("dd", "pl-help", help));
    tiles.append(box);
  };
  add("Fires in", figures.frequency === null ? "–" : rarely, "of " + facts.n_images.toLocaleString("en") + " pictures (activated frequency)");
  add("Mean strength", figures.mean === null ? "–" : amountText(figures.mean), "averaged over every patch of the pictures it fires in");
  add("Strongest", figures.maximum === null ? "–" : amountText(figures.maximum), "maximum over the data set");
  add("Label spread", figures.entropy === null || figures.entropy < 0 ? "–" : figures.entropy.toFixed(2), "entropy of labels, nats: 0 is one label only");
  if (typeof figures.monosemanticity === "number") add("Same look", figures.monosemanticity.toFixed(2), "monosemanticity: similarity of its pictures, at most 1");
  if (typeof figures.steerability === "number") add("Steerability", figures.steerability < 0.01 ? figures.steerability.toExponential(0) : figures.steerability.toFixed(2), "how far it moves the model's words when clamped");
  return tiles;
}

function histogramBox(facts) {
  const section = make("section", "pl-histogram");
  if (!facts.histogram.counts.some((n) => n > 0)) return section;
  const here = bus.picture ? bus.picture.maximum(facts.latent) : 0;
  const { counts, edges } = trimmed(facts.histogram, here);
  section.append(make("h3", "", "How strongly it fires"));
  const most = Math.max(...counts), plot = make("div", "pl-plot");
  counts.forEach((n) => {
    const bar = make("i");
    bar.style.height = n > 0 ? Math.max(3, 100 * Math.sqrt(n / most)) + "%" : "0";
    plot.append(bar);
  });
  if (here > 0) {
    const low = Math.log(edges[0]), high = Math.log(edges[edges.length - 1]);
    const at = Math.max(0, Math.min(1, (Math.log(here) - low) / (high - low)));
    const mark = make("span", "pl-here"), word = make("em", "", "this picture " + amountText(here));
    mark.style.left = 100 * at + "%";
    mark.classList.toggle("pl-flip", at > 0.6);
    mark.append(word);
    plot.append(mark);
  }
  plot.setAttribute("role", "img");
  plot.setAttribute("aria-label", "Histogram of activations from " + amountText(edges[0]) + " to " + amountText(edges[edges.length - 1]) + (here > 0 ? "; this picture reaches " + amountText(here) : "; it does not fire in this picture"));
  const axis = make("div", "pl-axis");
  axis.append(make("span", "", amountText(edges[0])), make("span", "", "activation, log scale; height is the square root of the count"), make("span", "", amountText(edges[edges.length - 1])));
  section.append(plot, axis);
  if (!(here > 0)) section.append(make("p", "pl-note", "It does not fire in this picture."));
  return section;
}

// Leave out empty bins at both ends, but keep the one that this picture falls into.
function trimmed({ counts, edges }, here) {
  const used = counts.map((n, i) => n > 0 || here > 0 && edges[i] <= here && here < edges[i + 1]);
  const from = used.indexOf(true), to = used.lastIndexOf(true) + 1;
  return { counts: counts.slice(from, to), edges: edges.slice(from, to + 1) };
}

function cardFoot(facts) {
  const foot = make("footer", "pl-card-foot");
  for (const [tab, label, primary] of ACTIONS) {
    if (!props.setup.tabs.includes(tab) || facts.dead && tab !== "latents") continue;
    foot.append(makeButton(primary ? "pl-button pl-primary" : "pl-button", label, () => {
      closeCard();
      bus.goTo(tab);
      bus.send(tab, { concept: facts.latent, name: facts.name });
    }));
  }
  const copy = makeButton("pl-button", "Copy link", () => copyLink(copy));
  foot.append(copy);
  return foot;
}

bus.card = { open: openCard, isOpen: () => card.open, prefetch: prefetchCard };
