"""The Steer tab under a person's hands, on the bundled models: drags, keys, stops, changes of mind."""

import pytest
from gradio_client import handle_file

from sae.ui.static_files import script_address
from tests.browser.concepts_page import query
from tests.browser.serving import chromium, client_of

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine")
PROMPT = "describe the image"
STATE = "document.querySelector('.pl-answers .pl-subtitle').textContent"


@pytest.fixture(scope="module")
def url(bundled_url: str) -> str:
    return bundled_url


def opened(visit, extra: str = ""):
    page = visit.page
    page.goto(f"{visit.url}?v=1&tab=steer&img=ex:tiger{extra}")
    page.wait_for_selector(".pl-rack-row")
    page.wait_for_function("performance.getEntriesByName('patchlens-next').length")
    return page


def written(page) -> None:
    page.wait_for_function(
        f"document.querySelector('.pl-stop').disabled && !{STATE}.includes('writing')"
        " && document.querySelector('[data-row=control]').textContent !== ''"
    )


def strength(page) -> float:
    return float(query(page)["steer"].split(",")[0].split("*")[1])


def focused(page) -> str:
    return page.evaluate("document.activeElement.className || document.activeElement.tagName")


def test_a_long_drag_takes_the_slider_all_the_way(visit):
    page = opened(visit, "&steer=1502*0")
    box = page.locator(".pl-dose").bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.7 * box["width"], middle, steps=25)
    on_the_way = float(page.locator(".pl-dose").input_value())  # the address may follow later
    page.mouse.move(box["x"] + box["width"] - 2, middle, steps=25)
    page.mouse.up()
    assert 0.8 < on_the_way < 1.6
    assert strength(page) == 3
    page.mouse.move(box["x"] + box["width"] - 8, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 + 2, middle, steps=25)
    page.mouse.up()
    assert strength(page) == 0  # snapped to nothing
    assert focused(page) == "pl-dose"


def test_six_arrow_keys_are_six_steps_also_away_from_nothing(visit):
    page = opened(visit, "&steer=1502*0,12*1")
    page.locator(".pl-dose").first.focus()
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    assert strength(page) == pytest.approx(0.3)
    assert focused(page) == "pl-dose"
    assert page.locator(".pl-dose").first.input_value() == "0.3"


def test_keys_alone_switch_place_and_remove_a_row(visit):
    page = opened(visit, "&steer=1502*1,12*1")
    page.locator(".pl-rack-row input[type=checkbox]").first.focus()
    page.keyboard.press(" ")
    assert query(page)["steer"].startswith("1502*1x")
    assert page.evaluate("document.activeElement.type") == "checkbox"
    page.locator(".pl-where").first.focus()
    page.keyboard.press("ArrowDown")
    assert "r" in query(page)["steer"].split(",")[0]
    assert "pl-where" in focused(page)
    page.locator(".pl-remove").first.focus()
    page.keyboard.press("Enter")
    assert query(page)["steer"] == "12*1"
    assert "pl-remove" in focused(page)
    page.locator(".pl-undo").focus()
    for _ in range(3):
        page.keyboard.press("Enter")
    assert query(page)["steer"] == "1502*1,12*1"
    assert "pl-undo" in focused(page)


def test_what_one_chooses_takes_the_place_of_the_rack_that_the_tab_opened_with(visit):
    page = visit.open("?v=1&img=ex:tiger")
    page.get_by_role("tab", name="Steer").click()
    page.wait_for_selector(".pl-rack-row")
    page.get_by_role("tab", name="Concepts").click()
    page.locator(".pl-open").first.click()
    page.locator(".pl-card-foot button", has_text="Steer with it").click()
    latent = page.locator(".pl-card-origin").text_content().split("#")[1].split()[0]
    page.wait_for_function(
        "(s) => new URLSearchParams(location.search).get('steer') === s", arg=f"{latent}*1.5"
    )
    assert page.locator(".pl-rack-row").count() == 1
    page.locator(".pl-add").fill("tulip")
    page.locator(".pl-suggestion").first.click()
    assert page.locator(".pl-rack-row").count() == 2  # one's own choice stays


