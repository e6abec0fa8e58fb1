"""Keys: Ctrl+Z and its like in Steer, Compose and Compare; arrows along everything that stands in a row."""

import pytest

from tests.browser.concepts_page import query
from tests.browser.serving import Visit, chromium

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine")
READY = {
    "concepts": "#concepts .pl[data-state=ready] .pl-row",
    "latents": ".pl-latents[data-state=ready] .pl-table-row",
    "steer": ".pl-rack-row",
    "compare": ".pl-fall-sum",
}


@pytest.fixture(scope="module")
def url(bundled_url: str) -> str:
    return bundled_url


def opened(visit: Visit, tab: str, extra: str = ""):
    visit.page.goto(f"{visit.url}?v=1&tab={tab}{extra}")
    visit.page.wait_for_selector(READY[tab])
    return visit.page


def press(page, key: str, times: int = 6) -> None:
    for _ in range(times):
        page.keyboard.press(key)


def rack(page) -> str:
    return query(page).get("steer", "")


def travel(page, key: str, read, wanted, most: int = 6) -> None:
    """Press `key` until `wanted` is there: once, or on a slow machine once for each late press."""
    for _ in range(most):
        page.keyboard.press(key)
        if read(page) == wanted:
            return
    assert read(page) == wanted


def test_six_changes_of_the_rack_are_undone_one_by_one_and_done_again(visit):
    page = opened(visit, "steer", "&img=ex:tiger&steer=1502*1,12*1,19*1")
    states = [rack(page)]
    for number, act in enumerate(("switch", "place", "remove") * 2):
        row = page.locator(".pl-rack-row").first
        if act == "switch":
            row.locator("input[type=checkbox]").focus()
            page.keyboard.press(" ")
        elif act == "place":
            row.locator(".pl-where").focus()
            page.keyboard.press("ArrowDown")
        else:
            row.locator(".pl-remove").focus()
            page.keyboard.press("Enter")
        assert rack(page) != states[-1], number
        states.append(rack(page))
        page.wait_for_timeout(1300)  # a step of its own
    for before in reversed(states[:-1]):
        page.keyboard.press("Control+z")
        assert rack(page) == before
    page.keyboard.press("Control+z")
    assert rack(page) == states[0]
    for after in states[1:]:
        page.keyboard.press("Control+Shift+z")
        assert rack(page) == after


def test_six_presses_of_an_arrow_are_one_step_back_from_the_slider_and_the_list(visit):
    page = opened(visit, "steer", "&img=ex:tiger&steer=1502*0")
    page.locator(".pl-dose").focus()
    press(page, "ArrowRight")
    assert rack(page) == "1502*0.3"
    travel(page, "Control+z", rack, "1502*0")
    travel(page, "Control+y", rack, "1502*0.3")
    page.locator(".pl-where").focus()
    page.keyboard.press("ArrowDown")
    assert rack(page) != "1502*0.3"
    page.keyboard.press("Control+z")  # while the list has the focus
    assert rack(page) == "1502*0.3"
    page.locator(".pl-add").focus()
    page.keyboard.type("ca")
    page.keyboard.press("Control+z")  # in a text, its own
    assert rack(page) == "1502*0.3"


def places(page) -> list[str]:
    return page.locator(".pl-mini-object").evaluate_all(
        "(nodes) => nodes.map((node) => `${node.ariaLabel} ${node.style.left} ${node.style.top}`)"
    )


def test_a_composed_scene_is_undone(visit):
    page = opened(visit, "concepts", "&img=ex:tiger")
    page.locator(".pl-make").click()
    page.wait_for_selector(".pl-mini-object")
    first = places(page)
    page.locator(".pl-mini-object").last.focus()
    press(page, "ArrowLeft")
    moved = places(page)
    box = page.locator(".pl-mini-object").first.bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 60, box["y"] + 50, steps=15)
    page.mouse.up()
    dragged = places(page)
    page.locator(".pl-compose-chip button", has_text="×").first.click()
    removed = places(page)
    assert len({str(one) for one in (first, moved, dragged, removed)}) == 4
    for before in (dragged, moved):
        page.keyboard.press("Control+z")
        assert places(page) == before
    travel(page, "Control+z", places, first)
    page.keyboard.press("Control+z")
    assert places(page) == first
    travel(page, "Control+Shift+z", places, moved)
    for after in (dragged, removed, removed):
        page.keyboard.press("Control+Shift+z")
        assert places(page) == after
    page.wait_for_function("location.search.includes('img=sc:')")


