"""How fast the page feels, from a real browser: python training/bench/app_latency.py [URL]

Without a URL it starts app.py on the bundled models, and says how long that took. Every figure is
taken inside the page with performance.now(); limits are the ones the app promises on two cores.
Knows the page's class names. Needs a Chromium.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __import__("training")  # a Ctrl-C from here on ends in a sentence

import numpy as np
from PIL import Image

from sae.terminal import command
from tests.browser.serving import Visit, browser, chromium, served

UNTIL = """
(act, found) => new Promise((done) => {
  const start = performance.now(), look = new MutationObserver(check);
  function check() {
    if (!found()) return;
    look.disconnect();
    requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
  }
  look.observe(document.body, {subtree: true, childList: true, attributes: true, characterData: true});
  act();
  check();
})
"""
HOVER = """
() => {
  const grid = document.querySelector('.pl-grid'), area = grid.getBoundingClientRect(), times = [];
  for (let patch = 0; patch < 3 * 144; patch++) {
    const clientX = area.left + (patch % 12 + .5) * area.width / 12;
    const clientY = area.top + (Math.floor(patch / 12) % 12 + .5) * area.height / 12;
    const move = new PointerEvent('pointermove', {clientX, clientY, bubbles: true, pointerType: 'mouse'});
    const start = performance.now();
    grid.dispatchEvent(move);
    times.push(performance.now() - start);
  }
  grid.dispatchEvent(new PointerEvent('pointerleave', {pointerType: 'mouse'}));
  return times;
}
"""
LOCK = """
(patch) => {
  const grid = document.querySelector('.pl-grid'), area = grid.getBoundingClientRect();
  const place = {clientX: area.left + (patch % 12 + .5) * area.width / 12, button: 0, bubbles: true,
    clientY: area.top + (Math.floor(patch / 12) + .5) * area.height / 12, pointerType: 'touch'};
  return new Promise((done) => {
    const start = performance.now();
    grid.dispatchEvent(new PointerEvent('pointerdown', place));
    grid.dispatchEvent(new PointerEvent('pointerup', place));
    requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
  });
}
"""
AWAIT_PICTURE = """
() => {
  const photo = document.querySelector('.pl-photo'), old = photo.src, lens = document.querySelector('.pl');
  let chosen = 0;
  const noteTime = () => { chosen = performance.now(); };
  document.querySelector('.pl-file').addEventListener('change', noteTime, {once: true, capture: true});
  window.arrived = new Promise((done) => {
    const look = new MutationObserver(() => {
      if (!chosen || photo.src === old || lens.dataset.state !== 'ready') return;
      look.disconnect();
      requestAnimationFrame(() => setTimeout(() => done(performance.now() - chosen)));
    });
    look.observe(lens, {subtree: true, attributes: true});
  });
}
"""


@contextmanager
def address() -> Iterator[str]:
    """The page to measure: a running one, or app.py."""
    if len(sys.argv) > 1:
        yield sys.argv[1].rstrip("/") + "/"
        return
    start = time.perf_counter()
    with served("app.py", "--port", "{port}", "--lens", "emoji") as url:
        report("start of the app", (time.perf_counter() - start) * 1000, 10_000)
        yield url


def report(name: str, milliseconds: float, limit: float, more: str = "") -> None:
    """One line: the figure, its limit, and whether it holds."""
    verdict = "ok" if milliseconds <= limit else "OVER"
    print(f"{name:<44}{milliseconds:>9.1f} ms   limit {limit:>6.0f}   {verdict}   {more}".rstrip())


def load(visit: Visit, words: str) -> None:
    """First paint and page usable of one navigation."""
    page = visit.open()
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    usable = page.evaluate("performance.getEntriesByName('patchlens-usable')[0].startTime")
    sent = page.evaluate(
        "performance.getEntriesByType('resource').reduce((n, r) => n + r.transferSize, 0)"
    )
    report(f"first paint, {words}", paint, 1000)
    report(f"page usable, {words}", usable, 2000, f"{sent / 1e6:.2f} MB")


def new_pictures(visit: Visit, folder: Path) -> None:
    """From choosing a file to its concepts on screen."""
    times: list[float] = []
    for number in range(6):
        path = folder / f"{number}.jpg"
        pixels = np.random.default_rng(number).integers(0, 255, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((1280, 960), Image.Resampling.BICUBIC).save(path, quality=90)
        visit.page.evaluate(AWAIT_PICTURE)
        visit.page.locator(".pl-file").set_input_files(path)
        times.append(visit.page.evaluate("window.arrived"))
    report(
        "new picture to concepts, median of 6",
        float(np.median(times)),
        400,
        f"worst {max(times):.0f}",
    )


def cards(visit: Visit) -> None:
    """Opening a card never seen, and again."""
    shown = "() => document.querySelector('.pl-card[open] .pl-card-body')"
    for words, limit in (("first time", 400.0), ("seen before", 100.0)):
        times: list[float] = []
        for number in range(5):
            click = f"() => document.querySelectorAll('.pl-open')[{number}].click()"
            times.append(visit.page.evaluate(f"({UNTIL})({click}, {shown})"))
            visit.page.evaluate("document.querySelector('.pl-card-close').click()")
        report(f"card open, {words}, worst of 5", max(times), limit)


def measure(visit: Visit, folder: Path) -> None:
    """Every figure of one visit, in the order a person would meet them."""
    page = visit.page
    page.wait_for_timeout(1500)
    page.keyboard.press("Escape")
    visit.requests.clear()
    times = page.evaluate(HOVER)
    more = f"median {np.median(times):.2f}, {len(visit.requests)} requests in {len(times)} moves"
    report("hover handler, 95th percentile", float(np.percentile(times, 95)), 4, more)
    locks = [page.evaluate(LOCK, patch) for patch in range(0, 144, 7)]
    report("lock to all panels, 95th percentile", float(np.percentile(locks, 95)), 150)
    cards(visit)
    new_pictures(visit, folder)


@command
def main(_argv: list[str]) -> None:
    """Print every figure."""
    if chromium() is None:
        print("no Chromium here: install one, or name it in PATCHLENS_CHROMIUM")
        return
    with address() as url, browser() as running, tempfile.TemporaryDirectory() as folder:
        Visit(running, url).open()
        visit = Visit(running, url, viewport={"width": 1280, "height": 900})
        load(visit, "cold cache")
        load(visit, "warm cache")
        measure(visit, Path(folder))
        if visit.foreign:
            print("requests to other hosts:", *visit.foreign)


if __name__ == "__main__":
    sys.exit(main())
