// Many buttons, one tab stop: arrows walk among them, up and down where they stand in rows, Home and End go to
// the first and the last. Knows places on screen; does not know what the buttons do.

const FORWARD = { ArrowRight: 1, ArrowLeft: -1 };
const DOWN = { ArrowDown: 1, ArrowUp: -1 };

// From now on, for the buttons in `box` that `selector` finds, also those that come later.
export function rove(box, selector) {
  const items = () => [...box.querySelectorAll(selector)].filter((one) => one.offsetParent);
  const settle = (current) => {
    const all = [...box.querySelectorAll(selector)];
    const stop = current || all.find((one) => one.tabIndex === 0 && one.offsetParent) || items()[0] || all[0];
    for (const one of all) one.tabIndex = one === stop ? 0 : -1;
  };
  box.addEventListener("focusin", ({ target }) => {
    if (target.matches(selector)) settle(target);
  });
  box.addEventListener("keydown", (event) => {
    if (!event.target.matches(selector) || event.ctrlKey || event.metaKey || event.altKey) return;
    const next = nextOf(items(), event.target, event.key);
    if (next === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    if (next) next.focus();
  });
  new MutationObserver(() => settle()).observe(box, { childList: true });
  settle();
}

// Undefined for a key that does not walk, null where there is nothing on that side.
function nextOf(all, from, key) {
  if (key === "Home") return all[0];
  if (key === "End") return all.at(-1);
  const at = all.indexOf(from);
  if (FORWARD[key]) return all[at + FORWARD[key]] || null;
  if (!DOWN[key]) return undefined;
  const sign = DOWN[key];
  const here = from.getBoundingClientRect();
  const far = (one) => {
    const there = one.getBoundingClientRect();
    return [sign * (there.top - here.top), Math.abs(there.left - here.left)];
  };
  const beyond = all.filter((one) => far(one)[0] > here.height / 2);
  const inOneRow = all.every((one) => Math.abs(far(one)[0]) <= here.height / 2);
  if (inOneRow) return all[at + sign] || null;
  return beyond.sort((a, b) => far(a)[0] - far(b)[0] || far(a)[1] - far(b)[1])[0] || null;
}
