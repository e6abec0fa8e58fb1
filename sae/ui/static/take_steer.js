// What one takes away from the Steer tab: the experiment as a picture that carries it, its answers, and Python.

import { bus } from "./bus.js";
import { notes } from "./notes.js";
import { pictureWord } from "./take_concepts.js";
import { csvOf, download, fileName, jsonOf, today } from "./take_files.js";
import { openPython, TakeMenu } from "./take_menu.js";

const word = () => (bus.picture ? pictureWord(bus.picture.value) : "");

function editsOf(tab) {
  return tab.experiment.state.rows
    .filter((row) => row.on)
    .map(({ latent, strength, where, mode }) => ({
      concept: latent,
      name: (tab.experiment.known.get(latent) || {}).name || "",
      your_name: notes.name(latent),
      strength,
      where,
      mode,
    }));
}

// `rows` are what a CSV has; a JSON file has what was turned as well.
function save(tab, { ending, what, asked, rows }) {
  const name = fileName(ending, word(), what);
  if (ending === "csv") return download(name, csvOf(Object.keys(rows[0]), rows));
  const facts = { kind: "patchlens steering", saved: today(), models: tab.props.setup.about };
  const { errorTerm } = tab.experiment.state;
  const content = { ...facts, ...asked, error_term: errorTerm, edits: editsOf(tab), answers: rows };
  return download(name, jsonOf(content));
}

function saveAnswers(tab, ending) {
  const { prompt } = tab.experiment.state;
  const { original, steered, control } = tab.answers.shown;
  const rows = Object.entries({ original, steered, control }).map(([which, text]) => ({ which, text: text || "" }));
  return save(tab, { ending, what: "steering-answers", asked: { prompt }, rows });
}

function saveClasses(tab, ending) {
  const { classes, relative_change: change, control_latent: random } = tab.answers.shown;
  const rows = classes.map(({ name, before, after, control }) => ({ class: name, before, after, control }));
  return save(tab, { ending, what: "classes", asked: { relative_change: change, control_latent: random }, rows });
}

function python(tab) {
  return openPython(tab.panel, { tab: "steer", ...tab.question() }, fileName("py", word(), "steering"));
}

export function offerSteer(tab) {
  notes.open(tab.props.setup);
  bus.on("notes", () => tab.rack.drawRack());
  return new TakeMenu(tab.panel, tab.panel.find(".pl-share-row"), () => [
    {
      label: "Picture of the experiment (PNG)",
      hint: "drop it onto this tab to go on from it",
      take: () => tab.savePicture(fileName("png", word(), "steering")),
    },
    { label: "Answers (CSV)", hint: "as it is, steered, control", take: () => saveAnswers(tab, "csv") },
    { label: "Answers (JSON)", hint: "with what was turned", take: () => saveAnswers(tab, "json") },
    { label: "Python", hint: "the same answers from the library", take: () => python(tab) },
  ]);
}

export function offerClasses(tab) {
  notes.open(tab.props.setup);
  bus.on("notes", () => tab.rack.drawRack());
  return new TakeMenu(tab.panel, tab.panel.find(".pl-share-row"), () =>
    tab.answers.shown
      ? [
          {
            label: "Picture of the experiment (PNG)",
            hint: "drop it onto this tab to go on from it",
            take: () => tab.savePicture(fileName("png", word(), "classes")),
          },
          { label: "Classes (CSV)", hint: "as it is, changed, control", take: () => saveClasses(tab, "csv") },
          { label: "Classes (JSON)", hint: "with what was turned", take: () => saveClasses(tab, "json") },
          { label: "Python", hint: "the same from the library", take: () => python(tab) },
        ]
      : [],
  );
}
