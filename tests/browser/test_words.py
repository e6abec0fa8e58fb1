"""Every word on screen is a plain one, hints come by key and by touch, and the page is called by its name."""

import re

import httpx
import pytest

from sae.ui.page_head import DESCRIPTION, TITLE, with_head
from tests.browser.serving import Visit, chromium

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine")
READY = {
    "concepts": "#concepts .pl[data-state=ready] .pl-row",
    "latents": ".pl-latents[data-state=ready] .pl-table-row",
    "steer": ".pl-next li",
    "compare": ".pl-fall-sum",
    "about": ".pl-about",
}
STRANGE = re.compile(
    r"\b(latents?|heads?|recorded|features?|Spread|Look|Steers|Guessed|Truly|clamped)\b|</?s>"
    r"|of the rack|no word fits|far more megapixels|Layer \d+ of \d+\b(?! to)"
)
"""Words that only those know who have read the papers or the code; on screen it is: concept, version."""
WORDS = """() => {
  const said = [document.body.innerText];
  for (const node of document.querySelectorAll("[title], [placeholder], [aria-label], [alt]")) {
    if (!node.checkVisibility()) continue;
    for (const name of ["title", "placeholder", "aria-label", "alt"]) {
      said.push(node.getAttribute(name) || "");
    }
  }
  return said;
}"""
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


@pytest.fixture(scope="module")
def url(bundled_url: str) -> str:
    return bundled_url


def opened(visit: Visit, tab: str, extra: str = ""):
    visit.page.goto(f"{visit.url}?v=1&tab={tab}{extra}")
    visit.page.wait_for_selector(READY[tab])
    return visit.page


def strange_words(page) -> list[str]:
    return [text for text in page.evaluate(WORDS) if STRANGE.search(text)]


@pytest.mark.parametrize("tab", READY)
def test_no_word_of_the_papers_stands_on_a_tab(visit, tab):
    page = opened(visit, tab)
    for folded in page.locator("details:visible").all():
        folded.locator("summary").click()
    page.evaluate("document.querySelectorAll('pre').forEach((code) => code.remove())")
    assert strange_words(page) == []


def test_no_word_of_the_papers_stands_on_a_card_in_the_composer_or_where_nothing_is_found(visit):
    page = opened(visit, "concepts")
    page.locator(".pl-open").first.click()
    page.wait_for_selector(".pl-card .pl-card-body")
    assert strange_words(page) == []
    page.keyboard.press("Escape")
    page.locator(".pl-make").click()
    page.wait_for_selector(".pl-kind")
    assert strange_words(page) == []
    page.goto(f"{visit.url}?v=1&tab=latents&q=quokka")
    page.wait_for_selector(".pl-latents .pl-empty:not([hidden])")
    assert strange_words(page) == []


def test_the_ladder_and_the_concepts_for_a_word_are_told_in_plain_words(visit):
    page = opened(visit, "steer", "&img=ex:tiger&steer=1502*1")
    page.locator(".pl-word").fill("tiger")
    page.locator(".pl-ladder-go").click()
    page.wait_for_selector(".pl-rung")
    page.locator(".pl-target").fill("zebra")
    page.locator(".pl-would-go").click()
    page.wait_for_selector(".pl-would-list .pl-rack-name")
    page.evaluate("document.querySelectorAll('pre').forEach((code) => code.remove())")
    assert strange_words(page) == []


def test_a_flip_is_told_without_arithmetic(visit):
    page = opened(visit, "steer")
    said = page.evaluate(
        """async () => {
          const { flipSentence } = await import(performance.getEntriesByType("resource")
            .map((one) => one.name).find((name) => name.endsWith("/steer_answers.js")));
          return [-1, -1.6, 1, 2, null].map((flip) => flipSentence({ flip, word: "cat" }));
        }"""
    )
    which = "The text changes to or from “cat” "
    assert said == [
        f"{which}with all strengths of the list reversed.",
        f"{which}with all strengths of the list reversed, times 1.6.",
        f"{which}at the strengths of the list.",
        f"{which}at the strengths of the list, times 2.",
        "None of these strengths changes the text to or from “cat”.",
    ]


def test_a_layer_is_called_as_the_command_line_calls_it(visit):
    page = opened(visit, "concepts")
    assert "Layer 3 of 0 to 4" in page.locator(".pl-facts").inner_text()
    assert "--layer 3" in page.locator(".pl-facts [title*='--layer']").get_attribute("title")


def test_a_hint_comes_by_key_and_goes_by_escape(visit):
    page = opened(visit, "concepts")
    wanted = page.locator(".pl-facts [data-hint]", has_text="Unexplained")
    page.locator("body").click(position={"x": 3, "y": 3})
    for _ in range(12):
        page.keyboard.press("Tab")
        if wanted.evaluate("node => node === document.activeElement"):
            break
    hint = page.locator(".pl-hint")
    assert hint.inner_text() == wanted.get_attribute("title")
    box = hint.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 1280
    page.keyboard.press("Escape")
    assert hint.is_hidden()


@pytest.mark.parametrize(
    ("tab", "explained"),
    [
        ("concepts", ".pl-facts [data-hint] >> nth=1"),
        ("latents", ".pl-sort >> nth=1"),
        ("steer", ".pl-control-title"),
        ("compare", ".pl-fall-sum [data-hint] >> nth=2"),
    ],
)
def test_a_hint_comes_by_touch(running, url, tab, explained):
    phone = Visit(running, url, **PHONE)
    page = opened(phone, tab)
    node = page.locator(explained)
    node.scroll_into_view_if_needed()
    node.tap()
    page.wait_for_selector(".pl-hint:not([hidden])")
    assert page.locator(".pl-hint").inner_text() == node.get_attribute("title")
    box = page.locator(".pl-hint").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    phone.close()


@pytest.mark.parametrize("tab", ["latents", "steer", "compare"])
def test_every_list_to_choose_from_has_a_border_an_arrow_and_a_focus(visit, tab):
    page = opened(visit, tab)
    lists = page.locator("select:visible")
    assert lists.count() > 0
    for one in lists.all():
        style = one.evaluate(
            "node => { const s = getComputedStyle(node); return [s.borderTopWidth, s.backgroundImage]; }"
        )
        assert style[0] == "1px"
        assert "gradient" in style[1]
        page.keyboard.press("Shift")  # the last touch was a key, as for whoever tabs along
        one.focus()
        assert one.evaluate("node => getComputedStyle(node).outlineStyle") == "solid"


def test_the_page_has_its_name_from_the_first_byte(visit, url):
    html = httpx.get(url, timeout=900).text
    first = html[: html.index("<script")]
    assert re.findall("<title>(.*?)</title>", html) == [TITLE]
    assert f'content="{DESCRIPTION}"' in first
    assert first.count("og:title") == 1
    assert "Gradio" not in re.sub(r"<style.*?</style>", "", first, flags=re.DOTALL)
    assert "og:image" not in html.split("window.gradio_config")[0]
    page = visit.page
    page.add_init_script(
        "window.titles = []; setInterval(() => window.titles.push(document.title), 5);"
    )
    page.goto(url)
    page.wait_for_selector(READY["concepts"])
    assert set(page.evaluate("titles.filter(Boolean)")) == {TITLE}


def test_only_a_page_gets_a_name():
    assert with_head(b'{"detail": "no page"}') == b'{"detail": "no page"}'
