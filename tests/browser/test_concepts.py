"""The lens in a real browser, on random weights: pointer, keys, list, card, scale."""

import numpy as np
import pytest

from sae.ui.analysis import Analyst
from sae.ui.catalogue import Catalogue
from sae.ui.examples import EXAMPLES, picture_of
from tests.browser.concepts_page import click_patch, overlay, query, title, upload, wait_for_icons
from tests.browser.serving import chromium
from tests.small_page import D_SAE, METRICS, small_world

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine")


def test_page_opens_on_a_whole_example(visit):
    page = visit.open()
    assert page.locator(".pl-example[aria-pressed=true]").count() == 1
    assert title(page) == "Whole picture"
    assert page.locator(".pl-concept[aria-pressed=true]").count() == 0
    assert overlay(page)[..., 3].max() > 0
    assert str(D_SAE) in page.locator(".pl-lead").inner_text()
    assert f"{METRICS['fvu']:.1%}".replace("%", " %") in page.locator(".pl-facts").inner_text()
    assert query(page)["img"] == "ex:tiger"
    assert visit.errors == []


def test_upload_click_patch_choose_concept_changes_overlay_where_it_should(visit, photo):
    page = visit.open()
    upload(page, photo)
    assert title(page) == "Whole picture"
    assert page.locator(".pl-frame").evaluate("n => n.classList.contains('pl-cropped')")
    before = overlay(page)
    click_patch(page, 66)
    assert title(page) == "One patch"
    assert "row 6, column 7" in page.locator(".pl-subtitle").inner_text()
    page.locator(".pl-concept").first.click()
    page.mouse.move(5, 5)
    after = overlay(page)
    changed = np.abs(after - before).sum(-1) > 0
    height, width = changed.shape
    left, right = round(width * 80 / 400) + 4, round(width * 320 / 400) - 4
    assert changed[:, left:right].any()
    assert not changed[4:-4, : left - 8].any()
    assert not changed[4:-4, right + 8 :].any()
    patch = after[
        height * 5 // 12 : height * 6 // 12,
        left + (right - left) * 6 // 12 : left + (right - left) * 7 // 12,
    ]
    assert patch[4:-4, 4:-4, 3].mean() > after[:, left:right, 3].mean()
    assert query(page)["p"] == "66"
    assert query(page)["img"].startswith("own:")
    assert visit.errors == []


def test_hover_previews_without_requests(visit):
    page = visit.open("?v=1&img=ex:bus")
    wait_for_icons(page)
    box = page.locator(".pl-grid").bounding_box()
    visit.requests.clear()
    seen = set()
    for i in range(12):
        page.mouse.move(box["x"] + (i + 0.5) * box["width"] / 12, box["y"] + box["height"] * 0.4)
        seen.add(page.locator(".pl-subtitle").inner_text())
    assert len(seen) == 12
    assert page.locator(".pl-tip").is_visible()
    assert visit.requests == []
    page.mouse.move(5, 5)
    assert title(page) == "Whole picture"


def test_drag_selects_a_region_shift_drag_subtracts_escape_clears(visit):
    page = visit.open("?v=1&img=ex:bus")
    box = page.locator(".pl-grid").bounding_box()
    side = box["width"] / 12

    def drag(first: tuple[int, int], last: tuple[int, int]) -> None:
        page.mouse.move(box["x"] + (first[1] + 0.5) * side, box["y"] + (first[0] + 0.5) * side)
        page.mouse.down()
        page.mouse.move(
            box["x"] + (last[1] + 0.5) * side, box["y"] + (last[0] + 0.5) * side, steps=4
        )
        page.mouse.up()

    drag((2, 2), (4, 5))
    assert title(page) == "12 patches"
    drag((8, 8), (8, 9))
    assert title(page) == "14 patches"
    page.keyboard.down("Shift")
    drag((2, 2), (2, 5))
    page.keyboard.up("Shift")
    assert title(page) == "10 patches"
    assert query(page)["p"] == "38-41,50-53,104,105"
    page.keyboard.press("Escape")
    assert title(page) == "Whole picture"
    assert "p" not in query(page)


