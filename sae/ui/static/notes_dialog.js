// The dialog of own names, notes and pins: what there is, saved as a file, brought in from one, taken away.

import { bus } from "./bus.js";
import { make, makeButton, plural, setText } from "./dom.js";
import { notes, showName } from "./notes.js";
import { conflictsOf, joined, readFile, writeFile } from "./notes_file.js";
import { download, fileName, today } from "./take_files.js";

const MOST_BYTES = 16 * 1024 * 1024;
const WHERE =
  "Names, notes and pins that you give on a concept's card are kept in this browser, for this SAE, and are sent to " +
  "nobody. Save them as a file to keep them, to share them, or for Python: index.with_notes(file).";
const TOO_LARGE = "This file is larger than 16 MB, so it was not saved here. Choose another one.";
const NOTHING_NEW = "Everything in this file is here already; nothing was changed.";

const brief = ({ name, note }) =>
  [name && `“${name}”`, note && `note: ${note.slice(0, 60)}`].filter(Boolean).join(", ");

const button = (text, act, kind = "") => makeButton(`pl-button ${kind}`, text, act);

class NotesDialog {
  constructor(panel) {
    this.panel = panel;
    this.undone = null; // what there was before the last large change
    this.node = make("dialog", "pl-take-dialog pl-mine-dialog");
    this.node.setAttribute("aria-label", "Your names, notes and pins");
    this.count = make("p", "pl-subtitle");
    this.said = make("p", "pl-mine-said");
    this.said.setAttribute("role", "status");
    this.list = make("ul", "pl-mine-list");
    this.ask = make("div", "pl-mine-ask");
    this.file = make("input");
    Object.assign(this.file, { type: "file", accept: ".json,application/json", hidden: true });
    this.file.addEventListener("change", () => this.takeFile());
    this.lay();
  }

  lay() {
    this.save = button("Save as a file", () => this.saveFile(), "pl-primary");
    this.undo = button("Undo", () => this.takeBack());
    this.removeAll = button("Remove all", () => this.clear());
    const foot = make("div", "pl-actions");
    foot.append(
      this.save,
      button("Bring in a file …", () => this.file.click()),
      this.removeAll,
      this.undo,
      button("Close", () => this.node.close()),
    );
    this.node.append(
      make("h2", "pl-title", "Your names, notes and pins"),
      this.count,
      this.said,
      this.ask,
      this.list,
      make("p", "pl-note", WHERE),
      foot,
      this.file,
    );
    const draw = () => this.node.isConnected && this.draw();
    bus.on("notes", draw);
    this.node.addEventListener("close", () => this.node.remove());
  }

  open() {
    this.ask.replaceChildren();
    this.say(notes.problem);
    this.undone = null;
    this.draw();
    this.panel.root.append(this.node);
    this.node.showModal();
  }

  say(sentence, tone = "") {
    setText(this.said, sentence);
    this.said.hidden = !sentence;
    this.said.dataset.tone = tone;
  }

  draw() {
    const { size } = notes.all;
    setText(this.count, size ? `${plural(size, "concept", "concepts")}` : "None yet: open a concept's card to begin.");
    this.save.disabled = !size;
    this.removeAll.disabled = !size;
    this.undo.hidden = !this.undone;
    const rows = notes.pinnedFirst([...notes.all.keys()].sort((a, b) => a - b)).map((latent) => this.row(latent));
    this.list.replaceChildren(...rows);
  }

  row(latent) {
    const item = make("li");
    const open = makeButton("pl-mine-row", "", () => {
      this.node.close();
      bus.card.open(latent);
    });
    const name = make("span", "pl-mine-name");
    showName(name, latent, "");
    open.append(name, make("small", "pl-number", `#${latent}`), make("small", "pl-mine-text", notes.get(latent).note));
    item.append(open);
    return item;
  }

  saveFile() {
    const name = download(
      fileName("json", "notes", notes.about.sae, today()),
      writeFile(notes.all, notes.about, today()),
    );
    this.say(`Saved as ${name}.`);
  }

