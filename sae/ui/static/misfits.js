// What of a link does not fit this page, in one sentence above all tabs. Knows no link: whoever reads a
// part of one tells what was left out.

import { make, makeButton, setText } from "./dom.js";

const left = new Set();
let box = null;

// `clause` goes on from "This link does not quite fit here:"; nothing of a link is ever repeated in it.
export function leaveOut(...clauses) {
  for (const clause of clauses) left.add(clause);
  if (!left.size) return;
  if (!box) box = makeBox();
  const said = [...left].join(", ").replace(/, ([^,]*)$/, left.size > 1 ? ", and $1" : ", $1");
  setText(box.firstChild, `This link does not quite fit here: ${said}. What fits is shown.`);
  box.hidden = false;
  placeBox(100);
}

function makeBox() {
  const node = make("div", "pl-misfit");
  const close = makeButton("pl-misfit-close", "×", () => {
    left.clear();
    node.hidden = true;
  });
  close.setAttribute("aria-label", "Dismiss this message");
  node.setAttribute("role", "status");
  node.append(make("p"), close);
  return node;
}

// Above the tabs, once Gradio has laid them; while the page is being laid it may lay them anew.
function placeBox(tries) {
  const tabs = document.querySelector("#tabs");
  if (tabs && box.nextElementSibling !== tabs) tabs.before(box);
  if (tries) setTimeout(placeBox, 50, tries - 1);
}
