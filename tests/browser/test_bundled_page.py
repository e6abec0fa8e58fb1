"""The page as `make demo` starts it, on the bundled models: every tab answers."""

import pytest
from gradio_client import handle_file
from gradio_client.exceptions import AppError

from sae import Steerer
from sae.images import open_image
from sae.model import SparseAutoencoder
from sae.steering.edits import edit_from_json
from sae.storage import read_json
from sae.ui.options import EXPERIMENTS
from sae.ui.steer_desk import USUAL_WRITTEN
from tests.browser.concepts_page import query
from tests.browser.serving import chromium, client_of

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def url(bundled_url: str) -> str:
    return bundled_url


def test_the_bundled_models_open_on_a_named_page(visit):
    page = visit.open()
    page.wait_for_selector("#concepts .pl-row:not([hidden]) .pl-icon.pl-has")
    d_sae = SparseAutoencoder.from_pretrained("bundled").cfg.d_sae
    assert f"{d_sae:,}" in page.locator(".pl-lead").first.inner_text()
    assert page.locator("#concepts .pl-row:not([hidden])").count() > 3
    assert page.locator(".pl-warning").is_hidden()
    assert visit.errors == []


def test_a_turned_concept_changes_next_words_and_text_and_the_link_keeps_it(visit):
    page = visit.page
    page.goto(f"{visit.url}?v=1&tab=steer&img=ex:tiger")
    page.wait_for_function("performance.getEntriesByName('patchlens-usable').length")
    page.locator(".pl-remove").click()  # the preset that it opens on
    page.locator(".pl-target").fill("dog")
    page.locator(".pl-would-go").click()
    page.locator(".pl-would-list .pl-rack-name").first.click()
    page.wait_for_selector(".pl-next li")
    page.locator("#steer .pl-take-button").click()
    page.locator("#steer .pl-take-entry", has_text="Python").click()
    page.wait_for_selector(".pl-take-dialog[open] .pl-python")
    assert "Edit(" in page.locator(".pl-python").inner_text()
    page.keyboard.press("Escape")
    page.wait_for_function(
        "document.querySelector('[data-row=original]').textContent"
        " && document.querySelector('[data-row=control]').textContent"
        " && document.querySelector('.pl-stop').disabled"
    )
    latent, dose = query(page)["steer"].split("*")
    assert latent.isdigit()
    slider = page.locator(".pl-dose")
    slider.focus()
    page.keyboard.press("ArrowLeft")  # it may come at the slider's upper end
    assert float(query(page)["steer"].split("*")[1]) < float(dose)
    page.locator(".pl-undo").click()
    assert query(page)["steer"].split("*")[1] == dose
    page.locator(".pl-ladder-go").click()
    page.wait_for_selector(".pl-rung")
    assert page.locator(".pl-rung").count() == 5
    assert visit.errors == []
    page.goto(f"{visit.url}?v=1&tab=steer&steer={latent}*2.5")
    page.wait_for_selector(".pl-rack-row")
    assert page.locator(".pl-dose-number").input_value() == "2.5"


def test_a_comparison_adds_up_on_screen_and_a_switch_is_felt(visit):
    page = visit.page
    page.goto(f"{visit.url}?v=1&tab=compare&task=fluent")
    page.wait_for_selector(".pl-fall-sum")
    for side in (0, 1):
        shares = [
            float(line.locator("b").nth(side).inner_text().replace("−", "-"))
            for line in page.locator(".pl-fall-line:not(.pl-fall-head):not(.pl-total)").all()
        ]
        margin = page.locator(".pl-total b").nth(side).inner_text().replace("−", "-")
        assert sum(shares) == pytest.approx(float(margin), abs=0.005 * len(shares) + 0.006)
    page.locator(".pl-fall-line input").first.uncheck()
    page.wait_for_function("document.querySelectorAll('.pl-total').length === 2")
    assert query(page)["off"].isdigit()
    assert page.locator(".pl-guess-bar em").count() > 0


