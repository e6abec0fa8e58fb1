"""How fast the tabs Latents, Steer and Compare feel, from a real browser.

    python training/bench/tab_latency.py

The map is measured twice: on the bundled index, and on 49,152 latents of random figures. Every figure
is taken inside the page. Knows the page's class names. Needs a Chromium.
"""

import sys
import tempfile
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __import__("training")  # a Ctrl-C from here on ends in a sentence

import numpy as np
from playwright.sync_api import Page

from sae.concepts.atlas import MAPS
from sae.concepts.content import NOWHERE
from sae.concepts.index import ConceptIndex
from sae.terminal import command
from tests.browser.serving import Visit, browser, chromium, served
from tests.small_page import save
from training.bench.app_latency import UNTIL, report

VIEW = {"viewport": {"width": 1280, "height": 900}}
OPEN_LATENTS = "() => document.querySelector('[data-tab-id=latents]').click()"
MAP_READY = "() => performance.getEntriesByName('patchlens-map-ready').length"
TYPE = """
(text) => {
  const field = document.querySelector('.pl-search input'), start = performance.now();
  field.value = text;
  field.dispatchEvent(new Event('input'));
  return performance.now() - start;
}
"""
MOVES = """
() => {
  const plane = document.querySelector('.pl-plane'), area = plane.getBoundingClientRect(), times = [];
  for (let i = 0; i < 400; i++) {
    const clientX = area.left + area.width * ((i * 37) % 100) / 100;
    const clientY = area.top + area.height * ((i * 61) % 100) / 100;
    const start = performance.now();
    plane.dispatchEvent(new PointerEvent('pointermove', {clientX, clientY, pointerType: 'mouse'}));
    times.push(performance.now() - start);
  }
  return times;
}
"""


def scatter(folder: Path) -> None:
    """Give an index maps of places drawn by chance: to find real ones takes minutes."""
    index, chance = ConceptIndex.from_pretrained(folder), np.random.default_rng(0)
    layout = {}
    for by in MAPS:
        layout[f"{by}_xy"] = chance.integers(0, NOWHERE, (len(index), 2)).astype(np.uint16)
        layout[f"{by}_groups"] = np.arange(len(index), dtype=np.int16) % 200
    ConceptIndex(index._content._replace(layout=layout)).save_pretrained(folder)


def elapsed(page: Page, act: str, condition: str) -> float:
    """Milliseconds from `act` until `condition` holds and a frame was drawn."""
    return float(page.evaluate(f"({UNTIL})({act}, {condition})"))


def latents(page: Page, words: str, queries: tuple[str, ...]) -> None:
    """The map and its search."""
    report(f"map ready, {words}", elapsed(page, OPEN_LATENTS, MAP_READY), 1000)
    page.wait_for_timeout(500)
    for place in (*MAPS, "frequency"):
        page.locator(f".pl-place [data-value={place}]").click()
        page.wait_for_timeout(900)
        drawn, shown = [], 0
        for step in range(16):
            page.mouse.move(400, 600)
            page.mouse.wheel(0, -200 if step < 8 else 200)
            page.wait_for_timeout(60)
            drawn.append(
                page.evaluate("performance.getEntriesByName('patchlens-dots')[0].duration")
            )
            shown = max(shown, page.locator(".pl-map-word:not([hidden])").count())
        report(
            f"map by {place} redraw, {words}, {shown} words at most, worst of 16", max(drawn), 16
        )
    moves = page.evaluate(MOVES)
    report(f"map hover, {words}, 95th percentile", float(np.percentile(moves, 95)), 4)
    times = [page.evaluate(TYPE, text) for text in queries]
    report(f"local search, {words}, worst of {len(times)}", max(times), 50)


def by_meaning(page: Page) -> None:
    """From the last key to answers by meaning, its pause for typing included."""
    times = []
    for text in ("something to eat", "an animal in water", "a vehicle", "a thing on snow"):
        act = f"() => ({TYPE})('{text}')"
        said = "document.querySelector('.pl-latents .pl-subtitle').textContent"
        page.evaluate(TYPE, "")
        times.append(elapsed(page, act, f"() => {said}.includes('meaning')"))
    report("search by meaning, worst of 4", max(times), 400)


def steer(visit: Visit) -> None:
    """A turn of the dose until the next words and until the texts are there."""
    page = visit.page
    page.goto(f"{visit.url}?v=1&tab=steer&img=ex:tiger&steer=12*1")
    page.wait_for_function("performance.getEntriesByName('patchlens-written').length > 0")
    page.wait_for_timeout(800)
    turn = (
        "() => { const dose = document.querySelector('.pl-dose'); performance.clearMarks();"
        " dose.value = Number(dose.value) + 0.5; dose.dispatchEvent(new Event('input')); }"
    )
    times: dict[str, list[float]] = {"patchlens-next": [], "patchlens-written": []}
    for mark, took in times.items():
        for _ in range(5):
            seen = f"() => performance.getEntriesByName('{mark}').length"
            took.append(elapsed(page, turn, seen))
            page.wait_for_timeout(1800)
    wait = "pause of 60 ms for further turns included"
    report("dose to next words, median of 5", float(np.median(times["patchlens-next"])), 150, wait)
    wait = "pause of 380 ms for further turns included"
    report("dose to texts, median of 5", float(np.median(times["patchlens-written"])), 1500, wait)


def compare(visit: Visit) -> None:
    """The next picture until its explanation is drawn, and a concept switched off."""
    page = visit.page
    page.goto(f"{visit.url}?v=1&tab=compare")
    page.wait_for_selector(".pl-fall-sum")
    page.wait_for_timeout(800)
    press = (
        "() => { performance.clearMarks('patchlens-explained');"
        " document.querySelector('.pl-next-picture').click(); }"
    )
    seen = "() => performance.getEntriesByName('patchlens-explained').length"
    times = [elapsed(page, press, seen) for _ in range(5)]
    report("next picture to explanation, median of 5", float(np.median(times)), 1000)
    off = "() => document.querySelector('.pl-fall-line input').click()"
    felt = "() => document.querySelectorAll('.pl-total').length === 2"
    report("concept off to both predictions", elapsed(page, off, felt), 400)


@command
def main(_argv: list[str]) -> None:
    """Print every figure."""
    if chromium() is None:
        print("no Chromium here: install one, or name it in PATCHLENS_CHROMIUM")
        return
    with browser() as running:
        with served("app.py", "--port", "{port}", "--lens", "emoji") as url:
            visit = Visit(running, url, **VIEW)
            latents(visit.open(), "bundled", ("t", "ti", "dog", "#12", "background"))
            by_meaning(visit.page)
            steer(visit)
            compare(visit)
        with tempfile.TemporaryDirectory() as folder:
            save(Path(folder), 49_152, maps=False)
            scatter(Path(folder))
            with served("app.py", "--port", "{port}", "--sae", folder) as url:
                visit = Visit(running, url, **VIEW)
                latents(visit.open(), "49,152 latents", ("t", "ti", "tig", "#12", "e"))


if __name__ == "__main__":
    sys.exit(main())
