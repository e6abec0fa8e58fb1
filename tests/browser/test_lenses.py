"""Two lenses on one server: the switch, the picture that goes along, and a picture that one does not know."""

from collections.abc import Iterator

import numpy as np
import pytest

from sae.concepts.fit import Look, fit_of
from tests.browser.concepts_page import query, upload
from tests.browser.serving import Visit, chromium, served
from tests.small_page import save

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine")
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
READY = "#concepts .pl[data-state=ready]"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A lens that knows every picture, and the emoji world beside it."""
    folder = save(tmp_path_factory.mktemp("small"))
    anything = fit_of([Look(0.5, 1.0)] * 20, [Look(0.5, 1.0)] * 20)
    anything._replace(most_unexplained=float(np.finfo(np.float32).max), least_strongest=0.0).save(
        folder
    )
    command = (
        "app.py",
        "--port",
        "{port}",
        "--sae",
        str(folder),
        "--lens",
        "emoji",
        "--device",
        "cpu",
    )
    with served(*command) as address:
        yield address


def test_the_switch_takes_ones_own_picture_along_and_back_returns(visit, photo):
    page = visit.open()
    here, there = page.locator(".pl-lens").all()
    assert here.get_attribute("aria-current") == "page"
    assert "the laboratory where the truth is known" in there.inner_text()
    upload(page, photo)
    own = query(page)["img"]
    assert own.startswith("own:")
    there.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/emoji/**")
    page.wait_for_selector(READY)
    page.wait_for_function("document.querySelector('.pl-photo').alt === 'Your picture'")
    assert query(page)["img"] == own
    assert page.locator(".pl-lens[aria-current]").inner_text().startswith("Emoji world")
    assert page.locator(".pl-own-picture[aria-pressed=true]").count() == 1
    foreign = page.locator(".pl-foreign")
    assert "unlike those that this lens knows" in foreign.inner_text()
    named = page.locator("#concepts .pl-row:not([hidden]) .pl-name").all_inner_texts()
    assert all(name.endswith("?") or name.startswith("Concept ") for name in named)
    foreign.locator("a").click()
    page.wait_for_url(lambda address: "/emoji/" not in address)
    page.wait_for_selector(READY)
    page.wait_for_function("document.querySelector('.pl-photo').alt === 'Your picture'")
    assert page.locator(".pl-foreign").is_hidden()
    page.go_back()
    page.wait_for_selector(READY)
    assert "/emoji/" in page.url
    assert query(page)["img"] == own
    assert visit.errors == []


def test_a_phone_has_both_lenses_in_sight_and_a_scene_goes_along(running, url):
    phone = Visit(running, url, **PHONE)
    page = phone.page
    page.goto(f"{url}emoji/?v=1&img=ex:bus")
    page.wait_for_selector(READY)
    for lens in page.locator(".pl-lens").all():
        box = lens.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator(".pl-lens:not([aria-current])").tap()
    page.wait_for_url(lambda address: "/emoji/" not in address)
    page.wait_for_selector(READY)
    assert query(page)["img"].startswith("sc:checkers")
    assert "bus" in page.locator(".pl-photo").get_attribute("alt").lower()
    assert phone.errors == []
    phone.close()
