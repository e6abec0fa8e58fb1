// The concept card: a dialog over the page. Asked from the server once, then kept.

const card = find(".pl-card");
const cards = new Map();
const LEVELS = [
  ["top", "Where it fires most", "the strongest pictures"],
  ["middle", "Where it fires half-way", "around the median"],
  ["low", "Where it barely fires", "the weakest that still fire"],
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
function prefetchCard(slot) {
  clearTimeout(dwell);
  if (slot >= 0) dwell = setTimeout(() => askCard(state.code.ids[slot]), 80);
}

let cardOpener = null, cardTurn = 0;
function openCard(latent, opener) {
  const turn = ++cardTurn, facts = askCard(latent);
  cardOpener = opener || document.activeElement;
  state.card = latent;
  if (facts instanceof Promise) {
    fillCard(cardHead({ latent, name: conceptName(state.code.slotOf.get(latent)) }), make("div", "pl-card-wait"));
    facts.then((ready) => { if (turn === cardTurn && card.open) drawCard(ready); },
      () => { if (turn === cardTurn) fillCard(cardHead({ latent }), make("p", "pl-empty", "The card could not be fetched. Close it and try again.")); });
  } else drawCard(facts);
  if (!card.open) card.showModal();
  card.scrollTop = 0;
  find(".pl-card-close", card).focus();
  writeLink();
}

function closeCard() { if (card.open) card.close(); }
card.addEventListener("close", () => {
  if (card.open) return;
  cardTurn++;
  state.card = null;
  writeLink();
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
  if (!built || built.code !== state.code) {
    built = { code: state.code, parts: buildCard(facts) };
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
  for (const [level, title, hint] of LEVELS) {
    const exemplars = (facts.exemplars[level] || []);
    if (exemplars.length) body.append(exemplarRow(facts, exemplars, title, hint));
  }
  if (!body.querySelector("figure")) body.append(make("p", "pl-empty", "No example pictures are known for this concept."));
  if (facts.figures) body.append(figureTiles(facts), histogramBox(facts));
  return [cardHead(facts), body, cardFoot(facts)];
}

function exemplarRow(facts, exemplars, title, hint) {
  const section = make("section", "pl-exemplars"), head = make("h3", "", title), row = make("div", "pl-exemplar-row");
  head.append(make("small", "", hint));
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
  add("Mean strength", figures.mean === null ? "–" : amountText(figures.mean), "mean activation where it fires");
  add("Strongest", figures.maximum === null ? "–" : amountText(figures.maximum), "maximum over the data set");
  add("Label spread", figures.entropy === null || figures.entropy < 0 ? "–" : figures.entropy.toFixed(2), "entropy of labels, nats: 0 is one label only");
  return tiles;
}

function histogramBox(facts) {
  const section = make("section", "pl-histogram");
  if (!facts.histogram.counts.some((n) => n > 0)) return section;
  const slot = state.code.slotOf.get(facts.latent), here = slot === undefined ? 0 : state.code.max[slot];
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
  const show = makeButton("pl-button pl-primary", "Show in this picture", () => {
    state.concept = facts.latent;
    closeCard();
    render();
  });
  const copy = makeButton("pl-button", "Copy link", () => copyLink(copy));
  foot.append(show, copy);
  return foot;
}
