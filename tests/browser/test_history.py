"""Back and Forward, and what a link holds, in a real browser: as somebody walks, reloads and comes back."""

import pytest

from tests.browser.concepts_page import click_patch, query, title
from tests.browser.serving import Visit, chromium

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine")
SEEN = """() => ({
  picture: document.querySelector('#concepts .pl-photo').src,
  title: document.querySelector('#concepts .pl-title').textContent,
  rows: [...document.querySelectorAll('#concepts .pl-row:not([hidden]) .pl-name')].map((n) => n.textContent),
  pressed: [...document.querySelectorAll('#concepts .pl-concept[aria-pressed=true] .pl-name')]
    .map((n) => n.textContent),
  rank: document.querySelector('.pl-rank [aria-checked=true]').dataset.value,
  scale: document.querySelector('.pl-scale [aria-checked=true]').dataset.value,
  card: Boolean(document.querySelector('.pl-card[open]')),
  tab: document.querySelector('#tabs button[aria-selected=true]').textContent.trim(),
})"""


def open_example(page, name: str) -> None:
    page.locator(f"#concepts .pl-example[data-name={name}]").click()
    page.wait_for_function("name => location.search.includes(`img=ex:${name}`)", arg=name)


def settle(page, address: str) -> None:
    """Return once the page shows what the address says."""
    page.wait_for_function("address => location.href === address", arg=address)
    page.wait_for_selector("#concepts .pl[data-state=ready]", state="attached")


def walk(page) -> list[tuple[str, dict]]:
    """Views of the Concepts tab that somebody walks through: the address and what is seen of each."""
    views = []

    def seen() -> None:
        page.mouse.move(5, 5)
        views.append((page.url, page.evaluate(SEEN)))

    seen()
    open_example(page, "camel")
    seen()
    click_patch(page, 40)
    seen()
    page.locator("#concepts .pl-concept").nth(1).click()
    seen()
    page.locator(".pl-scale [data-value=image]").click()
    seen()
    page.keyboard.press("Escape")
    seen()
    page.locator(".pl-rank [data-value=mean]").click()
    seen()
    open_example(page, "bus")
    seen()
    page.get_by_role("tab", name="About").click()
    seen()
    return views


def test_back_and_forward_show_every_view_again_exactly(visit):
    page = visit.open()
    views = walk(page)
    assert len({address for address, _ in views}) == len(views)
    for address, seen in reversed(views[:-1]):
        page.go_back(wait_until="commit")
        settle(page, address)
        page.mouse.move(5, 5)
        assert page.evaluate(SEEN) == seen
    for address, seen in views[1:]:
        page.go_forward(wait_until="commit")
        settle(page, address)
        assert page.evaluate(SEEN) == seen
    assert visit.errors == []


def test_a_reload_in_the_middle_keeps_the_view_and_the_way_back(visit):
    page = visit.open()
    views = walk(page)
    page.go_back(wait_until="commit")
    page.go_back(wait_until="commit")
    settle(page, views[-3][0])
    page.reload()
    page.wait_for_selector("#concepts .pl[data-state=ready]")
    settle(page, views[-3][0])
    page.mouse.move(5, 5)
    assert page.evaluate(SEEN) == views[-3][1]
    for address, seen in reversed(views[:-3]):
        page.go_back(wait_until="commit")
        settle(page, address)
        page.mouse.move(5, 5)
        assert page.evaluate(SEEN) == seen
    assert visit.errors == []


def test_many_backs_at_once_end_at_the_view_that_was_asked_for_last(visit):
    page = visit.open()
    first = page.url, page.evaluate(SEEN)
    for name in ("camel", "bus", "rocket", "pizza", "guitar"):
        open_example(page, name)
    page.evaluate("() => { for (let i = 0; i < 5; i++) history.back(); }")
    page.wait_for_function("address => location.href === address", arg=first[0])
    page.wait_for_function(
        "name => document.querySelector('.pl-example[aria-pressed=true]').dataset.name === name",
        arg="tiger",
    )
    settle(page, first[0])
    page.mouse.move(5, 5)
    assert page.evaluate(SEEN) == first[1]


