// A picture that stays in view on a narrow screen: once it has been scrolled past, it floats small in a
// corner below the tabs, until it comes into view again. Knows nothing of what the picture shows.

import { make } from "./dom.js";

const NARROW = window.matchMedia("(max-width: 720px)");
const MOSTLY_GONE = 0.6; // of its height still in view

// `picture` keeps its place: a box of its size stays where it was, so nothing jumps. It floats while
// `whole`, which it belongs to, is in view.
export function keepInView(picture, whole) {
  const place = make("div", "pl-place");
  picture.replaceWith(place);
  place.append(picture);

  const afloat = () => place.classList.contains("pl-afloat");
  const land = () => {
    place.classList.remove("pl-afloat");
    place.style.height = "";
  };
  const look = () => {
    if (!place.offsetParent || !NARROW.matches) return land();
    const at = place.getBoundingClientRect();
    const gone = at.bottom < MOSTLY_GONE * at.height + tabsHeight();
    const wanted = gone && whole.getBoundingClientRect().bottom > 2 * tabsHeight();
    if (wanted === afloat()) return undefined;
    if (!wanted) return land();
    place.style.height = `${at.height}px`;
    place.style.setProperty("--under-tabs", `${tabsHeight()}px`);
    place.classList.add("pl-afloat");
    return undefined;
  };
  document.addEventListener("scroll", look, { passive: true });
  NARROW.addEventListener("change", look);
  new ResizeObserver(look).observe(whole);
}

function tabsHeight() {
  const tabs = document.querySelector("#tabs > .tab-wrapper");
  return tabs ? tabs.offsetHeight : 0;
}
