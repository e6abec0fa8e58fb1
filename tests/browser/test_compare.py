"""The Compare tab under a person's hands, on the bundled models."""

import pytest

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
