// What one takes away from the Compare tab: the explanation as a table, both maps as a picture, and Python.

import { bus } from "./bus.js";
import { notes } from "./notes.js";
import { csvOf, download, fileName, jsonOf, today } from "./take_files.js";
import { openPython, TakeMenu } from "./take_menu.js";
import { modelLine, planePng } from "./take_picture.js";

const name = (tab, ending, what) => fileName(ending, ...tab.fileWords(), what);

// Concepts, then what is left over: a column of each head adds up to its score.
function rowsOf(tab) {
  const { explained, off, heads } = tab.view;
  const columns = heads.map((head, side) => (heads.length > 1 ? `${side ? "second" : "first"}_${head}` : head));
  const both = (values) => Object.fromEntries(values.map((value, side) => [`share_${columns[side]}`, value]));
  const rows = explained.concepts.map((concept) => ({
    row: "concept",
    concept: concept.latent,
    name: concept.name,
    your_name: notes.name(concept.latent),
    your_note: notes.get(concept.latent).note,
    pinned: notes.isPinned(concept.latent),
    ...both(concept.shares),
    ...Object.fromEntries(concept.activations.map((value, side) => [`activation_${columns[side]}`, value])),
    used_by: concept.used_by,
    on: !off.has(concept.latent),
  }));
  const sums = [
    ["what any picture gives", explained.heads.map((head) => head.start)],
    ["all other concepts", explained.heads.map((head) => head.rest)],
    ["not explained by concepts", explained.heads.map((head) => head.residual)],
    [explained.classes ? "margin" : "match", explained.heads.map((head) => head.margin)],
  ];
  return [...rows, ...sums.map(([row, values]) => ({ row, ...both(values) }))];
}

function saveExplanation(tab, ending) {
  const { explained, after, task, split, heads, label } = tab.view;
  const rows = rowsOf(tab);
  const file = name(tab, ending, "explanation");
  if (ending === "csv") return download(file, csvOf(Object.keys(rows[0]), rows));
  const facts = { kind: "patchlens comparison", saved: today(), models: tab.props.setup.about, task, split, heads };
  const { question, classes } = explained;
  const predictions = explained.heads.map((head) => head.predictions);
  const switched = after && { scores: after.scores, predictions: after.predictions };
  const content = { ...facts, label, question, classes, predictions, switched_off: switched, rows };
  return download(file, jsonOf(content));
}

async function savePicture(tab) {
  const says = tab.panel.find(".pl-map-says").textContent;
  const because = tab.panel.find(".pl-because").textContent;
  const png = await planePng(tab.panel.find(".pl-two-frames"), [because, says, modelLine(tab.props.setup.about)]);
  return download(name(tab, "png", "maps"), png);
}

function python(tab) {
  const question = { tab: "compare", ...tab.question(), off: [...tab.view.off] };
  return openPython(tab.panel, question, name(tab, "py", "comparison"));
}

export function offerCompare(tab) {
  notes.open(tab.props.setup);
  bus.on("notes", () => tab.view.explained && tab.explanation.drawAnew());
  return new TakeMenu(tab.panel, tab.panel.find(".pl-choices"), () =>
    tab.view.explained
      ? [
          { label: "Both pictures with their maps (PNG)", hint: "as shown", take: () => savePicture(tab) },
          { label: "Explanation (CSV)", hint: "every share, adding up", take: () => saveExplanation(tab, "csv") },
          { label: "Explanation (JSON)", hint: "with predictions", take: () => saveExplanation(tab, "json") },
          { label: "Python", hint: "the same from the library", take: () => python(tab) },
        ]
      : [],
  );
}