def compared(page) -> dict[str, str]:
    page.wait_for_selector(".pl-compare[data-state=ready]")
    return {key: query(page).get(key, "") for key in ("task", "heads", "split", "pic", "off")}


def test_choices_in_compare_are_undone_one_by_one(visit):
    page = opened(visit, "compare", "&task=fluent&pic=3")
    states = [compared(page)]

    def after(key: str) -> None:
        page.wait_for_function(
            "([key, was]) => (new URLSearchParams(location.search).get(key) || '') !== was",
            arg=[key, states[-1][key]],
        )
        states.append(compared(page))

    page.locator(".pl-head-b").focus()
    page.keyboard.press("ArrowUp")
    after("heads")
    page.locator(".pl-next-picture").click()
    after("pic")
    page.locator(".pl-fall-line input").nth(1).focus()
    page.keyboard.press(" ")
    after("off")
    page.locator(".pl-next-picture").click()
    after("pic")
    for before in reversed(states[:-1]):
        page.keyboard.press("Control+z")
        page.wait_for_function(
            "(wanted) => Object.entries(wanted).every(([key, text]) =>"
            " (new URLSearchParams(location.search).get(key) || '') === text)",
            arg=before,
        )
        assert compared(page) == before
    page.keyboard.press("Control+Shift+z")
    page.wait_for_function(
        "(heads) => location.search.includes(heads)", arg=f"heads={states[1]['heads']}"
    )


@pytest.mark.parametrize(
    ("tab", "box", "item"),
    [
        ("concepts", ".pl-strip", ".pl-source"),
        ("steer", ".pl-subject-strip", "button"),
        ("steer", ".pl-experiments", "button"),
        ("steer", ".pl-prompts", "button"),
    ],
)
def test_what_stands_in_a_row_is_one_tab_stop_and_walked_by_arrows(visit, tab, box, item):
    page = opened(visit, tab)
    items = page.locator(f"{box} {item}")
    stops = items.evaluate_all("(nodes) => nodes.filter((node) => node.tabIndex === 0).length")
    assert stops == 1
    items.first.focus()
    press(page, "ArrowRight", 3)
    assert items.nth(3).evaluate("node => node === document.activeElement")
    press(page, "ArrowLeft", 6)
    assert items.first.evaluate("node => node === document.activeElement")
    page.keyboard.press("End")
    assert items.last.evaluate("node => node === document.activeElement && node.tabIndex === 0")


def test_six_arrows_walk_down_the_lists_and_the_objects(visit):
    page = opened(visit, "latents")
    rows = page.locator(".pl-table-row:visible")
    assert rows.evaluate_all("(nodes) => nodes.filter((node) => node.tabIndex === 0).length") == 1
    rows.first.focus()
    press(page, "ArrowDown")
    assert rows.nth(6).evaluate("node => node === document.activeElement")
    page.get_by_role("tab", name="Concepts").click()
    page.locator(".pl-concept").first.focus()
    press(page, "ArrowDown")
    assert page.locator(".pl-concept").nth(6).evaluate("node => node === document.activeElement")
    page.locator(".pl-make").click()
    kinds = page.locator(".pl-kind")
    kinds.first.focus()
    press(page, "ArrowDown", 2)
    first, now = kinds.first.bounding_box(), page.locator(".pl-kind:focus").bounding_box()
    assert now["y"] > first["y"] + first["height"]
    assert abs(now["x"] - first["x"]) < 2


def test_six_arrows_walk_along_the_tabs(visit):
    page = opened(visit, "concepts")
    page.get_by_role("tab", name="Concepts").focus()
    names = ("Map", "Steer", "Compare", "About", "Concepts", "Map")
    for name in names:
        page.keyboard.press("ArrowRight")
        assert page.get_by_role("tab", name=name).get_attribute("aria-selected") == "true"
        assert page.evaluate("document.activeElement.textContent").strip() == name
