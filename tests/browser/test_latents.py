"""The Latents tab in a real browser, on random weights: map, table, search, card, links."""

import re

import numpy as np
import pytest
from PIL import Image

from sae.concepts.search import NameSearch
from sae.ui.catalogue import Catalogue
from sae.ui.examples import EXAMPLES
from sae.ui.latents_desk import MAX_FOUND
from sae.ui.static_files import script_address
from sae.views.code import to_base64
from sae.world.scenes import compose
from tests.browser.concepts_page import query
from tests.browser.serving import chromium
from tests.small_page import D_SAE, small_world

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine")
BUS = next(example.scene for example in EXAMPLES if example.name == "bus")
READY = ".pl-latents[data-state=ready]"


def opened(visit, extra: str = ""):
    page = visit.page
    page.goto(f"{visit.url}?v=1&tab=latents{extra}")
    page.wait_for_selector(READY, state="attached")
    for mark in ("patchlens-usable", "patchlens-map-ready"):
        page.wait_for_function(f"performance.getEntriesByName('{mark}').length")
    return page


def rows(page) -> list[str]:
    return page.locator(".pl-table-row:not([hidden]) .pl-cell-name").all_inner_texts()


def test_the_tab_opens_on_a_map_and_a_table_of_living_concepts(visit):
    page = opened(visit)
    _, _, index = small_world()
    alive, always = ~index.dead, Catalogue(index, D_SAE, (12, 12)).always_on
    assert 0 < (alive & always).sum() < alive.sum() < D_SAE, "the index has all kinds"
    selective, living = int((alive & ~always).sum()), int(alive.sum())
    assert page.locator(".pl-latents .pl-subtitle").inner_text() == f"{selective} concepts"
    page.locator("[data-filter=selective]").uncheck()
    assert page.locator(".pl-latents .pl-subtitle").inner_text() == f"{living} concepts"
    lit = page.evaluate(
        "() => { const c = document.querySelector('.pl-lit-dots'); return c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data.some((v) => v > 0); }"
    )
    assert lit
    assert (visit.errors, visit.foreign) == ([], [])


def test_search_answers_by_name_at_once_and_by_meaning_behind(visit):
    backbone, _, index = small_world()
    always = Catalogue(index, D_SAE, (12, 12)).always_on
    text, listed = "cat", np.flatnonzero(~index.dead & ~always).tolist()
    by_name = [latent for latent in listed if f" {text}" in f" {index.names[latent]}"]
    hits = index.searcher.by_meaning(text, MAX_FOUND, backbone=backbone)
    by_meaning = {hit.latent for hit in hits} & set(listed) - set(by_name)
    assert by_name
    assert by_meaning, "the index has both kinds"

    page = opened(visit)
    field = page.locator(".pl-search input")
    named, told = page.evaluate(  # in one breath, so that no answer of the server can come between
        "(text) => { const field = document.querySelector('.pl-search input'); field.value = text;"
        " field.dispatchEvent(new Event('input'));"
        " const rows = [...document.querySelectorAll('.pl-table-row:not([hidden])')];"
        " const told = document.querySelector('.pl-latents .pl-subtitle').textContent;"
        " return [rows.map((row) => row.innerText), told]; }",
        text,
    )
    assert told.startswith(f"{len(by_name)} concepts")
    assert named
    assert all(text in row for row in named)
    page.wait_for_function(
        "document.querySelector('.pl-latents .pl-subtitle').textContent.includes('meaning')"
    )
    found = page.locator(".pl-latents .pl-subtitle").inner_text()
    assert found.startswith(f"{len(by_name) + len(by_meaning)} concepts")
    assert all(text in row for row in rows(page)[: len(named)])
    assert query(page)["q"] == text
    field.fill("#17")
    assert "17" in rows(page)[0]
    field.press("Escape")
    assert page.locator(".pl-latents .pl-title").inner_text() == "All concepts"
    assert "q" not in query(page)


