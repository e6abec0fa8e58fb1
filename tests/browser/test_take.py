"""What is taken away, really downloaded and parsed; its Python, run word for word, gives the same."""

import contextlib
import io
import shutil

import numpy as np
import pytest

from sae.ui.static_files import script_address
from tests.browser.concepts_page import click_patch, upload
from tests.browser.serving import Visit, chromium
from tests.browser.taking import json_of, picture_of, python_of, rows_of, take

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine")


def run(code: str) -> dict:
    names: dict = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(code, "taken.py", "exec"), names)
    return names


def test_concepts_go_as_csv_json_and_python_with_the_same_numbers(visit, tmp_path):
    page = visit.open("?v=1&img=ex:tiger")
    page.keyboard.press("Escape")
    listed = page.locator("#concepts .pl-row:not([hidden])")
    path = take(page, "concepts", "(CSV)", tmp_path)
    assert path.name == "patchlens-tiger-concepts-of-picture-strongest-patch.csv"
    rows = rows_of(path)
    amounts = {int(row["concept"]): float(row["activation"]) for row in rows}
    named = listed.filter(has=page.locator(".pl-number", has_text="#"))
    numbers = [int(text.strip("#")) for text in named.locator(".pl-number").all_inner_texts()]
    shown = [float(text) for text in named.locator(".pl-amount").all_inner_texts()]
    assert len(numbers) > 3
    assert [amounts[number] for number in numbers] == pytest.approx(shown, rel=0.05)
    assert list(amounts.values()) == sorted(amounts.values(), reverse=True)
    data = json_of(take(page, "concepts", "(JSON)", tmp_path))
    assert [one["concept"] for one in data["concepts"]] == [int(row["concept"]) for row in rows]
    assert data["models"]["d_sae"] == 512
    taken = run(python_of(page, "concepts"))["rows"]
    assert {row[0] for row in taken} == {int(row["concept"]) for row in rows}
    by_number = {row[0]: row for row in taken}
    for row in rows:
        number, name, amount, often = by_number[int(row["concept"])]
        assert name == row["name"]
        assert amount == pytest.approx(float(row["activation"]), rel=1 / 255)
        assert often == pytest.approx(float(row["frequency"]), rel=1e-6), number


def test_chosen_patches_of_ones_own_picture_are_repeated_from_its_file(
    visit, photo, tmp_path, monkeypatch
):
    page = visit.open("?v=1")
    upload(page, photo)
    click_patch(page, 40)
    click_patch(page, 77, modifiers=["Control"])
    path = take(page, "concepts", "these 2 patches (CSV)", tmp_path)
    assert path.name == "patchlens-your-picture-concepts-of-2-patches-strongest-patch.csv"
    code = python_of(page, "concepts")
    assert "open_image('photo.jpg')  # your picture: where it lies on your computer" in code
    folder = tmp_path / "there"
    folder.mkdir()
    shutil.copy(photo, folder / "photo.jpg")
    monkeypatch.chdir(folder)
    taken = run(code)["rows"]
    rows = rows_of(path)
    assert {row[0] for row in taken} == {int(row["concept"]) for row in rows}
    amounts = {row[0]: row[2] for row in taken}
    for row in rows:
        assert amounts[int(row["concept"])] == pytest.approx(
            float(row["activation"]), rel=0.02, abs=0.02
        )


def test_the_picture_goes_with_its_map_and_says_what_it_is(visit, tmp_path):
    page = visit.open("?v=1&img=ex:tiger")
    page.keyboard.press("Escape")
    plain = take(page, "concepts", "(PNG)", tmp_path)
    assert plain.name == "patchlens-tiger-map.png"
    page.locator("#concepts .pl-concept").first.click()
    page.mouse.move(5, 5)
    lit = take(page, "concepts", "(PNG)", tmp_path)
    assert lit.name.startswith("patchlens-tiger-map-concept-")
    without, with_map = (np.asarray(picture_of(path)).astype(int) for path in (plain, lit))
    height = min(len(without), len(with_map))
    picture = slice(16, 16 + 640)
    assert without.shape[1] == with_map.shape[1] >= 640
    assert (
        np.abs(without[:height][picture, picture] - with_map[:height][picture, picture]).mean() > 2
    )
    caption = with_map[len(with_map) - 60 :]
    assert len(np.unique(caption.reshape(-1, 3), axis=0)) > 20  # letters


def test_the_table_goes_as_filtered_and_sorted_and_its_python_gives_the_same(visit, tmp_path):
    page = visit.page
    page.goto(f"{visit.url}?v=1&tab=latents")
    page.wait_for_selector(".pl-latents[data-state=ready] .pl-table-row")
    page.locator("[data-filter=named]").check()
    page.locator("#latents .pl-sort").nth(2).click()
    shown = page.locator("#latents .pl-table-row:not([hidden]) .pl-number").all_inner_texts()
    path = take(page, "latents", "Table (CSV)", tmp_path)
    rows = rows_of(path)
    assert path.name.endswith(f"{len(rows)}-concepts.csv")
    assert [int(text.strip("#")) for text in shown] == [int(r["concept"]) for r in rows][
        : len(shown)
    ]
    assert all(row["name"] for row in rows)
    data = json_of(take(page, "latents", "Table (JSON)", tmp_path))
    assert data["filters"] == ["Named", "Alive", "Not always on"]
    assert [one["concept"] for one in data["concepts"]] == [int(row["concept"]) for row in rows]
    table = run(python_of(page, "latents"))["table"]
    assert table.index.tolist() == [int(row["concept"]) for row in rows]
    for name in table.columns[1:]:
        written = [float(row[name]) if row[name] else np.nan for row in rows]
        assert np.allclose(table[name], written, rtol=1e-6, equal_nan=True), name
    page.locator(".pl-search input").fill("tiger")
    page.wait_for_function("performance.getEntriesByName('patchlens-found').length")
    searched = rows_of(take(page, "latents", "Table (CSV)", tmp_path))
    found = run(python_of(page, "latents"))["table"]
    assert [int(row["concept"]) for row in searched] == found.index.tolist()
    picture = picture_of(take(page, "latents", "Map (PNG)", tmp_path))
    assert len(picture.getcolors(1 << 24)) > 30


