"""Several pictures side by side in a real browser: what they share, and one concept lit in all of them."""

import pytest

from tests.browser.concepts_page import query
from tests.browser.serving import Visit, chromium
from tests.browser.test_own_pictures import picture, shown_upload

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine")
SEEN = """() => ({
  pictures: [...document.querySelectorAll('.pl-beside-frame img')].map((one) => one.src),
  said: [...document.querySelectorAll('.pl-beside-one figcaption')].map((one) => one.textContent),
  lit: [...document.querySelectorAll('.pl-beside-line[aria-pressed=true]')].map((one) => one.dataset.latent),
  shared: [...document.querySelectorAll('.pl-beside-chip')].map((one) => one.dataset.latent),
  maps: [...document.querySelectorAll('.pl-beside-frame canvas')].map((one) => one.toDataURL()),
})"""


def wait_for(page, n: int) -> None:
    page.wait_for_function(f"document.querySelectorAll('.pl-beside-one').length === {n}")


def tinted(page) -> list[bool]:
    """Of every picture, whether anything is drawn over it."""
    return page.evaluate(
        "() => [...document.querySelectorAll('.pl-beside-frame canvas')].map((one) => one.getContext('2d')"
        ".getImageData(0, 0, one.width, one.height).data.some((v) => v > 0))"
    )


def test_one_click_lights_a_shared_concept_in_all_and_back_takes_it_away(visit, tmp_path):
    page = visit.open("?v=1&img=ex:bus")
    own = shown_upload(page, picture(tmp_path, "red.png", (220, 40, 30)))
    page.locator(".pl-several").click()
    wait_for(page, 1)
    for n, name in enumerate(("bus", "camel"), 2):
        page.locator(f"#concepts .pl-example[data-name={name}]").click()
        wait_for(page, n)
    assert query(page)["with"] == f"{own},ex:bus,ex:camel"
    alone = page.url, page.evaluate(SEEN)
    chip = page.locator(".pl-beside-chip").first
    assert chip.inner_text().split("in ")[-1] in ("2", "3")
    latent = chip.get_attribute("data-latent")
    chip.click()
    assert query(page)["lit"] == latent
    assert page.locator(".pl-beside-chip[aria-pressed=true]").get_attribute("data-latent") == latent
    seen = page.evaluate(SEEN)
    fires = ["fires in" in one for one in seen["said"]]
    assert sum(fires) >= 2
    assert tinted(page) == fires
    assert seen["lit"] == [latent] * sum(fires)
    lit = page.url
    page.reload()
    wait_for(page, 3)
    page.wait_for_selector(".pl-beside-chip[aria-pressed=true]")
    assert page.url == lit
    assert page.evaluate(SEEN) == seen
    page.go_back(wait_until="commit")
    page.wait_for_function("!document.querySelector('.pl-beside-chip[aria-pressed=true]')")
    assert page.url == alone[0]
    assert page.evaluate(SEEN) == alone[1]
    page.locator(".pl-several").click()
    page.wait_for_selector("#concepts .pl-frame", state="visible")
    assert "with" not in query(page)
    assert visit.errors == []


def test_at_most_four_and_one_is_taken_away_again(visit):
    page = visit.open("?v=1&img=ex:tiger")
    page.locator(".pl-several").click()
    for n, name in enumerate(("bus", "camel", "rocket"), 2):
        page.locator(f"#concepts .pl-example[data-name={name}]").click()
        wait_for(page, n)
    page.locator("#concepts .pl-example[data-name=pizza]").click()
    page.wait_for_selector("#concepts .pl-notice:not([hidden])")
    assert "At most 4" in page.locator("#concepts .pl-notice-text").inner_text()
    wait_for(page, 4)
    page.locator(".pl-beside-away").nth(1).click()
    wait_for(page, 3)
    assert query(page)["with"] == "ex:tiger,ex:camel,ex:rocket"
    pressed = page.locator("#concepts .pl-example[aria-pressed=true]")
    assert {one.get_attribute("data-name") for one in pressed.all()} == {"tiger", "camel", "rocket"}
    assert visit.errors == []


@pytest.mark.parametrize(
    ("asked", "n"),
    [
        ("with=ex:tiger,own:zzz,ex:bus", 2),
        ("with=own:zzz", 0),
        ("with=ex:tiger,<img src=x>,/etc/passwd,http://example.com/a", 1),
        ("with=ex:tiger,ex:bus,ex:camel,ex:rocket,ex:pizza,ex:guitar", 4),
        ("with=ex:tiger,ex:nothing&lit=99999", 1),
        ("with=sc:moon.1~x&lit=-1", 0),
    ],
)
def test_a_link_of_pictures_that_are_not_here_says_so_and_shows_the_others(visit, asked, n):
    page = visit.open(f"?v=1&img=ex:camel&{asked}")
    page.wait_for_selector(".pl-misfit:not([hidden])")
    wait_for(page, n)
    assert page.locator(".pl-beside").is_visible() == bool(n)
    assert page.locator("#concepts .pl-frame").is_visible() == (not n)
    assert visit.errors == []


def test_two_fit_beside_each_other_on_a_phone(running, url):
    phone = Visit(
        running, url, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    )
    page = phone.open("?v=1&with=ex:tiger,ex:bus")
    wait_for(page, 2)
    left, right = (page.locator(".pl-beside-frame").nth(n).bounding_box() for n in (0, 1))
    assert left["y"] == right["y"]
    assert right["x"] + right["width"] <= 390
    page.locator(".pl-beside-chip").first.tap()
    assert any(tinted(page))
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert phone.errors == []
    phone.close()
