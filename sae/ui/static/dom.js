// Small hands: find, make and number things. Text only ever goes in through textContent.

import { mend } from "./own_pictures.js";

const SVG = "http://www.w3.org/2000/svg";
const SPOKEN_EVERY_MS = 400;
const SHOWN_AFTER_MS = 15000;
const pictureColours = new Map();
const NO_ANSWER = "The server did not answer. Try again, or reload the page.";

export function make(tag, name, text) {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text !== undefined) node.textContent = text;
  return node;
}

// A picture that comes later: until then, and where it cannot be shown, its place and nothing broken.
const NOTHING = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw==";

export function makePicture(name, alt = "") {
  const image = make("img", name);
  image.alt = alt;
  image.draggable = false;
  image.addEventListener("error", () => showPicture(image, ""));
  showPicture(image, "");
  return image;
}

export function showPicture(image, source) {
  const shown = source || NOTHING;
  if (image.getAttribute("src") !== shown) image.src = shown;
  image.classList.toggle("pl-has", Boolean(source));
}

export function makeButton(name, text, act) {
  const node = make("button", name, text);
  node.type = "button";
  if (act) node.addEventListener("click", act);
  return node;
}

export function svg(name, attributes) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Makes `nodes` the children of `parent`; what stays where it is keeps focus and pointer.
export function setChildren(parent, nodes) {
  const wanted = new Set(nodes);
  for (const child of Array.from(parent.children)) if (!wanted.has(child)) child.remove();
  nodes.forEach((node, at) => {
    if (parent.children[at] !== node) parent.insertBefore(node, parent.children[at] || null);
  });
}

// A button that cannot be pressed now; the focus, if it has it, goes to `next`.
export function setDisabled(button, disabled, next) {
  if (disabled && document.activeElement === button) next.focus();
  button.disabled = disabled;
}

export function amountText(amount) {
  if (!(amount > 0)) return "0";
  if (amount >= 100) return amount.toFixed(0);
  if (amount >= 10) return amount.toFixed(1);
  return amount >= 0.01 ? amount.toFixed(2) : amount.toExponential(0);
}

export function shareText(share) {
  if (share >= 0.995) return "100 %";
  return share > 0 && share < 0.01 ? `${(100 * share).toFixed(1)} %` : `${Math.round(100 * share)} %`;
}

// A figure in the format of its statistic, "exact" where there is room for it; "–" for none.
export function figureText(format, value, exact = false) {
  if (!Number.isFinite(value)) return "–";
  if (format === "activation") return amountText(value);
  if (format === "share" && value >= 0.1) return shareText(value);
  if (format === "share") {
    return `${exact ? (100 * value).toFixed(2).replace(/0$/, "") : (100 * value).toPrecision(2)} %`;
  }
  return format === "tiny" && exact && value < 0.01 ? value.toExponential(0) : value.toFixed(2);
}

export const plural = (n, one, many) => `${n} ${n === 1 ? one : many}`;

// A colour of colours.css as it is now, light or dark, for what is drawn on a canvas.
export const colour = (name) => getComputedStyle(document.body).getPropertyValue(`--pl-${name}`).trim();

// The same for what lies over pictures, light and dark alike: read once, for drawing with the pointer.
export function pictureColour(name) {
  if (!pictureColours.get(name)) pictureColours.set(name, colour(name));
  return pictureColours.get(name);
}

// Whether the key goes into a field.
export function isTyping({ target }) {
  return Boolean(target.closest && target.closest("input:not([type=range]), textarea, select, [contenteditable]"));
}

// Whether what is typed there has steps of its own to undo; a list, a box or a slider has none.
export function takesText({ target }) {
  const plain = "[type=range], [type=checkbox], [type=radio], [type=file]";
  return Boolean(target.closest && target.closest(`input:not(:is(${plain})), textarea, [contenteditable]`));
}

// A button says that it is at work until the act is done.
export async function busyWhile(button, act) {
  if (button.getAttribute("aria-disabled") === "true") return;
  const { textContent } = button;
  button.setAttribute("aria-disabled", "true"); // a disabled button would lose the focus
  setText(button, "Running …");
  try {
    await act();
  } finally {
    button.removeAttribute("aria-disabled");
    setText(button, textContent);
  }
}

// A group of radio buttons: one tab stop, arrows move, `choose` hears the new value.
export function switchGroup(node, choose) {
  const options = [...node.querySelectorAll("[role=radio]")];
  node.addEventListener("click", (event) => {
    const option = event.target.closest("[role=radio]");
    if (option && !option.disabled) choose(option.dataset.value);
  });
  node.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    const shown = options.filter((option) => !option.hidden && !option.disabled);
    const at = shown.indexOf(document.activeElement);
    const next = shown[(at + step + shown.length) % shown.length];
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

// What every tab has: its own nodes, the server, a line for messages, and a voice for screen readers.
export class Panel {
  constructor(element, server) {
    this.root = element.querySelector(".pl");
    this.server = server;
    this.spokenAt = 0;
    this.speaking = 0;
    const close = this.find(".pl-notice-close");
    if (close) close.addEventListener("click", () => this.notice([]));
  }

  find(selector) {
    return this.root.querySelector(selector);
  }

  findAll(selector) {
    return [...this.root.querySelectorAll(selector)];
  }

  // The answer to {way, …}; null where there is none, which is then said. A picture of one's own that the
  // server has not any more is sent again.
  async ask(question, silence = NO_ANSWER) {
    let answer = await this.answerTo(question, silence);
    if (answer.problem && (await mend(question.picture || question, answer))) {
      answer = await this.answerTo(question, silence);
    }
    if (!answer.problem) return answer;
    this.notice(answer.problem, "problem");
    return null;
  }

  async answerTo(question, silence) {
    try {
      return await this.server.ask(question);
    } catch {
      return { problem: silence };
    }
  }

  isVisible() {
    return this.root.isConnected && this.root.offsetParent !== null;
  }

  // A tab that waits for its first answer before it shows anything waits no longer than this.
  showAtLast() {
    setTimeout(() => {
      if (this.root.dataset.state === "loading") this.root.dataset.state = "ready";
    }, SHOWN_AFTER_MS);
  }

  notice(sentences, tone = "info") {
    const list = [].concat(sentences).filter(Boolean);
    const box = this.find(".pl-notice");
    box.hidden = list.length === 0;
    box.dataset.tone = tone;
    setText(this.find(".pl-notice-text"), list.join(" "));
  }

  say(sentence) {
    clearTimeout(this.speaking);
    const wait = Math.max(0, SPOKEN_EVERY_MS - (performance.now() - this.spokenAt));
    this.speaking = setTimeout(() => {
      this.spokenAt = performance.now();
      this.find(".pl-live").textContent = sentence;
    }, wait);
  }
}
