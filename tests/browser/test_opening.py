"""The first look at the Concepts tab, on the bundled models: the whole picture and what leads in it."""

import numpy as np
import pytest

from sae.ui.examples import EXAMPLES
from sae.views.ranking import N_LEADING, N_STRONG
from tests.browser.concepts_page import click_patch, overlay, query, title, upload
from tests.browser.serving import chromium

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine")

ROWS = "#concepts .pl-row:not([hidden])"


@pytest.fixture(scope="module")
def url(bundled_url: str) -> str:
    return bundled_url


def names(page) -> list[str]:
    return page.locator(".pl-lead-name span").all_inner_texts()


def test_a_first_visit_sees_the_whole_picture_and_the_names_of_what_leads(visit):
    page = visit.open()
    page.mouse.move(5, 5)
    assert title(page) == "Whole picture"
    assert names(page) == ["tiger", "tulip", "grass background"]
    assert page.locator(".pl-tag").all_inner_texts() == names(page)
    assert page.locator(f"{ROWS} .pl-name").all_inner_texts()[:3] == names(page)
    frame = page.locator(".pl-frame").bounding_box()
    for tag in page.locator(".pl-tag").all():
        box = tag.bounding_box()
        assert frame["x"] <= box["x"]
        assert box["x"] + box["width"] <= frame["x"] + frame["width"]
    top = page.locator(".pl-frame").bounding_box()["y"]
    assert top < page.locator(".pl-leading").bounding_box()["y"]
    assert (overlay(page)[..., 3] > 0).any()
    assert visit.errors == []


def test_a_patch_narrows_down_and_there_is_always_a_way_back(visit):
    page = visit.open()
    back = page.get_by_role("button", name="Whole picture")
    assert back.is_visible()
    assert back.is_disabled()
    for patch in (66, 78, 30, 33, 100, 5):
        click_patch(page, patch)
        assert title(page) == "One patch"
        assert back.is_visible()
        back.click()
        page.mouse.move(5, 5)
        assert title(page) == "Whole picture"
    page.locator(".pl-lead-name").first.click()
    assert "z" in query(page)
    assert not page.locator(".pl-tag").first.is_visible()
    one = overlay(page)
    back.click()
    page.mouse.move(5, 5)
    assert "z" not in query(page)
    assert page.locator(".pl-tag").first.is_visible()
    assert np.abs(overlay(page) - one).max() > 0


def test_every_example_and_a_photograph_open_whole_with_what_leads(visit, photo):
    page = visit.open()
    for example in EXAMPLES[1:]:
        page.locator(f".pl-example[data-name={example.name}]").click()
        page.wait_for_function(
            "(name) => document.querySelector('.pl-example[aria-pressed=true]').dataset.name === name",
            arg=example.name,
        )
        page.mouse.move(5, 5)
        assert title(page) == "Whole picture"
        found = names(page)
        assert len(set(found)) == N_LEADING
        assert not any(name.startswith("Concept ") for name in found)
        guessed = [name.endswith("?") for name in found]
        assert all(guessed) if example.name == "unseen" else not any(guessed)
    assert page.locator(".pl-foreign").is_visible()
    upload(page, photo)
    assert title(page) == "Whole picture"
    assert 0 < len(names(page)) <= N_LEADING


def test_weak_concepts_are_folded_and_the_rule_is_told(visit):
    page = visit.open()
    assert page.locator(ROWS).count() <= N_STRONG
    fold = page.locator("#concepts .pl-more")
    assert "weaker concepts hidden" in fold.inner_text()
    assert "10 % of its own maximum" in page.locator(".pl-weak-note").inner_text()
    n = int(fold.inner_text().split()[0])
    shown = page.locator(ROWS).count()
    fold.click()
    assert page.locator(ROWS).count() == shown + n
    assert fold.get_attribute("aria-expanded") == "true"
    fold.click()
    assert page.locator(ROWS).count() == shown


def test_bars_show_shares_of_the_maximum_and_that_is_remembered_and_in_the_link(visit):
    page = visit.open("?v=1&img=ex:tiger&p=66")
    amounts = page.locator(f"{ROWS} .pl-amount")
    assert "%" not in "".join(amounts.all_inner_texts())
    page.locator(".pl-bars [data-value=share]").click()
    shares = [int(text.removesuffix(" %")) for text in amounts.all_inner_texts()]
    assert shares == sorted(shares, reverse=True)
    assert query(page)["bars"] == "share"
    page.goto(visit.url)
    page.wait_for_selector(".pl[data-state=ready]")
    assert page.locator(".pl-bars [data-value=share]").get_attribute("aria-checked") == "true"
    page.goto(f"{visit.url}?v=1&bars=activation")
    page.wait_for_selector(".pl[data-state=ready]")
    assert "%" not in "".join(amounts.all_inner_texts())