def test_a_link_holds_as_much_as_the_server_takes(visit):
    page = visit.page
    rack = ",".join(f"{latent}*1.25r" for latent in range(1000, 1080))
    page.goto(f"{visit.url}?v=1&tab=steer&steer={rack}")
    page.wait_for_function("document.querySelectorAll('.pl-rack-row').length === 80")
    assert page.locator(".pl-limit").input_value() == str(USUAL_WRITTEN)
    off = ",".join(str(latent) for latent in range(1000, 1100))
    page.goto(f"{visit.url}?v=1&tab=compare&task=fluent&pic=3&off={off}")
    page.wait_for_function("performance.getEntriesByName('patchlens-explained').length")
    assert query(page)["off"] == off
    assert visit.errors == []


def test_the_http_endpoints_answer(url, tiger):
    client, steerer = client_of(url), Steerer.from_pretrained("bundled")
    rows = client.predict(handle_file(tiger), api_name="/concepts")
    assert {"latent", "name", "activation"} <= rows[0].keys()
    hits = client.predict("tiger", 5, api_name="/search")
    same = steerer.index.searcher.search("tiger", 5, backbone=steerer.backbone)
    assert [row["latent"] for row in hits] == [hit.latent for hit in same]
    edits = [{"latent": rows[0]["latent"], "mode": "ablate"}]
    texts = client.predict(handle_file(tiger), "describe the image", edits, api_name="/steer")
    here = steerer.generate(open_image(tiger), "describe the image", [edit_from_json(*edits)])
    assert (texts["original"], texts["steered"]) == (here.original, here.steered)
    found = client.predict(
        handle_file(tiger), "fluent", "zero_shot", "zero_shot", api_name="/compare"
    )
    for head in found["heads"]:
        total = head["start"] + sum(row["share"] for row in head["contributions"])
        assert total + head["residual"] == pytest.approx(head["margin"], abs=1e-3)


def test_the_endpoints_refuse_what_they_cannot_answer(url, tiger):
    client, ask = client_of(url), "describe the image"
    edits = (
        [{"latent": 10**9, "mode": "set", "strength": 1}],
        [{"latent": 1, "mode": "explode"}],
        [{"latent": 1, "mode": "set", "strength": 1e300}],
        [{"latent": 1}] * 5000,
        {"latent": "../../etc"},
        "edits",
    )
    for wrong in edits:
        with pytest.raises(AppError):
            client.predict(handle_file(tiger), ask, wrong, api_name="/steer")
    for prompt in ("", "<image>" * 9, "word " * 5000):
        with pytest.raises(AppError):
            client.predict(handle_file(tiger), prompt, [], api_name="/steer")
    for task, head in (("../..", "coop"), ("fluent", "../../clip"), ("fluent", "")):
        with pytest.raises(AppError):
            client.predict(handle_file(tiger), task, "zero_shot", head, api_name="/compare")
    with pytest.raises(AppError):
        client.predict("tiger", 1e9, api_name="/search")
    assert client.predict("x" * 100_000, 5, api_name="/search") is not None
    texts = client.predict(handle_file(tiger), ask, [], api_name="/steer")
    assert texts["original"] == texts["steered"]


def test_steer_and_compare_open_on_something_to_see(visit):
    page = visit.page
    page.goto(f"{visit.url}?tab=steer")
    page.wait_for_selector(".pl-rack-row")
    first = read_json(EXPERIMENTS)["presets"][0]["recorded"]
    marked = page.locator("[data-row=steered] mark").first.inner_text()
    assert marked in first["steered"].split()
    assert marked not in first["original"].split()
    assert visit.errors == []
    page.goto(f"{visit.url}?tab=compare")
    page.wait_for_selector(".pl-fall-sum")
    best = [page.locator(f".pl-guesses[data-side='{n}'] .pl-guess").first for n in (0, 1)]
    assert best[0].inner_text() != best[1].inner_text()
    before = query(page)["pic"]
    page.locator(".pl-differ").click()
    page.wait_for_function(
        "(old) => new URLSearchParams(location.search).get('pic') !== old", arg=before
    )
    assert best[0].inner_text() != best[1].inner_text()


def test_a_card_brings_its_concept_into_a_rack_that_was_never_open(visit):
    page = visit.page
    named = Steerer.from_pretrained().index.names
    latent = next(number for number, name in enumerate(named) if name)
    page.goto(f"{visit.url}?v=1&card={latent}")
    page.wait_for_selector(".pl-card-body")
    page.locator(".pl-card-foot button", has_text="Steer with it").click()
    page.wait_for_function(f"location.search.includes('steer={latent}*1.5')")
    assert page.locator(".pl-rack-row").count() == 1
