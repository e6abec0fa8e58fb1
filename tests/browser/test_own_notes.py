"""Own names, notes and pins: given on the card, kept by the browser, shown as one's own, brought in."""

import json

import pytest

from sae import ConceptIndex
from tests.browser.serving import Visit, chromium
from tests.browser.taking import (
    close_card,
    first_latents,
    json_of,
    open_card,
    open_notes,
    own,
    rows_of,
    take,
)

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine")
HOSTILE = "<img src=x onerror=document.title='gone'> \"q\", 'x' =1 ${1} &amp;"
WHOLE = "?v=1&img=ex:tiger"


def opened(visit, query: str = WHOLE):
    page = visit.open(query)
    page.keyboard.press("Escape")
    return page


def saved(page, tmp_path):
    """The file that the dialog saves; the dialog is open."""
    with page.expect_download() as waiting:
        page.locator(".pl-mine-dialog .pl-button", has_text="Save as a file").click()
    path = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def bring_in(page, path) -> str:
    """What the dialog says to a file."""
    before = page.locator(".pl-mine-said").text_content()
    page.locator(".pl-mine-dialog input[type=file]").set_input_files(path)
    page.wait_for_function(
        "(before) => document.querySelector('.pl-mine-said').textContent !== before"
        " || document.querySelector('.pl-mine-ask').children.length",
        arg=before,
    )
    return page.locator(".pl-mine-said").text_content()


def names_listed(page) -> list[str]:
    return page.locator("#concepts .pl-row:not([hidden]) .pl-name").all_inner_texts()


def test_a_name_is_yours_beside_the_models_and_survives_reload_and_a_second_visit(visit):
    page = opened(visit)
    first, second = first_latents(page, 2)
    model = page.locator("#concepts .pl-row .pl-name").all_inner_texts()
    open_card(page, second)
    own(page, HOSTILE, "line one\nline two")
    page.locator(".pl-mine-pinning").click()
    assert page.locator(".pl-card-title bdi").inner_text() == HOSTILE
    assert page.locator(".pl-card-title .pl-mine").inner_text() == "yours"
    close_card(page)
    for _ in range(2):
        top = page.locator("#concepts .pl-row:not([hidden])").first
        assert top.locator(".pl-name bdi").inner_text() == HOSTILE
        assert top.locator(".pl-mine").inner_text() == "yours"
        assert top.locator(".pl-mine-model").inner_text() in " ".join(model)
        assert top.locator(".pl-number").inner_text() == f"#{second}"
        page.reload()
        page.wait_for_selector(".pl[data-state=ready]")
        page.keyboard.press("Escape")
    again = visit.context.new_page()  # a second visit, in the same browser
    again.goto(visit.url + WHOLE)
    again.wait_for_selector(".pl[data-state=ready] .pl-row .pl-mine")
    open_card(again, second)
    assert again.locator(".pl-mine-own-note").input_value() == "line one\nline two"
    again.close()
    assert page.title() == "PatchLens"
    assert page.locator("img[src=x]").count() == 0
    assert first in first_latents(page, 3)
    assert visit.errors == []


def test_removing_can_be_undone_and_two_windows_agree(visit):
    page = opened(visit)
    (latent,) = first_latents(page, 1)
    other = visit.context.new_page()
    other.goto(visit.url + WHOLE)
    other.wait_for_selector(".pl[data-state=ready]")
    open_card(page, latent)
    own(page, "my word", "why")
    other.wait_for_function("document.querySelector('#concepts .pl-mine')")
    page.locator(".pl-mine-remove").click()
    other.wait_for_function("!document.querySelector('#concepts .pl-mine')")
    assert page.locator(".pl-mine-own-name").input_value() == ""
    page.keyboard.press("Enter")  # the focus is at Undo
    assert page.locator(".pl-mine-own-name").input_value() == "my word"
    assert page.locator(".pl-mine-own-note").input_value() == "why"
    other.close()


