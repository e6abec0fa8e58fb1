// A finger that scrolls the page across a slider leaves it as it was: the browser sets it at the touch and
// then takes the gesture for a scroll (pointercancel), without putting it back. Knows sliders alone.

export function keepSliders() {
  let touched = null;
  let before = "";
  document.addEventListener(
    "pointerdown",
    ({ target, pointerType }) => {
      const slides = pointerType === "touch" && target.matches?.("input[type=range]");
      touched = slides ? target : null;
      before = slides ? target.value : "";
    },
    { capture: true },
  );
  document.addEventListener("pointercancel", () => {
    const slider = touched;
    touched = null;
    if (!slider || slider.value === before) return;
    slider.value = before;
    for (const kind of ["input", "change"]) slider.dispatchEvent(new Event(kind, { bubbles: true }));
  });
}
