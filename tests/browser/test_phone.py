"""A phone of 390 px under a thumb: the picture stays in view while one chooses, and every tab is in reach."""

import pytest

from tests.browser.serving import Visit, chromium

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine")
READY = {
    "concepts": "#concepts .pl[data-state=ready] .pl-row",
    "latents": ".pl-latents[data-state=ready] .pl-table-row",
    "steer": ".pl-next li",
    "compare": ".pl-fall-sum",
    "about": ".pl-about",
}
NAMES = ("Concepts", "Map", "Steer", "Compare", "About")
HEIGHT = 844


@pytest.fixture(scope="module")
def url(bundled_url: str) -> str:
    return bundled_url


@pytest.fixture(params=[390, 320])
def narrow(running, url, request):
    yield from _phone(running, url, request.param)


@pytest.fixture
def phone(running, url):
    yield from _phone(running, url, 390)


def _phone(running, url, width):
    one = Visit(
        running,
        url,
        viewport={"width": width, "height": HEIGHT},
        is_mobile=True,
        has_touch=True,
        reduced_motion="reduce",
    )
    yield one
    one.close()


def opened(phone: Visit, tab: str, extra: str = ""):
    phone.page.goto(f"{phone.url}?v=1&tab={tab}{extra}")
    phone.page.wait_for_selector(READY[tab])
    return phone.page


def swipe(page, by: int) -> None:
    """A finger moves up by so many pixels, in steps, as a thumb does."""
    client = page.context.new_cdp_session(page)
    finger = {"x": 30, "y": 790}
    client.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [finger]})
    for step in range(1, 13):
        point = {**finger, "y": finger["y"] - by * step / 12}
        client.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [point]})
    client.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.wait_for_timeout(150)


def wait_until_in_view(page, selector: str) -> None:
    """Until more than half of it is within the window, and nothing lies over the middle of that."""
    page.wait_for_function(
        """(selector) => {
          const node = document.querySelector(selector);
          const { left, top, right, bottom } = node.getBoundingClientRect();
          const tabs = document.querySelector("#tabs > .tab-wrapper").getBoundingClientRect().bottom;
          const first = Math.max(top, tabs), last = Math.min(bottom, innerHeight);
          const over = document.elementFromPoint((left + right) / 2, (first + last) / 2);
          return left >= 0 && right <= innerWidth && last - first > Math.max(40, (bottom - top) / 2)
            && node.contains(over);
        }""",
        arg=selector,
    )


@pytest.mark.parametrize(
    ("tab", "extra", "picture", "last"),
    [
        ("concepts", "&img=ex:tiger", ".pl-frame", "#concepts .pl-row:not([hidden]) .pl-concept"),
        ("steer", "&img=ex:tiger&steer=1502*1,12*1", ".pl-subject-frame", ".pl-dose"),
        ("compare", "", ".pl-one-frame", ".pl-fall-line:not(.pl-fall-sum) input"),
    ],
)
def test_the_picture_is_in_view_beside_what_one_chooses(phone, tab, extra, picture, last):
    page = opened(phone, tab, extra)
    chosen = page.locator(last).last
    for _ in range(40):
        if chosen.bounding_box()["y"] < HEIGHT - 120:
            break
        swipe(page, 180)
    assert page.evaluate("scrollY") > 300
    wait_until_in_view(page, picture)
    if tab == "steer":
        assert page.locator(".pl-dose").evaluate_all("(doses) => doses.map((d) => d.value)") == [
            "1",
            "1",
        ], "a scroll across the sliders turned one"
    small = page.locator(picture).first.bounding_box()
    assert small["height"] < 0.3 * HEIGHT
    tabs = page.locator("#tabs button[role=tab]:visible").first.bounding_box()
    if page.locator(".pl-afloat").count():
        assert small["y"] >= tabs["y"] + tabs["height"] - 2
    chosen.focus()
    page.keyboard.press("ArrowRight" if tab == "steer" else " ")
    wait_until_in_view(page, picture)
    where = page.evaluate("scrollY")
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_function("!document.querySelector('.pl-afloat')")
    large = page.locator(picture).first.bounding_box()
    assert large["width"] > small["width"] or tab == "steer"
    assert where > 0


def test_nothing_jumps_when_the_picture_begins_to_float(phone):
    page = opened(phone, "concepts", "&img=ex:tiger")
    row = page.locator("#concepts .pl-row").nth(3)
    last = None
    for step in range(0, 700, 20):
        page.evaluate(f"scrollTo(0, {step})")
        page.wait_for_timeout(20)
        at = row.bounding_box()["y"] + page.evaluate("scrollY")
        assert last is None or abs(at - last) < 1
        last = at
    assert page.locator(".pl-afloat").count() == 1


def test_a_patch_of_the_small_picture_can_be_chosen(phone):
    page = opened(phone, "concepts", "&img=ex:tiger")
    swipe(page, 700)
    page.wait_for_selector(".pl-afloat .pl-grid")
    box = page.locator(".pl-grid").bounding_box()
    page.touchscreen.tap(box["x"] + 0.05 * box["width"], box["y"] + 0.05 * box["height"])
    page.wait_for_function("new URLSearchParams(location.search).get('p') === '0'")


def test_the_composed_scene_stays_in_view_while_one_chooses_an_object(phone):
    page = opened(phone, "concepts")
    page.locator(".pl-make").tap()
    page.wait_for_selector(".pl-kind")
    for _ in range(40):
        if page.locator(".pl-kinds").bounding_box()["y"] < HEIGHT / 3:
            break
        swipe(page, 150)
    page.wait_for_selector(".pl-afloat .pl-compose-surface")
    surface = page.locator(".pl-compose-surface").bounding_box()
    assert 0 <= surface["y"] < HEIGHT / 3
    assert surface["x"] + surface["width"] <= 390


@pytest.mark.parametrize("tab", READY)
def test_every_tab_is_in_reach_from_the_end_of_every_tab(narrow, tab):
    page = opened(narrow, tab)
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    page.wait_for_timeout(200)
    for name in NAMES:
        button = page.get_by_role("tab", name=name)
        button.scroll_into_view_if_needed()
        box = button.bounding_box()
        assert box["x"] >= -1
        assert box["x"] + box["width"] <= page.viewport_size["width"] + 1
        assert 0 <= box["y"] < 120
    other = next(name for name in NAMES if name.lower() != tab and name != "Map")
    page.get_by_role("tab", name=other).tap()
    assert page.get_by_role("tab", name=other).get_attribute("aria-selected") == "true"
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