def test_what_is_typed_is_kept_when_the_card_closes_at_once(visit):
    page = opened(visit)
    (latent,) = first_latents(page, 1)
    open_card(page, latent)
    page.locator(".pl-mine-more").click()
    page.keyboard.type("quick")
    page.keyboard.press("Escape")
    page.wait_for_selector("#concepts .pl-row .pl-mine")
    assert "quick" in " ".join(names_listed(page))


def test_pins_are_first_and_filtered_in_latents_and_own_names_are_found(visit, tmp_path):
    page = opened(visit)
    first, second = first_latents(page, 2)
    open_card(page, second)
    own(page, "zebra crossing")
    page.locator(".pl-mine-pinning").click()
    close_card(page)
    page.get_by_role("tab", name="Map").click()
    page.wait_for_selector(".pl-latents[data-state=ready] .pl-table-row")
    top = page.locator("#latents .pl-table-row").first
    assert "zebra crossing" in top.inner_text()
    assert "yours" in top.inner_text()
    page.locator("[data-filter=pinned]").check()
    assert page.locator("#latents .pl-table-row:not([hidden])").count() == 1
    (row,) = rows_of(take(page, "latents", "Table (CSV)", tmp_path))
    assert (row["concept"], row["your_name"], row["pinned"]) == (
        str(second),
        "zebra crossing",
        "true",
    )
    assert row["name"] != "zebra crossing"
    page.locator("[data-filter=pinned]").uncheck()
    page.locator(".pl-search input").fill("zebra cr")
    page.wait_for_function(
        "document.querySelector('#latents .pl-table-row').textContent.includes('zebra crossing')"
    )
    assert first != second


def test_notes_go_out_as_a_file_that_the_library_reads_and_come_back(visit, url, running, tmp_path):
    page = opened(visit)
    first, second = first_latents(page, 2)
    open_card(page, first)
    own(page, HOSTILE, "a note")
    close_card(page)
    open_card(page, second)
    page.locator(".pl-mine-pinning").click()
    close_card(page)
    open_notes(page)
    path = saved(page, tmp_path)
    assert path.name.startswith("patchlens-notes-")
    content = json_of(path)
    assert content["kind"] == "patchlens notes"
    index = ConceptIndex.from_pretrained(_folder(page))
    named = index.with_notes(path)
    assert named.names[first] == " ".join(HOSTILE.split())
    assert named.model_names[first] == index.names[first]
    assert named.notes[second].pinned
    page.locator(".pl-mine-dialog .pl-button", has_text="Remove all").click()
    assert "brings them back" in page.locator(".pl-mine-said").text_content()
    page.locator(".pl-mine-dialog .pl-button", has_text="Undo").click()
    assert page.locator(".pl-mine-list li").count() == 2
    stranger = Visit(running, url, viewport={"width": 390, "height": 844})
    theirs = opened(stranger)
    open_notes(theirs)
    assert theirs.evaluate("document.documentElement.scrollWidth") <= 390
    assert bring_in(theirs, path) == "Taken: 2 concepts new or changed."
    assert theirs.locator(".pl-mine-list li").count() == 2
    assert "is here already" in bring_in(theirs, path)
    stranger.close()


def test_of_what_contradicts_one_chooses(visit, tmp_path):
    page = opened(visit)
    first, second = first_latents(page, 2)
    for latent, name in ((first, "mine one"), (second, "mine two")):
        open_card(page, latent)
        own(page, name)
        close_card(page)
    open_notes(page)
    content = json_of(saved(page, tmp_path))
    for row in content["concepts"]:
        row["name"], row["note"] = f"their {row['latent']}", "theirs"
    content["concepts"].append({"latent": 511, "pinned": True})
    path = tmp_path / "theirs.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    bring_in(page, path)
    boxes = page.locator(".pl-mine-conflicts input")
    assert boxes.count() == 2
    assert f"#{min(first, second)}" in page.locator(".pl-mine-conflicts").inner_text()
    boxes.first.check()
    page.locator(".pl-mine-ask .pl-button", has_text="Bring in").click()
    after = {row["latent"]: row for row in json_of(saved(page, tmp_path))["concepts"]}
    taken, kept = sorted((first, second))
    assert after[taken]["name"] == f"their {taken}"
    assert after[kept]["name"] == ("mine one" if kept == first else "mine two")
    assert after[kept]["note"] == "theirs"  # nobody had said anything there
    assert after[511]["pinned"]
    page.locator(".pl-mine-dialog .pl-button", has_text="Undo").click()
    back = {row["latent"]: row["name"] for row in json_of(saved(page, tmp_path))["concepts"]}
    assert back == {first: "mine one", second: "mine two"}