def test_a_csv_is_right_for_every_name_and_runs_nothing(visit):
    page = visit.open("?v=1")
    texts = ["plain", 'a "b", c', "two\nlines", "\r\n", "=1+1", "+1", "-1", "@x", "\t=1", " =1",
             "＝1", "ünï 🐯", "", "'quoted"]  # fmt: skip
    text = page.evaluate(
        "async ([address, rows]) => { const { csvOf } = await import(new URL(address, document.baseURI));"
        " return csvOf(['name', 'n'], rows.map((name, n) => ({ name, n: n - 0.5 }))); }",
        [script_address("take_files.js"), texts],
    )
    assert text.startswith("\ufeffname,n\r\n")
    import csv

    rows = list(csv.reader(io.StringIO(text[1:], newline="")))
    assert [row[1] for row in rows[1:]] == [str(n - 0.5) for n in range(len(texts))]
    for given, (read, _) in zip(texts, rows[1:], strict=True):
        assert read in (given, f"'{given}")
        assert not read.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝"))


def test_the_menu_answers_keys_and_a_phone_reaches_all_of_it(visit, running, url, tmp_path):
    page = visit.open("?v=1")
    page.locator("#concepts .pl-take-button").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    assert "(CSV)" in page.evaluate("document.activeElement.textContent")
    page.keyboard.press("Escape")
    assert page.locator("#concepts .pl-take-list").is_hidden()
    assert page.evaluate("document.activeElement.className").endswith("pl-take-button")
    phone = Visit(
        running, url, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    )
    small = phone.open("?v=1")
    assert small.evaluate("document.documentElement.scrollWidth") <= 390
    small.locator("#concepts .pl-take-button").tap()
    for entry in small.locator("#concepts .pl-take-entry").all():
        box = entry.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
        assert 0 <= box["y"] <= 844 - box["height"]
        assert box["height"] >= 44
    with small.expect_download() as waiting:
        small.locator("#concepts .pl-take-entry", has_text="(CSV)").tap()
    waiting.value.save_as(tmp_path / "phone.csv")
    assert rows_of(tmp_path / "phone.csv")
    phone.close()


@pytest.mark.slow
def test_comparison_and_steering_are_taken_away_too(running, bundled_url, tmp_path):
    visit = Visit(running, bundled_url, viewport={"width": 1280, "height": 900})
    page = visit.page
    page.goto(f"{bundled_url}?v=1&tab=compare&task=fluent&pic=61")
    page.wait_for_selector(".pl-fall-sum")
    shown = page.locator(".pl-total b").all_inner_texts()[:2]
    rows = rows_of(take(page, "compare", "Explanation (CSV)", tmp_path))
    columns = [name for name in rows[0] if name.startswith("share_")]
    total = next(row for row in rows if row["row"] == "margin")
    for column, text in zip(columns, shown, strict=True):
        assert float(total[column]) == pytest.approx(float(text.replace("−", "-")), abs=0.006)
        parts = sum(float(row[column]) for row in rows if row["row"] != "margin")
        assert parts == pytest.approx(float(total[column]), abs=1e-3)
    data = json_of(take(page, "compare", "Explanation (JSON)", tmp_path))
    found = run(python_of(page, "compare"))["found"]
    for row, one in zip(found.concepts, data["rows"], strict=False):
        assert (
            (row.latent, row.name) == (one["concept"], one["name"].rstrip("?"))
            if one["row"] == "concept"
            else True
        )
        if one["row"] == "concept":
            assert list(row.shares) == pytest.approx([one[column] for column in columns], abs=1e-4)
    assert picture_of(take(page, "compare", "(PNG)", tmp_path)).width > 500
    page.goto(f"{bundled_url}?v=1&tab=steer&img=ex:tiger&steer=1502*1.5")
    page.wait_for_selector(".pl-rack-row")
    page.wait_for_function(
        "document.querySelector('.pl-stop').disabled"
        " && document.querySelector('[data-row=control]').textContent !== ''"
    )
    answers = rows_of(take(page, "steer", "Answers (CSV)", tmp_path))
    texts = {row["which"]: row["text"] for row in answers}
    assert texts["steered"] == page.locator("[data-row=steered]").inner_text()
    captions = run(python_of(page, "steer"))["captions"]
    assert (captions.original, captions.steered) == (texts["original"], texts["steered"])
    assert take(page, "steer", "(PNG)", tmp_path).name == "patchlens-tiger-steering.png"
    assert visit.errors == []
    visit.close()
