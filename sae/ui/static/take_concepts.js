// What one takes away from the Concepts tab: the picture with its map, the concepts as a table, and Python.

import { bus } from "./bus.js";
import { rankPatches, rankPicture } from "./code.js";
import { amountText, plural } from "./dom.js";
import { notes } from "./notes.js";
import { csvOf, download, exact, fileName, jsonOf, rounded, today } from "./take_files.js";
import { openPython, TakeMenu } from "./take_menu.js";
import { modelLine, picturePng } from "./take_picture.js";

const MOST_CHOSEN = 12; // patches that a caption names one by one

// The words for a picture in names of files.
export const pictureWord = ({ source }) => source.name || (source.kind === "upload" ? "your-picture" : "scene");

// The concepts of the chosen patches, or of the whole picture, as they are listed: slots and amounts.
function listed({ state }) {
  const { code, patches, rank, showDense } = state;
  const ranked = patches.size ? rankPatches(code, [...patches], rank) : rankPicture(code, rank);
  const strongest = showDense ? ranked.slots : ranked.slots.filter((slot) => !code.dense.has(slot));
  return { slots: notes.pinnedFirst(strongest, (slot) => code.ids[slot]), amounts: ranked.amounts };
}

const orderOf = ({ patches, rank }) =>
  rank === "mean" ? "average" : rank === "cls" && !patches.size ? "summary token" : "strongest patch";

// Names and statistics of concepts as the index has them.
export async function factsOf(panel, latents) {
  const answer = await panel.ask({ way: "figures", latents });
  if (!answer) throw new Error("no figures");
  return answer;
}

// The columns that every table of concepts begins with.
export function headOf(latent, at, { names, guess }) {
  const { name, note, pinned } = notes.get(latent);
  return {
    concept: latent,
    name: names[at],
    guess: guess[at],
    your_name: name,
    your_note: note,
    pinned,
  };
}

async function tableOf(tab) {
  const { code } = tab.state;
  const { slots, amounts } = listed(tab);
  const facts = await factsOf(
    tab.panel,
    slots.map((slot) => code.ids[slot]),
  );
  return slots.map((slot, at) => {
    const most = code.datasetMax ? code.datasetMax[slot] : 0;
    const row = { ...headOf(code.ids[slot], at, facts), activation: rounded(amounts[slot]) };
    row.share_of_maximum = most > 0 ? rounded(amounts[slot] / most) : null;
    for (const [name, values] of Object.entries(facts.figures)) row[name] = exact(values[at]);
    return row;
  });
}

const whereWord = ({ patches }) => (patches.size ? plural(patches.size, "patch", "patches") : "picture");

async function saveTable(tab, ending) {
  const { state, props } = tab;
  const rows = await tableOf(tab);
  const name = fileName(ending, pictureWord(state.value), "concepts-of", whereWord(state), orderOf(state));
  if (ending === "csv") return download(name, csvOf(Object.keys(rows[0] || { concept: 0 }), rows));
  const facts = {
    kind: "patchlens concepts",
    saved: today(),
    models: props.setup.about,
    picture: { kind: state.value.source.kind, link: state.value.source.link || null },
    patches: [...state.patches],
    order: orderOf(state),
    precision: "activations are within 1/510 of a concept's largest one in the picture",
  };
  return download(name, jsonOf({ ...facts, concepts: rows }));
}

function captions(tab) {
  const { state, list, props } = tab;
  const { code, concept, patches, scale } = state;
  const lines = [];
  if (concept === null) lines.push("No concept chosen");
  else {
    const slot = code.slotOf.get(concept);
    const top = scale === "dataset" ? "its maximum over the data set" : "its maximum in this picture";
    const most = slot === undefined ? "does not fire" : `at most ${amountText(code.max[slot])}; full colour is ${top}`;
    lines.push(`${notes.word(concept, list.conceptName(slot))} (concept ${concept}): ${most}`);
  }
  const cells = [...patches].sort((a, b) => a - b);
  const named = cells.slice(0, MOST_CHOSEN).map((patch) => list.patchWords(patch));
  const more = cells.length > MOST_CHOSEN ? ` and ${cells.length - MOST_CHOSEN} more` : "";
  if (cells.length) lines.push(`Chosen: ${named.join("; ")}${more}`);
  return [...lines, modelLine(props.setup.about)];
}

async function savePicture(tab) {
  const { state, stage, panel } = tab;
  const png = await picturePng([panel.find(".pl-photo"), stage.mapCanvas, stage.markCanvas], captions(tab));
  const concept = state.concept === null ? "" : `concept-${state.concept}`;
  return download(fileName("png", pictureWord(state.value), "map", concept), png);
}

const isCut = ({ code }, most) =>
  Array.from({ length: code.places }, (_, place) => code.byPlace.start[place + 1] - code.byPlace.start[place]).some(
    (n) => n >= most,
  );

function python(tab) {
  const { state, limits } = tab;
  const question = {
    tab: "concepts",
    picture: bus.picture.request, // the same picture as here
    patches: [...state.patches],
    rank: state.rank,
    always: state.showDense,
    cut: isCut(state, limits.per_place),
    pinned: notes.pins(),
    own_names: notes.named().length > 0,
  };
  return openPython(tab.panel, question, fileName("py", pictureWord(state.value), "concepts"));
}

export function offerConcepts(tab) {
  notes.open(tab.props.setup);
  bus.on("notes", () => tab.render());
  const where = () => (tab.state.patches.size ? `these ${whereWord(tab.state)}` : "this picture");
  return new TakeMenu(tab.panel, tab.panel.find(".pl-actions"), () =>
    tab.state.code
      ? [
          { label: "Picture with its map (PNG)", hint: "as shown, with a caption", take: () => savePicture(tab) },
          { label: `Concepts of ${where()} (CSV)`, hint: "for a spreadsheet", take: () => saveTable(tab, "csv") },
          { label: `Concepts of ${where()} (JSON)`, hint: "for a program", take: () => saveTable(tab, "json") },
          { label: "Python", hint: "the same list from the library", take: () => python(tab) },
        ]
      : [],
  );
}
