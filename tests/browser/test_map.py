"""The map of the Latents tab as a person uses it: placements, zoom, names, ticks, keys, fingers, search."""

import json
from collections.abc import Iterator

import numpy as np
import pytest
from playwright.sync_api import Page, Route

from sae.concepts.atlas import MAPS
from sae.ui.latents_desk import ADD_MAPS
from tests.browser.concepts_page import query
from tests.browser.serving import Visit, chromium
from tests.browser.test_latents import listed, lit_dots, opened, type_in
from tests.small_page import small_world

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine")
PLACES = (*MAPS, "frequency")


def words(page: Page, kind: str = "") -> list[str]:
    """What is written on the map, of a kind: "group", "name" or "tick"."""
    return page.locator(f".pl-map-word{kind and f'-{kind}'}:not([hidden])").all_inner_texts()


def boxes(page: Page) -> np.ndarray:
    """left, top, right, bottom of every word on the map."""
    return np.array(
        page.evaluate(
            "[...document.querySelectorAll('.pl-map-word:not([hidden])')].map((word) => {"
            " const { left, top, right, bottom } = word.getBoundingClientRect();"
            " return [left, top, right, bottom]; })"
        )
    ).reshape(-1, 4)


def overlaps(page: Page) -> int:
    """Pairs of words that lie over each other, and words that leave the map."""
    all_boxes = boxes(page)
    area = page.locator(".pl-plane").bounding_box()
    left, top, right, bottom = all_boxes.T[:, :, None] if len(all_boxes) else np.zeros((4, 0, 1))
    over = (left < right.T - 0.5) & (right - 0.5 > left.T)
    over &= (top < bottom.T - 0.5) & (bottom - 0.5 > top.T)
    outside = (left < area["x"] - 1) | (right > area["x"] + area["width"] + 1)
    outside |= (top < area["y"] - 1) | (bottom > area["y"] + area["height"] + 1)
    return int(np.triu(over, 1).sum() + outside.sum())


def middle(page: Page) -> tuple[float, float]:
    box = page.locator(".pl-plane").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def place(page: Page, name: str) -> None:
    page.locator(f".pl-place [data-value={name}]").click()
    page.wait_for_selector(f".pl-place [data-value={name}][aria-checked=true]")