def test_stop_is_the_last_word_of_an_answer(visit, tiger):
    page = opened(visit, "&steer=1502*1.5")
    written(page)
    page.evaluate(
        f"new MutationObserver(() => (window.states = [...(window.states || []), {STATE}]))"
        ".observe(document.querySelector('.pl-answers .pl-subtitle'),"
        " {childList: true, characterData: true, subtree: true})"
    )
    page.evaluate(  # in one breath: the answer cannot be there before the stop
        "document.querySelector('.pl-write').click(); document.querySelector('.pl-stop').click()"
    )
    client_of(visit.url).predict(handle_file(tiger), PROMPT, [], api_name="/steer")  # written next
    page.locator(".pl-target").fill("zebra")
    page.locator(".pl-would-go").click()
    page.wait_for_selector(".pl-would-list .pl-rack-name")
    states = page.evaluate("window.states")
    assert any("Stopped" in state for state in states), states
    after = states[max(i for i, state in enumerate(states) if "Stopped" in state) :]
    assert not any("writing" in state for state in after)


def test_the_ladder_goes_when_its_rack_goes_and_a_rung_is_of_its_own_rack(visit):
    page = opened(visit, "&steer=1502*1")
    page.locator(".pl-ladder-go").click()
    page.wait_for_selector(".pl-rung")
    rung = page.locator(".pl-rung", has_text="+2 ×")
    rung.click()
    assert strength(page) == 2
    rung.click()
    assert strength(page) == 2
    assert page.locator(".pl-rung").count() == 5
    page.locator(".pl-experiments button").last.click()
    page.wait_for_function("!document.querySelector('.pl-rung')")
    assert "Run it again" in page.locator(".pl-ladder").inner_text()


def test_an_unknown_word_takes_away_the_concepts_of_the_last_one(visit):
    page = opened(visit)
    page.locator(".pl-target").fill("zebra")
    page.locator(".pl-would-go").click()
    page.wait_for_selector(".pl-would-list .pl-rack-name")
    page.locator(".pl-target").fill("quokka")
    page.locator(".pl-would-go").click()
    page.wait_for_function(
        "document.querySelector('.pl-steer .pl-notice-text').textContent.includes('quokka')"
    )
    assert page.locator(".pl-would-list .pl-rack-name").count() == 0


def test_the_concept_of_that_name_is_among_those_that_would_do_it(visit):
    page = opened(visit)
    page.locator(".pl-target").fill("dog")
    page.locator(".pl-would-go").click()
    page.wait_for_selector(".pl-would-list .pl-rack-name")
    names = page.locator(".pl-would-list .pl-rack-name").all_inner_texts()
    shares = page.locator(".pl-would-list tr td:last-child").all_inner_texts()
    reached = [float(text.split("→")[1].strip(" %")) for text in shares]
    assert any(name.startswith("dog") for name in names)
    assert reached == sorted(reached, reverse=True)
    page.locator(".pl-target").fill("fries")
    page.locator(".pl-would-way").select_option("less")
    page.locator(".pl-would-go").click()
    page.wait_for_function(
        "document.querySelector('.pl-would-list').textContent.includes('hardly say')"
    )


def test_a_change_that_the_control_makes_too_is_called_unclear(visit):
    page = opened(visit)
    said = page.evaluate(
        "async ([address, texts]) => { const { changeSentence } ="
        " await import(new URL(address, document.baseURI));"
        " return texts.map(([original, steered, control]) =>"
        " changeSentence({ original, steered, control }, {})); }",
        [script_address("steer_answers.js"), ["aba", "abb", "aaa"]],
    )
    assert said[0] == "Changed; the control did not change it."
    assert "the edit says little" in said[1]
    assert said[2] == "The text is the same."


def test_a_question_that_the_model_was_not_taught_is_told_and_so_is_a_caption_for_an_answer(visit):
    page = opened(visit)
    note = page.locator(".pl-untaught")
    assert note.inner_text() == ""
    page.locator(".pl-prompt").fill("what colour is it")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('.pl-untaught').textContent.includes('colour')")
    page.locator(".pl-prompt").fill("what is this image")
    page.keyboard.press("Enter")
    page.wait_for_function(
        "document.querySelector('.pl-untaught').textContent.includes('same as when')"
    )
    page.locator(".pl-prompt-chip", has_text="how many objects").click()
    page.wait_for_function("document.querySelector('.pl-untaught').textContent === ''")
    written(page)
    assert note.inner_text() == ""
