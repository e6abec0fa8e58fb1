// The switch between the lenses of a server, each a page of its own. Knows where they are and which picture
// goes along; knows nothing of what a lens is.

import { bus } from "./bus.js";
import { make } from "./dom.js";
import { query } from "./steps.js";

const FOR_EVERY_LENS = /^(?:own:[a-z0-9]{1,20}|sc:[\w.~-]{1,400})$/;

// What of the view means the same to another lens: one's own picture, a scene, and the tab.
function carried() {
  const now = new URLSearchParams(query());
  const { source } = bus.picture || {};
  const img = [source && source.link, source && source.scene_link, now.get("img")].find((link) =>
    FOR_EVERY_LENS.test(link || ""),
  );
  const tab = now.get("tab");
  const pairs = [...(img ? [["img", img]] : []), ...(tab ? [["tab", encodeURIComponent(tab)]] : [])];
  return pairs.length ? `?v=1&${pairs.map((pair) => pair.join("=")).join("&")}` : "";
}

// The address of a lens's page with the picture that goes along.
export const lensAddress = (address) => address + carried();

// A link that takes the picture in view along, however it is followed.
export function lensLink(className, address) {
  const link = make("a", className);
  const aim = () => link.setAttribute("href", lensAddress(address));
  aim();
  for (const event of ["pointerenter", "pointerdown", "focus", "click"]) link.addEventListener(event, aim);
  return link;
}

// Whether the picture in view is foreign to this lens, in a sentence, and which lens knows such pictures.
export function showForeign(node, foreign) {
  node.hidden = !foreign;
  node.replaceChildren();
  if (!foreign) return;
  node.append(foreign.sentence);
  if (!foreign.other) return;
  const link = lensLink("pl-foreign-link", foreign.other.address);
  link.textContent = `Look with “${foreign.other.title}”, which fits it better`;
  node.append(" ", link);
}

export function layLenses(nav, lenses) {
  if (!lenses || lenses.length < 2) return;
  for (const { title, purpose, address, here } of lenses) {
    const link = lensLink("pl-lens", address);
    link.append(make("b", "", title), make("span", "", purpose));
    if (here) link.setAttribute("aria-current", "page");
    nav.append(link);
  }
  nav.hidden = false;
}
