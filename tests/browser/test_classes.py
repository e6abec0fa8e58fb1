"""Steer and Compare of a classifier under a person's hands, on a small random one."""

import json

import pytest
from gradio_client import handle_file

from tests.browser.concepts_page import query
from tests.browser.serving import chromium, client_of, served
from tests.browser.taking import json_of, rows_of, take
from tests.small_classifier import CLASSES, save

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine")
NOTICE = "document.querySelector('#steer .pl-notice-text').textContent"
SAID = "document.querySelector('#steer .pl-answers .pl-subtitle').textContent"


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    folder = save(tmp_path_factory.mktemp("classifier"))
    with served("app.py", "--port", "{port}", "--sae", str(folder), "--device", "cpu") as address:
        yield address


def opened(visit, extra: str = ""):
    page = visit.page
    page.goto(f"{visit.url}?v=1&tab=steer&img=ix:3{extra}")
    page.wait_for_function("performance.getEntriesByName('patchlens-classes').length")
    return page


def shown(page) -> list[str]:
    return page.locator("#steer .pl-class b").all_text_contents()


def test_a_drag_moves_the_bars_on_the_way_and_keys_undo_it(visit):
    page = opened(visit, "&steer=5*0")
    page.wait_for_selector("#steer .pl-class-bars.pl-turned")
    amounts = "[...document.querySelectorAll('#steer .pl-amount')].map((n) => n.textContent).join()"
    before = page.evaluate(amounts)
    box = page.locator("#steer .pl-dose").bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 2, middle, steps=12)
    page.wait_for_function(f"{amounts} !== {json.dumps(before)}")  # the hand has not let go
    page.mouse.up()
    assert set(shown(page)) <= set(CLASSES)
    for _ in range(12):  # one step, unless the machine is so slow that it is several
        page.keyboard.press("Control+z")
        if page.locator("#steer .pl-dose").input_value() == "0":
            break
    page.wait_for_function(f"{amounts} === {json.dumps(before)}")
    assert query(page)["steer"] == "5*0"
    assert visit.errors == []


def test_six_presses_find_what_holds_the_answer_up_and_a_reload_keeps_it(visit, tmp_path):
    page = opened(visit)
    said = page.locator("#steer .pl-target").input_value()
    assert shown(page)[0] == said
    page.locator("#steer .pl-would-go").click()
    page.locator("#steer .pl-would-list .pl-rack-name").first.click()
    page.wait_for_selector("#steer .pl-class-bars.pl-turned")
    page.locator("#steer .pl-ladder-go").click()
    page.wait_for_function(f"{NOTICE}.includes('all are 0')")
    page.locator("#steer .pl-dose-number").fill("-1")
    page.keyboard.press("Enter")
    page.locator("#steer .pl-ladder-go").click()
    page.locator("#steer .pl-rung").last.click()
    page.wait_for_function(f"{SAID}.includes('random change')")
    content = json_of(take(page, "steer", "Classes (JSON)", tmp_path))
    assert content["kind"] == "patchlens steering"
    assert content["answers"][0]["class"] == said
    latent = query(page)["steer"].split("*")[0]
    page.reload()
    page.wait_for_selector("#steer .pl-class-bars.pl-turned")
    assert query(page)["steer"].startswith(f"{latent}*-2")
    page.locator("#steer .pl-target").fill("no such thing")
    page.keyboard.press("Enter")
    page.wait_for_selector("#steer .pl-notice[data-tone=problem]")
    assert "There is no class" in page.locator("#steer .pl-notice-text").text_content()


def test_callers_get_the_classes(url, tiger):
    answer = client_of(url).predict(
        handle_file(tiger), [{"latent": 5, "strength": 2.0}], api_name="/steer"
    )
    assert {row["name"] for row in answer["classes"]} <= set(CLASSES)
    assert answer["relative_change"] > 0


def test_one_class_against_another_follows_what_is_switched_off_and_back(visit, tmp_path):
    page = visit.page
    page.goto(f"{visit.url}?v=1&tab=compare&img=ix:3&says=3,1")
    page.wait_for_selector("#compare .pl-fall-line input")
    first, second = (page.locator(f"#compare .pl-class-{side}") for side in "ab")
    assert [first.input_value(), second.input_value()] == ["rocket", "tiger cat"]
    box = page.locator("#compare .pl-fall-line input").first
    box.click()
    after = page.locator("#compare .pl-total", has_text="switched off")
    after.wait_for()
    off = query(page)["off"]
    rows = rows_of(take(page, "compare", "Explanation (CSV)", tmp_path))
    shares = [float(row["share_model"]) for row in rows[:-1]]
    assert sum(shares) == pytest.approx(float(rows[-1]["share_model"]), abs=1e-4)
    assert [row["concept"] for row in rows if row["on"] == "False" or row["on"] == "false"] == [off]
    page.keyboard.press("Control+z")
    after.wait_for(state="detached")
    second.fill("school bus")
    second.press("Enter")
    page.wait_for_function("new URLSearchParams(location.search).get('says') === '3,2'")
    second.fill("nothing")
    second.press("Enter")
    page.wait_for_function(
        "document.querySelector('#compare .pl-notice-text').textContent.includes('no such class')"
    )
    assert visit.errors == []
