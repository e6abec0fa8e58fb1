// What one takes away from the Steer tab: the experiment as a picture that carries it, its answers, and Python.

import { bus } from "./bus.js";
import { notes } from "./notes.js";
import { pictureWord } from "./take_concepts.js";
import { csvOf, download, fileName, jsonOf, today } from "./take_files.js";
import { openPython, TakeMenu } from "./take_menu.js";

const word = () => (bus.picture ? pictureWord(bus.picture.value) : "");

function saveAnswers(tab, ending) {
  const { prompt, rows, errorTerm } = tab.experiment.state;
  const edits = rows
    .filter((row) => row.on)
    .map(({ latent, strength, where, mode }) => ({
      concept: latent,
      name: (tab.experiment.known.get(latent) || {}).name || "",
      your_name: notes.name(latent),
      strength,
      where,
      mode,
    }));
  const name = fileName(ending, word(), "steering-answers");
  const { original, steered, control } = tab.answers.shown;
  const answers = Object.entries({ original, steered, control }).map(([which, text]) => ({ which, text: text || "" }));
  if (ending === "csv") return download(name, csvOf(["which", "text"], answers));
  const models = tab.props.setup.about;
  const content = { kind: "patchlens steering", saved: today(), models, prompt, error_term: errorTerm, edits, answers };
  return download(name, jsonOf(content));
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
