"""Own pictures on the Steer and Compare tabs, and links to these that do not fit, on the bundled models."""

import pytest

from tests.browser.concepts_page import query
from tests.browser.serving import chromium
from tests.browser.test_own_pictures import picture, shown_upload

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def url(bundled_url: str) -> str:
    return bundled_url


def test_a_tile_on_steer_and_one_on_compare_show_it_there_and_after_a_reload(visit, tmp_path):
    page = visit.open("?v=1&img=ex:bus")
    link = shown_upload(page, picture(tmp_path, "red.png", (220, 40, 30)))
    own = page.locator("#concepts .pl-photo").get_attribute("src")
    page.locator("#concepts .pl-example[data-name=camel]").click()
    page.wait_for_function("location.search.includes('img=ex:camel')")

    page.get_by_role("tab", name="Steer").click()
    page.wait_for_selector(".pl-next-column")
    page.locator(".pl-steer .pl-own-picture").click()
    page.wait_for_function(
        "src => document.querySelector('.pl-subject-photo').src === src", arg=own
    )
    assert query(page)["img"] == link
    assert page.locator(".pl-steer .pl-own-picture").get_attribute("aria-pressed") == "true"
    page.go_back(wait_until="commit")
    page.wait_for_function(
        "src => document.querySelector('.pl-subject-photo').src !== src", arg=own
    )
    assert query(page)["tab"] == "steer"

    page.get_by_role("tab", name="Compare").click()
    page.wait_for_selector(".pl-fall-sum")
    task = page.url
    page.locator(".pl-compare .pl-own-picture").click()
    page.wait_for_function("location.search.includes('pic=own:')")
    page.wait_for_function("src => document.querySelector('.pl-one img').src === src", arg=own)
    address = page.url
    page.reload()
    page.wait_for_selector(".pl-fall-sum")
    page.wait_for_function("src => document.querySelector('.pl-one img').src === src", arg=own)
    page.wait_for_selector(".pl-compare[data-state=ready]")
    assert page.url == address
    page.go_back(wait_until="commit")
    page.wait_for_function("address => location.href === address", arg=task)
    page.wait_for_function("src => document.querySelector('.pl-one img').src !== src", arg=own)
    assert visit.errors == []


@pytest.mark.parametrize(
    ("asked", "seen", "clause"),
    [
        ("tab=steer&steer=99999999*1,12*1", ".pl-rack-row", "doses"),
        ("tab=steer&steer=12*1,12*2,<b>*3", ".pl-rack-row", "doses"),
        ("tab=steer&img=own:gone&steer=12*1", ".pl-rack-row", "picture"),
        ("tab=steer&sae=00000000&steer=12*1", ".pl-rack-row", "another SAE"),
        ("tab=compare&task=__proto__&heads=a,b&split=c", ".pl-fall-sum", "task"),
        ("tab=compare&pic=own:gone", ".pl-fall-sum", "kept in this browser"),
        ("tab=compare&pic=999&off=1,x,99999999", ".pl-fall-sum", "no picture of the task"),
        ("tab=nothing", "#concepts .pl-row", "tab does not exist"),
    ],
)
def test_a_link_that_does_not_fit_says_so_in_a_sentence_on_every_tab(visit, asked, seen, clause):
    page = visit.page
    page.goto(f"{visit.url}?v=1&{asked}")
    page.wait_for_selector(seen)
    page.wait_for_function(
        "clause => document.querySelector('.pl-misfit p')?.textContent.includes(clause)",
        arg=clause,
    )
    assert page.locator(".pl-misfit").count() == 1
    assert page.locator(".pl-misfit p").is_visible()
    for name in ("Map", "Concepts"):
        page.get_by_role("tab", name=name).click()
        assert page.locator(".pl-misfit p").is_visible()
    assert visit.errors == []


def test_back_walks_through_presets_and_tasks(visit):
    page = visit.page
    page.goto(f"{visit.url}?v=1&tab=steer&img=ex:tiger&steer=12*1")
    page.wait_for_selector(".pl-rack-row")
    page.wait_for_selector(".pl-next li")
    rack = ".pl-rack-row .pl-dose-number"
    first = page.url, page.locator(".pl-rack-row").count()
    chip = page.locator(".pl-experiments .pl-chip").nth(1)
    chip.click()
    page.wait_for_function("address => location.href !== address", arg=first[0])
    page.wait_for_selector("#concepts .pl[data-state=ready]", state="attached")
    page.wait_for_function(
        "!location.search.includes('steer=12*1&') && !location.search.endsWith('steer=12*1')"
    )
    page.go_back(wait_until="commit")
    page.wait_for_function("address => location.href === address", arg=first[0])
    page.wait_for_function(
        "n => document.querySelectorAll('.pl-rack-row').length === n", arg=first[1]
    )
    assert page.locator(rack).first.input_value() == "1"
    length = page.evaluate("history.length")
    slider = page.locator(".pl-dose").first.bounding_box()
    page.mouse.move(slider["x"] + slider["width"] / 2, slider["y"] + slider["height"] / 2)
    page.mouse.down()
    page.mouse.move(slider["x"] + slider["width"] * 0.9, slider["y"] + 4, steps=40)
    page.mouse.up()
    assert page.evaluate("history.length") <= length
    assert "steer=12*1&" not in page.url
    page.get_by_role("tab", name="Compare").click()
    page.wait_for_selector(".pl-fall-sum")
    page.wait_for_function("location.search.includes('task=')")
    tasks = page.locator(".pl-task option").evaluate_all("all => all.map((one) => one.value)")
    page.locator(".pl-task").select_option(tasks[1])
    page.wait_for_function("task => location.search.includes(`task=${task}`)", arg=tasks[1])
    page.go_back(wait_until="commit")
    page.wait_for_function(
        "task => document.querySelector('.pl-task').value === task", arg=tasks[0]
    )
    assert visit.errors == []