NAMES = [
    "cat",
    "striped cat",
    "catfish",
    "",
    "scat",
    "Cat",
    "wild  cat",
    "straße",
    "STRASSE 7",
    "7",
]
NAMES += [
    "ΟΔΟΣ",
    "οδος 2",
    "ﬁsh",
    "İstanbul",
    "ısı",
    "e\u0301cole",
    "École",
    "чайка",
    "縞模様",
    "🦊 fox",
]
QUERIES = [
    "cat",
    " CAT ",
    "c",
    "at",
    "a",
    "wild cat",
    "strasse",
    "ß",
    "7",
    "#7",
    "#3",
    "99",
    "οδοσ",
    "σ",
]
NAMES += ["T-shirt", "big cat (wild)", "cat-flap", "𝔽loat", "e-cat"]
QUERIES += ["big cat", "cat (", "shirt", "-", "lo", "f", "ca"]
QUERIES += ["fi", "i", "ı", "é", "e", "ЧАЙ", "縞", "🦊", "fox", "no such", " ", "#", "٣"]
MATCHES = """
async ([address, packed, queries]) => {
  const { AllConcepts } = await import(new URL(address, document.baseURI));
  const all = new AllConcepts([]);
  all.take(packed);
  return queries.map((text) => all.matches(text));
}
"""


def test_the_page_finds_names_in_the_order_of_the_library(visit):
    search = NameSearch(NAMES, np.linspace(0, 1, len(NAMES)))
    packed = {
        "n": len(NAMES),
        "names": NAMES,
        "flags": to_base64(np.full(len(NAMES), 4, np.uint8)),  # a question mark changes nothing
        "order": to_base64(search.order),
        "figures": {},
    }
    page = opened(visit)
    found = page.evaluate(MATCHES, [script_address("latents_data.js"), packed, QUERIES])
    for text, latents in zip(QUERIES, found, strict=True):
        hits = search.find(text, len(NAMES)) if text.strip() else []
        assert latents == [n for n, score in hits if score >= NameSearch.LITERAL], text


def test_a_column_sorts_both_ways_and_the_link_keeps_it(visit):
    page = opened(visit)
    page.locator(".pl-sort", has_text="Max").click()

    def strongest() -> list[float]:
        cells = page.locator(".pl-table-row:not([hidden]) td:nth-child(4)").all_inner_texts()
        return [float(text) for text in cells]

    assert strongest() == sorted(strongest(), reverse=True)
    page.locator(".pl-sort", has_text="Max").click()
    assert strongest() == sorted(strongest())
    assert query(page)["sort"] == "maximum~up"
    page.locator(".pl-sort", has_text="Max").press("Enter")
    assert page.evaluate("document.activeElement.textContent").startswith("Max")
    page.keyboard.press("Enter")
    opened(visit, "&sort=maximum~up")
    assert strongest() == sorted(strongest())


def test_a_lasso_lists_what_is_inside_and_a_dot_opens_its_card(visit):
    page = opened(visit)
    box = page.locator(".pl-plane").bounding_box()
    left, right = box["x"] + box["width"] * 0.45, box["x"] + box["width"] * 0.99
    top, bottom = box["y"] + 4, box["y"] + box["height"] * 0.5
    page.mouse.move(left, top)
    page.mouse.down()
    for x, y in ((right, top), (right, bottom), (left, bottom), (left, top)):
        page.mouse.move(x, y, steps=6)
    page.mouse.up()
    assert page.locator(".pl-latents .pl-title").inner_text() == "Inside the lasso"
    inside = int(page.locator(".pl-latents .pl-subtitle").inner_text().split()[0])
    assert 0 < inside < D_SAE
    page.locator(".pl-drop-lasso").click()
    assert page.locator(".pl-latents .pl-title").inner_text() == "All concepts"
    page.locator(".pl-table-row").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".pl-card[open] .pl-exemplar")
    assert page.locator(".pl-card .pl-tenth").count() == 1
    card = query(page)["card"]
    page.goto(f"{visit.url}?v=1&tab=latents&card={card}")
    page.wait_for_selector(".pl-card[open] .pl-exemplar")
    assert f"#{card}" in page.locator(".pl-card-origin").inner_text()