  // A change of many at once, which can be taken back.
  replace(all, sentence) {
    this.undone = notes.all;
    notes.replace(all);
    this.say(`${sentence}${notes.problem ? ` ${notes.problem}` : ""}`);
    this.ask.replaceChildren();
    this.undo.focus();
  }

  clear() {
    this.replace(new Map(), `Removed: ${plural(notes.all.size, "concept", "concepts")}. “Undo” brings them back.`);
  }

  takeBack() {
    const before = this.undone;
    this.undone = null;
    notes.replace(before);
    this.ask.replaceChildren();
    this.say("As it was before.");
    this.save.focus();
  }

  async takeFile() {
    const [file] = this.file.files;
    this.file.value = "";
    this.ask.replaceChildren();
    if (!file) return;
    if (file.size > MOST_BYTES) {
      this.say(TOO_LARGE, "problem");
      return;
    }
    try {
      const { notes: theirs, other } = readFile(await file.text(), notes.about, notes.limits);
      if (other) this.refuse(theirs, other);
      else this.offer(theirs);
    } catch (error) {
      this.say(error.message, "problem");
    }
  }

  refuse(theirs, sentence) {
    this.say(sentence, "problem");
    if (!theirs.size) return;
    const words = `Take ${plural(theirs.size, "concept", "concepts")} by number all the same`;
    this.ask.replaceChildren(makeButton("pl-button", words, () => this.offer(theirs)));
  }

  // Whatever does not contradict is simply added; of the rest one says which to take.
  offer(theirs) {
    const conflicts = conflictsOf(notes.all, theirs);
    this.say("");
    if (!conflicts.length) this.join(theirs, new Set());
    else this.askAbout(theirs, conflicts);
  }

  join(theirs, taken) {
    const all = joined(notes.all, theirs, taken);
    if (all.size > notes.limits.own_concepts) {
      this.say(`Together that is ${all.size} concepts, and ${notes.limits.own_concepts} are kept. Remove some first.`);
      return;
    }
    const was = notes.all;
    const same = (latent) => JSON.stringify(was.get(latent)) === JSON.stringify(all.get(latent));
    const changed = [...all.keys()].filter((latent) => !same(latent)).length;
    if (changed) this.replace(all, `Taken: ${plural(changed, "concept", "concepts")} new or changed.`);
    else this.say(NOTHING_NEW);
  }

  askAbout(theirs, conflicts) {
    const taken = new Set();
    const boxes = [];
    const list = make("ul", "pl-mine-conflicts");
    for (const latent of conflicts) {
      const label = make("label", "pl-check");
      const box = make("input");
      box.type = "checkbox";
      box.addEventListener("change", () => (box.checked ? taken.add(latent) : taken.delete(latent)));
      boxes.push(box);
      const words = make("span", "", `#${latent} `);
      words.append(make("bdi", "", brief(notes.get(latent))), " → ", make("bdi", "", brief(theirs.get(latent))));
      label.append(box, words);
      const item = make("li");
      item.append(label);
      list.append(item);
    }
    const all = makeButton("pl-quiet", "Tick all", () => {
      for (const box of boxes) box.checked = true;
      for (const latent of conflicts) taken.add(latent);
    });
    const say = `You and the file say different things of ${plural(conflicts.length, "concept", "concepts")}. `;
    const foot = make("div", "pl-actions");
    foot.append(
      makeButton("pl-button pl-primary", "Bring in", () => this.join(theirs, taken)),
      all,
      makeButton("pl-quiet", "Leave it", () => this.ask.replaceChildren()),
    );
    this.ask.replaceChildren(
      make("p", "", `${say}Tick where the file's is to be taken; yours stays elsewhere.`),
      list,
      foot,
    );
    boxes[0].focus();
  }
}

let shown = null;

export function openNotesDialog(panel) {
  if (!shown) shown = new NotesDialog(panel);
  shown.panel = panel;
  shown.open();
}
