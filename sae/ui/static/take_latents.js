// What one takes away from the Latents tab: the map, the table as filtered and sorted, and Python. Also one's own
// pins there: a mark on the map and a filter.

import { bus } from "./bus.js";
import { notes } from "./notes.js";
import { factsOf, headOf } from "./take_concepts.js";
import { csvOf, download, exact, fileName, jsonOf, rounded, today } from "./take_files.js";
import { openPython, TakeMenu } from "./take_menu.js";
import { modelLine, planePng } from "./take_picture.js";

const PIN = 7;

// What the table lists, in words, for captions and names of files.
function whatIsListed({ table, field, panel }) {
  const { found, fenced, how } = table.list;
  const text = field.value.trim();
  const on = Object.values(table.filters).filter((box) => box.checked);
  return {
    search: found ? text || how : "",
    filters: on.map((box) => box.parentElement.textContent.trim()),
    lasso: fenced ? fenced.size : 0,
    order: `${table.list.by}, ${table.list.down ? "falling" : "rising"}`,
    title: panel.find(".pl-subtitle").textContent,
  };
}

async function tableOf(tab) {
  const { order, found, scores } = tab.table.list;
  const facts = await factsOf(tab.panel, order);
  return order.map((latent, at) => {
    const row = headOf(latent, at, facts);
    if (found) row.fit = scores && scores.has(latent) ? rounded(scores.get(latent)) : null;
    for (const [name, values] of Object.entries(facts.figures)) row[name] = exact(values[at]);
    return row;
  });
}

async function saveTable(tab, ending) {
  const rows = await tableOf(tab);
  const what = whatIsListed(tab);
  const { about } = tab.props.setup;
  const name = fileName(ending, "table", about.sae, what.search, `${rows.length} concepts`);
  if (ending === "csv") return download(name, csvOf(Object.keys(rows[0] || { concept: 0 }), rows));
  return download(name, jsonOf({ kind: "patchlens table", saved: today(), models: about, ...what, concepts: rows }));
}

async function saveMap(tab) {
  const what = whatIsListed(tab);
  const { about } = tab.props.setup;
  const searched = what.search ? `, lit: “${what.search}”` : "";
  const choice = tab.panel.find(".pl-colour-by");
  const colour = choice.selectedOptions.length ? `colour: ${choice.selectedOptions[0].textContent}` : "";
  const first = `${tab.panel.find(".pl-plane").getAttribute("aria-label")}${searched}`;
  const kept = [what.filters.join(", "), colour].filter(Boolean).join(" · ");
  const png = await planePng(tab.panel.find(".pl-plane"), [first, kept, modelLine(about)].filter(Boolean));
  return download(fileName("png", "map-of-concepts", about.sae, what.search), png);
}

function python(tab) {
  const { table, field } = tab;
  const { list, filters } = table;
  const { picture } = bus;
  const like = list.found && !field.value.trim() ? list.asked : null;
  const text = list.found ? field.value.trim() : "";
  const question = {
    tab: "latents",
    by: list.by,
    down: list.down,
    filters: Object.fromEntries(Object.entries(filters).map(([name, box]) => [name, box.checked])),
    picture: picture && picture.request,
    fenced: list.fenced && [...list.fenced],
    text,
    meaning: tab.props.setup.by_meaning && !/^#?\d+$/.test(text),
    like: like && like.picture,
    like_patches: like && like.patches,
    yours: text ? tab.all.yours(text) : [],
    named_by_you: notes.named(),
    pinned: notes.pins(),
    own_names: notes.named().length > 0,
  };
  return openPython(tab.panel, question, fileName("py", "table-of-concepts"));
}

export function offerLatents(tab) {
  notes.open(tab.props.setup);
  bus.on("notes", () => tab.refresh());
  return new TakeMenu(tab.panel, tab.panel.find(".pl-find"), () =>
    tab.all.n
      ? [
          { label: "Map (PNG)", hint: "as shown, with a caption", take: () => saveMap(tab) },
          { label: "Table (CSV)", hint: "all rows, as filtered and sorted", take: () => saveTable(tab, "csv") },
          { label: "Table (JSON)", hint: "the same for a program", take: () => saveTable(tab, "json") },
          { label: "Python", hint: "the same table from the library", take: () => python(tab) },
        ]
      : [],
  );
}

// A diamond around every pinned concept that is on the map.
export function drawPins(context, map) {
  for (const latent of notes.pins()) {
    if (!map.tab.table.list.kept[latent] || Number.isNaN(map.atlas.x[latent])) continue;
    const x = map.screenX(map.atlas.x[latent]);
    const y = map.screenY(map.atlas.y[latent]);
    context.beginPath();
    context.moveTo(x, y - PIN);
    context.lineTo(x + PIN, y);
    context.lineTo(x, y + PIN);
    context.lineTo(x - PIN, y);
    context.closePath();
    context.strokeStyle = map.ink;
    context.lineWidth = 2;
    context.stroke();
  }
}
