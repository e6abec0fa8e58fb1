"""The Compare tab under a person's hands, on the bundled models."""

import pytest

from sae.ui.static_files import script_address
from tests.browser.concepts_page import query
from tests.browser.serving import chromium

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def url(bundled_url: str) -> str:
    return bundled_url


def opened(visit, extra: str = "&task=fluent"):
    page = visit.page
    page.goto(f"{visit.url}?v=1&tab=compare{extra}")
    page.wait_for_selector(".pl-fall-sum")
    return page


def test_concepts_are_switched_off_by_key_one_after_the_other(visit):
    page = opened(visit)
    box = page.locator(".pl-fall-line input").nth(1)
    box.focus()
    page.keyboard.press(" ")
    page.wait_for_function("document.querySelectorAll('.pl-total').length === 2")
    assert box.evaluate("node => node === document.activeElement")
    assert not box.is_checked()
    page.keyboard.press(" ")
    page.wait_for_function("document.querySelectorAll('.pl-total').length === 1")
    assert box.evaluate("node => node === document.activeElement")
    assert box.is_checked()


def test_a_sentence_says_why_before_any_figure_and_names_no_number(visit):
    page = opened(visit)
    said = page.locator(".pl-because").inner_text()
    answers = [
        page.locator(f".pl-guesses[data-side='{n}'] .pl-guess").first.inner_text() for n in (0, 1)
    ]
    assert all(f"says {answer}" in said for answer in answers)
    assert "because of" in said
    assert "Concept " not in said
    assert not page.locator(".pl-fall-line .pl-rack-name").first.inner_text().startswith("Concept ")
    top = page.locator(".pl-because").bounding_box()["y"]
    assert top < page.locator(".pl-fall").bounding_box()["y"]


def test_a_score_that_concepts_hardly_explain_is_told(visit):
    page = opened(visit)
    said = page.evaluate(
        "async (address) => { const { unexplainedSentence } ="
        " await import(new URL(address, document.baseURI));"
        " const of = (margin, start, residual) => ({ heads: [{ margin, start, residual }] });"
        " return [of(5, 0, 3), of(5, 1, 1), of(-1, 0, -4), of(5, 4, 0.1)]"
        ".map((one) => unexplainedSentence(one, 0, 'MaPLe')); }",
        script_address("compare_explain.js"),
    )
    assert "not explained by concepts (+2.00 by concepts, +3.00 not)" in said[0]
    assert said[1] == ""
    assert "not explained" in said[2]
    assert said[3] == "MaPLe gives +4.00 to any picture and +0.90 for the concepts of this one."


def test_the_opacity_of_both_maps_is_set_remembered_and_in_the_link(visit):
    page = opened(visit)
    strongest = (
        "() => [...document.querySelectorAll('.pl-one-frame canvas')].map((one) => Math.max(..."
        "one.getContext('2d').getImageData(0, 0, one.width, one.height).data.filter((_, i) => i % 4 === 3)))"
    )
    slider = page.locator("#compare .pl-opacity input")
    slider.focus()
    page.keyboard.press("Home")
    assert query(page)["op"] == "0"
    faint = max(page.evaluate(strongest))
    page.keyboard.press("End")
    assert query(page)["op"] == "100"
    assert max(page.evaluate(strongest)) == 255 > faint
    page.goto(f"{visit.url}?tab=compare")
    page.wait_for_selector(".pl-fall-sum")
    assert slider.input_value() == "100"
    assert page.locator("#concepts .pl-opacity input").input_value() == "100"