def test_dragging_a_region_and_stepping_with_a_key_are_one_step_each(visit):
    page = visit.open("?v=1&img=ex:bus")
    length = page.evaluate("history.length")
    box = page.locator(".pl-grid").bounding_box()
    page.mouse.move(box["x"] + 30, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 250, steps=30)
    page.mouse.up()
    assert page.evaluate("history.length") == length + 1
    region = page.url
    page.mouse.move(5, 5)
    for _ in range(6):
        page.keyboard.press("]")
    assert page.evaluate("history.length") == length + 2
    assert "z" in query(page)
    page.locator(".pl-opacity input").fill("20")
    assert page.evaluate("history.length") == length + 2
    page.go_back(wait_until="commit")
    settle(page, region)
    assert "patches" in title(page)
    assert page.locator(".pl-concept[aria-pressed=true]").count() == 0


def test_back_closes_a_card_and_a_card_that_was_closed_is_no_step(visit):
    page = visit.open("?v=1&img=ex:bus")
    before = page.url
    page.locator("#concepts .pl-open").first.click()
    page.wait_for_selector(".pl-card[open] .pl-exemplar img")
    assert "card" in query(page)
    page.go_back(wait_until="commit")
    page.wait_for_selector(".pl-card:not([open])", state="attached")
    settle(page, before)
    page.go_forward(wait_until="commit")
    page.wait_for_selector(".pl-card[open] .pl-exemplar img")
    page.keyboard.press("Escape")
    page.wait_for_selector(".pl-card:not([open])", state="attached")
    open_example(page, "camel")
    page.go_back(wait_until="commit")
    settle(page, before)
    assert page.locator(".pl-card[open]").count() == 0


def test_composing_is_one_step_however_long_one_drags(visit):
    page = visit.open("?v=1&img=ex:bus")
    before = page.url, page.evaluate(SEEN)
    length = page.evaluate("history.length")
    page.locator(".pl-make").click()
    page.wait_for_selector(".pl-mini-object")
    thing = page.locator(".pl-mini-object").last.bounding_box()
    page.mouse.move(thing["x"] + 10, thing["y"] + 10)
    page.mouse.down()
    page.mouse.move(thing["x"] + 60, thing["y"] - 40, steps=40)
    page.mouse.up()
    page.locator(".pl-swatch").nth(4).click()
    page.wait_for_function("location.search.includes('img=sc:')")
    page.wait_for_selector("#concepts .pl[data-state=ready]")
    assert page.evaluate("history.length") == length + 1
    composed = page.url, page.locator("#concepts .pl-photo").get_attribute("src")
    open_example(page, "rocket")
    page.go_back(wait_until="commit")
    settle(page, composed[0])
    page.wait_for_function(
        "src => document.querySelector('#concepts .pl-photo').src === src", arg=composed[1]
    )
    page.go_back(wait_until="commit")
    settle(page, before[0])
    assert page.evaluate(SEEN)["picture"] == before[1]["picture"]
    assert visit.errors == []


def latents(visit: Visit, extra: str = ""):
    page = visit.page
    page.goto(f"{visit.url}?v=1&tab=latents{extra}")
    page.wait_for_selector(".pl-latents[data-state=ready]")
    page.wait_for_function("performance.getEntriesByName('patchlens-map-ready').length")
    page.wait_for_function("performance.getEntriesByName('patchlens-usable').length")
    return page


LISTED = """() => ({
  title: document.querySelector('.pl-latents .pl-title').textContent,
  told: document.querySelector('.pl-latents .pl-subtitle').textContent,
  rows: [...document.querySelectorAll('.pl-table-row:not([hidden]) .pl-cell-name')].map((n) => n.textContent),
  sorts: [...document.querySelectorAll('.pl-table th[aria-sort]')].map((n) => n.getAttribute('aria-sort')),
  filters: [...document.querySelectorAll('[data-filter]')].map((n) => n.checked),
  colour: document.querySelector('.pl-colour-by').value,
  lasso: document.querySelector('.pl-drop-lasso').textContent,
})"""
DOTS = "document.querySelector('.pl-dots').toDataURL()"


def draw_lasso(page, left: float, top: float, right: float, bottom: float) -> None:
    """A round lasso by hand, in shares of the map."""
    box = page.locator(".pl-plane").bounding_box()
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    places = [(box["x"] + box["width"] * x, box["y"] + box["height"] * y) for x, y in corners]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=40)
    page.mouse.up()


