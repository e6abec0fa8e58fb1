// The header's words and figures, from the component's value; text goes in through textContent.

import { make } from "./dom.js";
import { guide } from "./guide.js";
import { giveHints, hinted } from "./hints.js";
import { layLenses } from "./lenses.js";
import { keepSliders } from "./sliders.js";

export function start({ element, props }) {
  giveHints();
  keepSliders();
  const facts = props.value || {};
  layLenses(element.querySelector(".pl-lenses"), props.setup.lenses);
  element.querySelector(".pl-promise").textContent = facts.promise || "";
  element.querySelector(".pl-lead").textContent = facts.lead || "";
  if (props.setup.guided) guide(element.querySelector(".pl-guide"));
  for (const [term, text, help] of facts.figures || []) {
    const item = make("li");
    const words = make("span", "", term);
    item.append(help ? hinted(words, help) : words, " ", make("b", "", text));
    element.querySelector(".pl-facts").append(item);
  }
  const warning = element.querySelector(".pl-warning");
  warning.hidden = !facts.warning;
  warning.textContent = facts.warning || "";
}