def test_the_picture_and_its_patches_search_too(visit):
    page = opened(visit, "&img=ex:bus&p=30-33")
    page.locator(".pl-like-region").click()
    page.wait_for_function(
        "document.querySelector('.pl-latents .pl-subtitle').textContent.includes('patches')"
    )
    backbone, _, index = small_world()
    hits = index.searcher.like_image(
        Image.fromarray(compose(BUS).image), MAX_FOUND, patches=[30, 31, 32, 33], backbone=backbone
    )
    always = Catalogue(index, D_SAE, (12, 12)).always_on
    expected = [hit.latent for hit in hits if not always[hit.latent]]
    shown = [int(re.search(r"\d+$", name)[0]) for name in rows(page)]
    assert shown == expected[: len(shown)]
    page.locator("[data-filter=here]").check()
    assert visit.errors == []


def test_hostile_links_are_inert(visit):
    page = opened(visit, "&q=<img src=x onerror=document.title='hacked'>&sort=${1}&card=-4")
    assert page.title() == "PatchLens"
    assert visit.errors == []


def lit_dots(page) -> int:
    """Discs on the map: what is lit, counted by their centres."""
    return page.evaluate(
        "() => { const real = CanvasRenderingContext2D.prototype.arc; let n = 0;"
        " CanvasRenderingContext2D.prototype.arc = function (...all) { n++; real.apply(this, all); };"
        " window.dispatchEvent(new Event('resize'));"
        " document.querySelector('.pl-light').dispatchEvent(new Event('change'));"
        " CanvasRenderingContext2D.prototype.arc = real; return n; }"
    )


def listed(page) -> int:
    return int(page.locator(".pl-latents .pl-subtitle").inner_text().split()[0].replace(",", ""))


def type_in(page, text: str) -> None:
    """Types a text and waits for the last word on it."""
    page.locator(".pl-search input").fill("")
    with page.expect_response(lambda answer: "component_server" in answer.url):
        page.locator(".pl-search input").press_sequentially(text)
    page.wait_for_function("performance.getEntriesByName('patchlens-found').length")


def test_the_map_lights_what_the_table_lists(visit):
    page = opened(visit, "&img=ex:bus")
    type_in(page, "tiger")
    assert lit_dots(page) == listed(page) > 0
    page.locator("[data-filter=here]").check()
    assert lit_dots(page) == listed(page)


def test_what_no_concept_is_called_and_the_model_does_not_know_is_said(visit):
    page = opened(visit)
    for text, word in (
        ("quokka", "quokka"),
        ("<script>", "script"),
        ("bus round quokka", "quokka"),
    ):
        type_in(page, text)
        said = page.locator(".pl-latents .pl-panel").inner_text()
        assert f"does not know “{word}”" in said or f"“{word}”" in said
    type_in(page, "<script>")
    assert rows(page) == []
    assert page.locator(".pl-latents .pl-panel script").count() == 0


def test_the_words_that_the_field_suggests_are_found(visit):
    page = opened(visit)
    hint = page.locator(".pl-search input").get_attribute("placeholder").split(": ")[1]
    words = hint.removesuffix(" …").split(", ")
    assert len(words) > 1
    for word in words:
        page.locator(".pl-search input").fill(word)
        assert word.strip("#") in rows(page)[0]


def test_a_search_begins_by_fit_and_its_arrow_tells_the_order(visit):
    page = opened(visit, "&sort=maximum~up")
    type_in(page, "tiger")
    arrow = "th[aria-sort=descending], th[aria-sort=ascending]"
    assert page.locator(f".pl-latents {arrow}").inner_text().startswith("Fit")
    assert page.locator(f".pl-latents {arrow}").get_attribute("aria-sort") == "descending"
    best = rows(page)
    page.locator(".pl-sort", has_text="Fit").click()
    assert page.locator(f".pl-latents {arrow}").get_attribute("aria-sort") == "ascending"
    while page.locator(".pl-latents .pl-more").is_visible():
        page.locator(".pl-latents .pl-more").click()
    assert rows(page)[-1] == best[0]
    page.locator(".pl-sort", has_text="Max").click()
    page.locator(".pl-search input").press("Backspace")
    assert page.locator(f".pl-latents {arrow}").inner_text().startswith("Max")
    assert "tige" in query(page)["q"]
    assert query(page)["sort"] == "maximum"


def test_not_always_on_leaves_out_what_every_picture_has(visit):
    page = opened(visit)
    frequencies = page.locator(".pl-table-row:not([hidden]) td:nth-child(2)").all_inner_texts()
    assert float(frequencies[0].strip(" %")) < 90