def test_keyboard_alone_reaches_patch_concept_and_card(visit):
    page = visit.open("?v=1&img=ex:bus")
    page.locator(".pl-cell").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert query(page)["p"] == "13"
    assert page.locator(".pl-cell[aria-selected=true]").count() == 1
    page.wait_for_function(
        "document.querySelector('.pl-live').textContent.includes('row 2, column 2')"
    )
    page.keyboard.press("ArrowRight")
    page.keyboard.press(" ")
    assert title(page) == "2 patches"
    page.locator(".pl-concept[tabindex='0']").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    chosen = page.locator(".pl-concept[aria-pressed=true]")
    assert chosen.count() == 1
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(".pl-card[open] .pl-exemplar")
    page.keyboard.press("Escape")
    assert page.locator(".pl-card[open]").count() == 0
    assert page.evaluate("document.activeElement.classList.contains('pl-concept')")
    assert title(page) == "2 patches"
    assert "z" in query(page)
    assert visit.errors == []


def test_card_shows_levels_figures_and_traps_focus(visit):
    page = visit.open()
    page.locator(".pl-open").first.click()
    page.wait_for_selector(".pl-card .pl-exemplar img")
    assert page.locator(".pl-exemplars").count() == 2  # the strongest, and one tenth by the slider
    assert page.locator(".pl-here").count() == 1
    card = Catalogue(small_world()[2], D_SAE, (12, 12))
    figures = card.card(int(query(page)["card"]))["figures"]
    shown = [one for one in card.statistics() if one["column"] and figures[one["name"]] is not None]
    assert page.locator(".pl-figures dt").all_inner_texts() == [one["label"] for one in shown]
    for _ in range(8):
        page.keyboard.press("Tab")
        assert page.evaluate(
            "document.activeElement === document.body || !!document.activeElement.closest('.pl-card')"
        )
    visit.requests.clear()
    page.get_by_role("button", name="Close the card").click()
    page.locator(".pl-open").first.click()
    page.wait_for_selector(".pl-card[open] .pl-exemplar img")
    assert [address for address in visit.requests if "component_server" in address] == []


def test_whole_picture_orders_and_folded_always_on_concepts(visit):
    page = visit.open("?v=1&img=ex:camel")
    orders = set()
    for value in ("mean", "max", "cls"):
        page.locator(f".pl-rank [data-value={value}]").click()
        orders.add(tuple(page.locator(".pl-row:not([hidden]) .pl-name").all_inner_texts()))
    assert len(orders) == 3
    assert query(page)["rank"] == "cls"
    page.locator(".pl-rank [data-value=max]").click()
    fold = page.locator(".pl-dense")
    assert "hidden · show" in fold.inner_text()
    fold.click()
    page.locator(".pl-more").click()
    assert page.locator(".pl-always").count() == int(fold.inner_text().split()[0])


def test_scale_switch_and_opacity_change_the_map_only(visit):
    backbone, sae, index = small_world()
    code = Analyst(backbone, sae).analyse(picture_of(EXAMPLES[0].scene)).code
    fainter = code.latents[code.scale < 0.8 * index.max_activation[code.latents]]
    page = visit.open(f"?v=1&p=60&z={fainter[0]}")
    page.mouse.move(5, 5)
    by_data_set = overlay(page)
    page.locator(".pl-scale [data-value=image]").click()
    assert np.abs(overlay(page) - by_data_set).max() > 0
    assert query(page)["scale"] == "image"
    page.locator(".pl-opacity input").fill("0")
    assert (overlay(page)[..., 3] > 0).mean() < 0.1
    assert title(page) == "One patch"


def test_the_focus_stays_at_the_button_while_a_card_loads(visit):
    page = visit.open("?v=1&img=ex:bus")
    page.locator(".pl-concept").first.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(".pl-card .pl-exemplar img")
    assert page.evaluate("document.activeElement.className").endswith("pl-card-close")
    page.locator(".pl-near button").first.click()
    page.wait_for_selector(".pl-card .pl-exemplar img")
    page.keyboard.press("Enter")
    assert page.locator(".pl-card[open]").count() == 0


def test_composing_by_key_stays_at_the_object_that_one_picks(visit):
    page = visit.open("?v=1&img=ex:bus")
    page.locator(".pl-make").click()
    page.locator(".pl-compose-search").fill("animal")
    tile = page.locator(".pl-kind").nth(3)
    tile.focus()
    page.keyboard.press("Enter")
    assert tile.get_attribute("aria-pressed") == "true"
    assert tile.evaluate("node => node === document.activeElement")
    chip = page.locator(".pl-chip-pick").first
    chip.focus()
    page.keyboard.press("Enter")
    assert chip.evaluate("node => node === document.activeElement")
    page.locator(".pl-objects button", has_text="×").first.focus()
    page.keyboard.press("Enter")
    assert page.evaluate("!!document.activeElement.closest('.pl-objects')")
