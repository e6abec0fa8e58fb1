"""The page for everybody: no finding of axe on any tab, every tab by key and on a phone."""

from importlib.resources import files

import pytest

from tests.browser.serving import Visit, chromium

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine")
READY = {
    "concepts": "#concepts .pl[data-state=ready]",
    "latents": ".pl-latents[data-state=ready] .pl-table-row",
    "steer": ".pl-next li",
    "compare": ".pl-fall-sum",
}
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


@pytest.fixture(scope="module")
def url(bundled_url: str) -> str:
    return bundled_url


def findings(page) -> list[str]:
    """What axe finds: rule, weight, and the first element."""
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text())
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [f"{v['id']} ({v['impact']}): {v['nodes'][0]['html']}" for v in found["violations"]]


@pytest.mark.parametrize("tab", READY)
def test_axe_finds_nothing_on_a_tab(visit, tab):
    page = visit.page
    page.goto(f"{visit.url}?v=1&tab={tab}")
    page.wait_for_selector(READY[tab])
    assert findings(page) == []


def test_axe_finds_nothing_on_a_card_and_on_the_composer(visit):
    page = visit.open()
    page.locator(".pl-open").first.click()
    page.wait_for_selector(".pl-card .pl-card-body")
    assert findings(page) == []
    page.keyboard.press("Escape")
    page.locator(".pl-make").click()
    page.wait_for_selector(".pl-kind")
    assert findings(page) == []


def test_arrows_walk_along_the_tabs(visit):
    page = visit.open()
    page.get_by_role("tab", name="Concepts").focus()
    for name in ("Map", "Steer"):
        page.keyboard.press("ArrowRight")
        assert page.get_by_role("tab", name=name).get_attribute("aria-selected") == "true"
        assert page.evaluate("document.activeElement.textContent").strip() == name
    page.keyboard.press("Home")
    assert page.get_by_role("tab", name="Concepts").get_attribute("aria-selected") == "true"


def test_every_tab_is_in_sight_on_a_phone(running, url):
    phone = Visit(running, url, **PHONE)
    page = phone.open()
    for name in ("Map", "Steer", "Compare", "About", "Concepts"):
        tab = page.get_by_role("tab", name=name)
        box = tab.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
        tab.tap()
        assert tab.get_attribute("aria-selected") == "true"
    phone.close()


def test_the_composed_picture_and_its_concepts_are_in_view_together(visit):
    page = visit.open()  # 1280 x 900
    page.locator(".pl-make").click()
    page.wait_for_selector(".pl-kind")
    photo = page.locator("#concepts .pl-photo").bounding_box()
    third = page.locator("#concepts .pl-row:not([hidden])").nth(2).bounding_box()
    surface = page.locator(".pl-compose-surface").bounding_box()
    for box in (photo, third, surface):
        assert box["y"] >= 0
        assert box["y"] + box["height"] <= 900
    assert surface["width"] == 192
    thing = page.locator(".pl-mini-object").first.bounding_box()
    before = page.locator("#concepts .pl-photo").get_attribute("src")
    page.mouse.move(thing["x"] + 20, thing["y"] + 20)
    page.mouse.down()
    page.mouse.move(surface["x"] + 150, surface["y"] + 150, steps=12)
    page.mouse.up()
    after = page.locator(".pl-mini-object").first.bounding_box()
    assert after["y"] > thing["y"] + 30
    page.wait_for_function(
        "(b) => document.querySelector('#concepts .pl-photo').src !== b", arg=before
    )
