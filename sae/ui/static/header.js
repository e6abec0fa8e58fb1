// The header's words and figures, from the component's value; text goes in through textContent.
const facts = props.value || {};
element.querySelector(".pl-lead").textContent = facts.lead || "";
for (const [term, text, help] of facts.figures || []) {
  const item = document.createElement("li");
  const name = document.createElement("span"), value = document.createElement("b");
  name.textContent = term;
  value.textContent = text;
  if (help) item.title = help;
  item.append(name, " ", value);
  element.querySelector(".pl-facts").append(item);
}
const warning = element.querySelector(".pl-warning");
warning.hidden = !facts.warning;
warning.textContent = facts.warning || "";