def settled(page: Page) -> None:
    """Wait for the frame in which a move of the view is drawn."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def test_the_map_opens_by_meaning_and_the_link_keeps_another_choice(visit):
    page = opened(visit)
    assert page.locator(".pl-place [aria-checked=true]").get_attribute("data-value") == MAPS[0]
    assert "map" not in query(page)
    assert words(page, "tick") == []
    place(page, "cofiring")
    assert query(page)["map"] == "cofiring"
    assert "same pictures" in page.locator(".pl-axis-x").inner_text()
    page.reload()
    opened(visit, "&map=cofiring")
    assert page.locator(".pl-place [aria-checked=true]").get_attribute("data-value") == "cofiring"
    for hostile in ("__proto__", "constructor", "<b>"):
        opened(visit, f"&map={hostile}")
        assert page.locator(".pl-place [aria-checked=true]").count() == 1
        assert lit_dots(page) > 0
    assert visit.errors == []


def test_arrows_go_through_all_placements_and_back(visit):
    page = opened(visit)
    page.locator(".pl-place [aria-checked=true]").focus()
    seen = []
    for _ in range(6):
        page.keyboard.press("ArrowRight")
        chosen = page.evaluate("document.activeElement.dataset.value")
        assert page.locator(".pl-place [aria-checked=true]").get_attribute("data-value") == chosen
        seen.append(chosen)
    assert seen == [PLACES[(at + 1) % 4] for at in range(6)]


@pytest.mark.parametrize("name", PLACES)
def test_names_appear_with_the_zoom_and_never_lie_over_each_other(visit, name):
    page = opened(visit)
    place(page, name)
    assert words(page, "name") == []
    assert overlaps(page) == 0
    page.mouse.move(*middle(page))
    counts = []
    for _ in range(6):
        page.mouse.wheel(0, -180)
        settled(page)
        assert overlaps(page) == 0
        counts.append(len(words(page, "name")))
    assert max(counts) > 0
    _, _, index = small_world()
    known = {*index.names, *(f"{word}?" for word in index.names)}
    assert set(words(page, "name")) <= known
    page.locator(".pl-home").click()
    settled(page)
    assert words(page, "name") == []
    assert visit.errors == []


def test_buttons_and_keys_zoom_as_the_wheel_does(visit):
    page = opened(visit)
    for _ in range(4):
        page.locator(".pl-closer").click()
    settled(page)
    near = words(page, "name")
    for _ in range(6):
        page.locator(".pl-wider").click()
    settled(page)
    assert words(page, "name") == []
    page.locator(".pl-plane").focus()
    for _ in range(4):
        page.keyboard.press("+")
    settled(page)
    assert words(page, "name") == near != []
    page.keyboard.press("0")
    settled(page)
    assert words(page, "name") == []


def test_the_axes_of_frequency_have_ticks_at_the_values_they_say(visit):
    page = opened(visit)
    place(page, "frequency")
    ticks = page.evaluate(
        "[...document.querySelectorAll('.pl-tick-x:not([hidden])')].map((tick) => {"
        " const box = tick.getBoundingClientRect(), plane = document.querySelector('.pl-plane');"
        " const area = plane.getBoundingClientRect(); return [tick.textContent,"
        " ((box.left + box.right) / 2 - area.left - plane.clientLeft - 26) / (plane.clientWidth - 52)]; })"
    )
    assert len(ticks) >= 2
    _, _, index = small_world()
    often = index.frequency[index.frequency > 0]
    low, high = np.log(often.min()), np.log(often.max())
    for text, at in ticks:
        value = float(text.removesuffix(" %")) / 100
        assert at == pytest.approx((np.log(value) - low) / (high - low), abs=0.01)
    assert len(page.locator(".pl-tick-y:not([hidden])").all()) >= 2
    assert "share" in page.locator(".pl-axis-x").inner_text()
    assert "activation" in page.locator(".pl-axis-y").inner_text()
    page.mouse.move(*middle(page))
    for _ in range(6):
        page.mouse.wheel(0, -180)
        settled(page)
        assert len(set(words(page, "tick"))) == len(words(page, "tick")) >= 2


@pytest.mark.parametrize("name", PLACES)
def test_search_lights_the_hits_of_the_table_wherever_they_lie(visit, name):
    page = opened(visit, "&img=ex:bus")
    place(page, name)
    type_in(page, "tiger")
    assert 0 < lit_dots(page) <= listed(page)
    if name != "cofiring":  # there some concepts have no place
        assert lit_dots(page) == listed(page)
    settled(page)
    assert overlaps(page) == 0
    assert any("tiger" in word for word in words(page, "name"))


def test_arrow_keys_go_from_dot_to_dot_and_enter_opens_the_card(visit):
    page = opened(visit)
    page.locator(".pl-plane").focus()
    names = []
    for key in ("ArrowRight",) * 3 + ("ArrowDown",) * 3:
        page.keyboard.press(key)
        names.append(
            page.locator(".pl-dot-facts").inner_text() + page.locator(".pl-dot-name").inner_text()
        )
    assert len(set(names)) >= 4
    page.wait_for_function("document.querySelector('.pl-latents .pl-live').textContent !== ''")
    shown = page.locator(".pl-dot-name").inner_text()
    page.keyboard.press("Enter")
    page.wait_for_selector(".pl-card[open] .pl-card-body")
    assert shown.removeprefix("Concept ") in page.locator(".pl-card[open]").inner_text()


def test_what_is_opened_is_joined_with_what_is_most_like_it(visit):
    page = opened(visit)
    _, _, index = small_world()
    page.evaluate(
        "() => { const real = CanvasRenderingContext2D.prototype.lineTo; window.lines = 0;"
        " CanvasRenderingContext2D.prototype.lineTo = function (...at) { window.lines++;"
        " real.apply(this, at); } }"
    )
    page.locator(".pl-plane").focus()
    with page.expect_response(
        lambda answer: (
            "component_server" in answer.url and '"near"' in (answer.request.post_data or "")
        )
    ) as asked:
        page.keyboard.press("ArrowRight")
    question = json.loads(asked.value.request.post_data or "")["data"]
    latent = question["latent"]
    near = index.atlas.near(latent, MAPS[0], 6)
    page.wait_for_function("window.lines > 0")
    assert near
    assert latent not in near


@pytest.fixture
def phone(running, url) -> Iterator[Visit]:
    options = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    one = Visit(running, url, **options, reduced_motion="reduce")
    yield one
    one.close()


def test_two_fingers_zoom_the_map_and_leave_no_lasso(phone):
    page = opened(phone)
    page.locator(".pl-plane").scroll_into_view_if_needed()
    x, y = middle(page)
    hands = page.context.new_cdp_session(page)

    def fingers(kind: str, far: float) -> None:
        points = [{"x": x - far, "y": y, "id": 1}, {"x": x + far, "y": y, "id": 2}]
        given = points if kind != "touchEnd" else []
        hands.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": given})

    assert words(page, "name") == []
    fingers("touchStart", 20)
    for far in range(25, 125, 8):
        fingers("touchMove", far)
    fingers("touchEnd", 0)
    settled(page)
    assert words(page, "name") != []
    assert overlaps(page) == 0
    assert page.locator(".pl-latents .pl-title").inner_text() == "All concepts"
    fingers("touchStart", 120)
    for far in range(112, 4, -8):
        fingers("touchMove", far)
    fingers("touchEnd", 0)
    settled(page)
    assert words(page, "name") == []
    assert page.evaluate("document.documentElement.scrollWidth <= 390")
    assert phone.errors == []


def test_with_motion_the_dots_glide_and_arrive_where_they_are_without(visit, running, url):
    still = opened(visit)
    place(still, "frequency")
    expected = words(still, "tick")
    moving = Visit(
        running, url, viewport={"width": 1280, "height": 900}, reduced_motion="no-preference"
    )
    page = opened(moving)
    page.evaluate(
        "() => { window.drawn = 0; const real = CanvasRenderingContext2D.prototype.putImageData;"
        " CanvasRenderingContext2D.prototype.putImageData = function (...all) { window.drawn++;"
        " real.apply(this, all); } }"
    )
    place(page, "frequency")
    page.wait_for_selector(".pl-tick-x:not([hidden])")
    assert words(page, "tick") == expected
    assert page.evaluate("window.drawn") > 2, "drawn on the way too"
    moving.close()


def test_an_index_without_maps_says_so_and_how_to_add_them(visit):
    def without_maps(part: object) -> object:
        if isinstance(part, list):
            return [without_maps(one) for one in part]
        if isinstance(part, dict) and "maps" in part:
            return {**part, "maps": {}, "lacking": dict.fromkeys(MAPS, f"Not yet: {ADD_MAPS}")}
        if isinstance(part, dict):
            return {key: without_maps(one) for key, one in part.items()}
        return part

    def strip(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, body=json.dumps(without_maps(answer.json())))

    visit.page.route(lambda address: "component_server" in address, strip)
    page = opened(visit)
    assert page.locator(".pl-place [aria-checked=true]").get_attribute("data-value") == "frequency"
    assert ADD_MAPS in page.locator(".pl-place-note").inner_text()
    page.locator(".pl-place [data-value=cofiring]").click(force=True)
    assert page.locator(".pl-place [aria-checked=true]").get_attribute("data-value") == "frequency"
    assert ADD_MAPS in page.locator(".pl-place-note").inner_text()
    assert lit_dots(page) > 0
