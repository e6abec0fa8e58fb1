"""The lens on photographs as it comes along: what a first visit is led through, for everybody."""

from collections.abc import Iterator

import pytest

from tests.browser.concepts_page import query
from tests.browser.serving import chromium, served
from tests.browser.test_access import findings

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine")
GUIDE = ".pl-guide"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served("app.py", "--port", "{port}", "--lens", "photos") as address:
        yield address


def at(page, words: str) -> None:
    page.wait_for_function(
        "words => document.querySelector('.pl-guide').textContent.startsWith(words)", arg=words
    )


def test_the_first_task_goes_on_as_one_does_it_and_is_not_shown_again(visit):
    page = visit.open()
    at(page, "Try it, 1 of 4")
    assert page.locator(".pl-lead-name").first.inner_text() == "dalmatian?"
    assert findings(page) == []
    box = page.locator(".pl-grid").bounding_box()
    page.locator(".pl-grid").click(position={"x": 0.4 * box["width"], "y": 0.3 * box["height"]})
    at(page, "Try it, 2 of 4")
    page.locator("#concepts .pl-row:not([hidden]) .pl-concept").first.click()
    at(page, "Try it, 3 of 4")
    page.reload()
    page.wait_for_selector("#concepts .pl[data-state=ready]")
    at(page, "Try it, 3 of 4")
    page.locator("#concepts .pl-row:not([hidden]) .pl-open").first.click()
    page.get_by_role("button", name="Steer with it").click()
    at(page, "Try it, 4 of 4")
    page.locator(".pl-dose-number").fill("0")
    page.keyboard.press("Enter")
    at(page, "Done")
    assert query(page)["steer"].endswith("*0")
    page.goto(visit.url)
    page.wait_for_selector("#concepts .pl[data-state=ready]")
    assert page.locator(GUIDE).is_hidden()
    assert visit.errors == []


def test_the_first_task_can_be_put_away(visit):
    page = visit.open()
    at(page, "Try it, 1 of 4")
    page.get_by_role("button", name="Put the first task away").click()
    assert page.locator(GUIDE).is_hidden()
    page.reload()
    page.wait_for_selector("#concepts .pl[data-state=ready]")
    assert page.locator(GUIDE).is_hidden()