def test_filters_sort_search_lasso_colour_and_zoom_are_in_the_link(visit, running, url):
    page = latents(visit)
    box = page.locator(".pl-plane").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.5)
    for _ in range(3):
        page.mouse.wheel(0, -120)
    draw_lasso(page, 0.2, 0.15, 0.85, 0.9)
    page.locator("[data-filter=named]").check()
    page.locator("[data-filter=selective]").uncheck()
    page.locator(".pl-table .pl-sort").nth(2).click()
    page.locator(".pl-colour-by").select_option("")
    page.mouse.move(5, 5)
    assert page.evaluate(LISTED)["lasso"].startswith("Lasso: ")
    assert len(page.url) < 700
    views = [page.url]
    other = Visit(running, url, viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    again = other.page
    for _ in range(2):  # a stranger's visit, and that one reloaded
        again.goto(views[0]) if again.url == "about:blank" else again.reload()
        again.wait_for_selector(".pl-latents[data-state=ready]")
        again.wait_for_function("performance.getEntriesByName('patchlens-map-ready').length")
        again.wait_for_function(
            "told => document.querySelector('.pl-latents .pl-subtitle').textContent === told",
            arg=page.evaluate(LISTED)["told"],
        )
        again.mouse.move(5, 5)
        assert again.evaluate(LISTED) == page.evaluate(LISTED)
        assert again.url == views[0]
        assert again.evaluate(DOTS) == page.evaluate(DOTS)
    assert other.errors == []
    other.close()


def test_back_undoes_a_lasso_a_filter_and_a_sort_but_not_letters_and_turns_of_the_wheel(visit):
    page = latents(visit)
    page.mouse.move(5, 5)
    views = [(page.url, page.evaluate(LISTED))]

    def step(act) -> None:
        act()
        page.mouse.move(5, 5)
        views.append((page.url, page.evaluate(LISTED)))

    step(lambda: draw_lasso(page, 0.1, 0.1, 0.7, 0.9))
    step(lambda: page.locator("[data-filter=named]").check())
    step(lambda: page.locator(".pl-table .pl-sort").nth(2).click())
    step(lambda: page.locator(".pl-drop-lasso").click())
    length = page.evaluate("history.length")
    box = page.locator(".pl-plane").bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 200)
    for _ in range(40):
        page.mouse.wheel(0, -60)
    page.locator(".pl-search input").press_sequentially("a rocket in snow")
    assert page.evaluate("history.length") == length
    for address, seen in reversed(views[:-1]):
        page.go_back(wait_until="commit")
        page.wait_for_function("address => location.href === address", arg=address)
        page.mouse.move(5, 5)
        page.wait_for_function(
            "told => document.querySelector('.pl-latents .pl-subtitle').textContent === told",
            arg=seen["told"],
        )
        assert page.evaluate(LISTED) == seen
    assert visit.errors == []


@pytest.mark.parametrize(
    "asked",
    [
        "lasso=AAA",
        "lasso=" + "A" * 300,
        "lasso=<script>",
        "zoom=9~9~9000",
        "zoom=NaN~1~2",
        "show=alive,constructor,__proto__",
        "sort=__proto__",
        "sort=toString~up",
        "colour=constructor",
        "q=" + "a" * 500,
        "z=99999&card=-1",
        "sae=00000000&z=3&card=4&lasso=AAA",
    ],
)
def test_a_latents_link_that_does_not_fit_says_so_and_shows_the_rest(visit, asked):
    page = latents(visit, f"&{asked}")
    said = page.locator(".pl-misfit p")
    said.wait_for()
    assert said.inner_text().startswith("This link does not quite fit here: ")
    assert said.inner_text().count(".") == 2
    assert page.locator(".pl-latents .pl-title").inner_text() in ("All concepts", "Found")
    assert visit.errors == []
    page.locator(".pl-misfit-close").click()
    assert said.is_hidden()
    page.reload()
    page.wait_for_selector(".pl-latents[data-state=ready]")


def test_another_saes_link_keeps_its_picture_and_says_so_once(visit):
    page = visit.open("?v=1&sae=0badcafe&img=ex:camel&p=40&z=3&card=4")
    page.wait_for_selector(".pl-example[data-name=camel][aria-pressed=true]")
    assert "another SAE" in page.locator(".pl-misfit p").inner_text()
    assert title(page) == "One patch"
    assert page.locator(".pl-card[open]").count() == 0
    assert query(page)["sae"] != "0badcafe"
    assert "z" not in query(page)
    address = page.url
    page.reload()
    page.wait_for_selector("#concepts .pl[data-state=ready]")
    assert page.url == address
    assert page.locator(".pl-misfit").count() == 0