def test_damaged_files_and_those_of_another_sae_are_refused_in_a_sentence(visit, tmp_path):
    page = opened(visit)
    (latent,) = first_latents(page, 1)
    open_card(page, latent)
    own(page, "stays")
    close_card(page)
    open_notes(page)
    good = json_of(saved(page, tmp_path))
    row = {"latent": latent, "name": "x"}
    damaged = {
        "no JSON object": "{",
        "found the kind": json.dumps({**good, "kind": "recipe"}),
        "unknown key": json.dumps({**good, "more": 1}),
        "each number once": json.dumps({**good, "concepts": [{"latent": 512}]}),
        "at most 80": json.dumps({**good, "concepts": [{**row, "name": "x" * 81}]}),
        "does not print": json.dumps({**good, "concepts": [{**row, "name": "a\u0000b"}]}),
        "that is no text": json.dumps({**good, "concepts": [{**row, "name": 7}]}),
        "which SAE": json.dumps({**good, "sae": {}}),
        "at most 1000": json.dumps({**good, "concepts": [row] * 1001}),
    }
    for words, text in damaged.items():
        (tmp_path / "bad.json").write_text(text, encoding="utf-8")
        said = bring_in(page, tmp_path / "bad.json")
        assert words in said
        assert "Nothing was taken." in said
        assert page.locator(".pl-mine-list li").count() == 1
    other = {**good, "sae": {**good["sae"], "sha256": "0" * 64, "id": "theirs"}, "concepts": [row]}
    (tmp_path / "other.json").write_text(json.dumps(other), encoding="utf-8")
    assert "another SAE (theirs, 512 concepts)" in bring_in(page, tmp_path / "other.json")
    assert "stays" in page.locator(".pl-mine-list").inner_text()
    page.locator(".pl-mine-ask .pl-button", has_text="by number all the same").click()
    page.locator(".pl-mine-conflicts input").check()
    page.locator(".pl-mine-ask .pl-button", has_text="Bring in").click()
    assert "x" in page.locator(".pl-mine-list li").inner_text()
    far = {
        **other,
        "sae": {**other["sae"], "d_sae": 9999},
        "concepts": [{"latent": 9000, "name": "y"}],
    }
    (tmp_path / "far.json").write_text(json.dumps(far), encoding="utf-8")
    assert "9999 concepts" in bring_in(page, tmp_path / "far.json")
    assert page.locator(".pl-mine-ask .pl-button").count() == 0


def test_what_the_browser_holds_damaged_is_set_aside_and_the_page_goes_on(visit):
    page = opened(visit)
    (latent,) = first_latents(page, 1)
    open_card(page, latent)
    own(page, "before")
    close_card(page)
    key = page.evaluate(
        "Object.keys(localStorage).find((key) => key.startsWith('patchlens-notes-'))"
    )
    page.evaluate("(key) => localStorage.setItem(key, '[{\"latent\": -1}]')", key)
    page.reload()
    page.wait_for_selector(".pl[data-state=ready] .pl-row")
    assert page.locator("#concepts .pl-mine").count() == 0
    assert (
        page.evaluate("(key) => localStorage.getItem(`${key}-damaged`)", key) == '[{"latent": -1}]'
    )
    page.keyboard.press("Escape")
    open_notes(page)
    assert "could not be read" in page.locator(".pl-mine-said").text_content()


def _folder(page) -> str:
    """Where the page's SAE lies, as its Python says it."""
    from tests.browser.taking import python_of

    page.keyboard.press("Escape")
    code = python_of(page, "concepts")
    open_notes(page)
    return code.split("ConceptIndex.from_pretrained('")[1].split("'")[0]
