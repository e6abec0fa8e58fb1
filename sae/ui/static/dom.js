// Small hands: find, make and number things. Text only ever goes in through textContent.

const find = (selector, root = element) => root.querySelector(selector);
const root = find(".pl");

function make(tag, name, text) {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text !== undefined) node.textContent = text;
  return node;
}

function makeButton(name, text, act) {
  const node = make("button", name, text);
  node.type = "button";
  if (act) node.addEventListener("click", act);
  return node;
}

function setText(node, text) { if (node.textContent !== text) node.textContent = text; }

function amountText(amount) {
  if (!(amount > 0)) return "0";
  return amount >= 100 ? amount.toFixed(0) : amount >= 10 ? amount.toFixed(1) : amount >= 0.01 ? amount.toFixed(2) : amount.toExponential(0);
}

const shareText = (share) => share >= 0.995 ? "100 %" : share > 0 && share < 0.01 ? (100 * share).toFixed(1) + " %" : Math.round(100 * share) + " %";
const plural = (n, one, many) => n + " " + (n === 1 ? one : many);

// A button says that it is at work until the act is done.
async function busyWhile(button, act) {
  const { textContent } = button;
  button.disabled = true;
  setText(button, "Running …");
  try { await act(); } finally { button.disabled = false; setText(button, textContent); }
}

// A group of radio buttons: one tab stop, arrows move, `choose` hears the new value.
function switchGroup(node, choose) {
  const options = [...node.querySelectorAll("[role=radio]")];
  const shown = () => options.filter((option) => !option.hidden && !option.disabled);
  node.addEventListener("click", (event) => {
    const option = event.target.closest("[role=radio]");
    if (option && !option.disabled) choose(option.dataset.value);
  });
  node.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    const all = shown(), at = all.indexOf(document.activeElement);
    const next = all[(at + step + all.length) % all.length];
    choose(next.dataset.value);
    next.focus();
  });
  return (value) => {
    for (const option of options) {
      const on = option.dataset.value === value;
      option.setAttribute("aria-checked", String(on));
      option.tabIndex = on ? 0 : -1;
    }
  };
}

let noticeTimer = 0;
function notice(sentences, tone) {
  const list = [].concat(sentences).filter(Boolean), box = find(".pl-notice");
  box.hidden = list.length === 0;
  box.dataset.tone = tone || "info";
  setText(find(".pl-notice-text"), list.join(" "));
  clearTimeout(noticeTimer);
}

let spokenAt = 0, speaking = 0;
function say(sentence) {
  clearTimeout(speaking);
  const wait = Math.max(0, 400 - (performance.now() - spokenAt));
  speaking = setTimeout(() => { spokenAt = performance.now(); find(".pl-live").textContent = sentence; }, wait);
}
