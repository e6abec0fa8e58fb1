// The header's words and figures, from the component's value; text goes in through textContent.

import { make } from "./dom.js";

export function start({ element, props }) {
  const facts = props.value || {};
  element.querySelector(".pl-lead").textContent = facts.lead || "";
  for (const [term, text, help] of facts.figures || []) {
    const item = make("li");
    if (help) item.title = help;
    item.append(make("span", "", term), " ", make("b", "", text));
    element.querySelector(".pl-facts").append(item);
  }
  const warning = element.querySelector(".pl-warning");
  warning.hidden = !facts.warning;
  warning.textContent = facts.warning || "";
}
