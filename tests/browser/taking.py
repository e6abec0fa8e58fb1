"""Words for what a person does with “Take away” and with own names, for the browser tests."""

import csv
import io
import json
import re
from pathlib import Path

from PIL import Image


def take(page, tab: str, label: str, folder: Path) -> Path:
    """The file that an entry of the tab's menu really saves, under the name it gives."""
    page.locator(f"#{tab} .pl-take-button").click()
    with page.expect_download() as waiting:
        page.locator(f"#{tab} .pl-take-entry", has_text=label).click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def python_of(page, tab: str) -> str:
    """The script that the tab's menu shows."""
    page.locator(f"#{tab} .pl-take-button").click()
    page.locator(f"#{tab} .pl-take-entry", has_text="Python").click()
    page.wait_for_selector(".pl-take-dialog[open] .pl-python")
    code = page.locator(".pl-python").inner_text()
    page.keyboard.press("Escape")
    return code


def rows_of(path: Path) -> list[dict[str, str]]:
    """A CSV as spreadsheets read it."""
    content = path.read_bytes()
    assert content.startswith(b"\xef\xbb\xbf")
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))


def json_of(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def picture_of(path: Path) -> Image.Image:
    with Image.open(path, formats=["PNG"]) as image:
        return image.convert("RGB")


def open_card(page, latent: int) -> None:
    """The card of a concept that is in the list."""
    rows = page.locator("#concepts .pl-row:not([hidden])")
    row = rows.filter(has=page.locator(".pl-number", has_text=re.compile(rf"^#{latent}$"))).first
    row.locator(".pl-open").click()
    page.wait_for_selector(".pl-card[open] .pl-mine-card")


def first_latents(page, n: int) -> list[int]:
    """Numbers of the first concepts of the list that have a name."""
    texts = page.locator("#concepts .pl-row:not([hidden]) .pl-number").all_inner_texts()
    return [int(text.strip("#")) for text in texts if text][:n]


def own(page, name: str = "", note: str = "") -> None:
    """Type a name and a note on the open card, and leave the field."""
    if page.locator(".pl-mine-own-name").is_hidden():
        page.locator(".pl-mine-more").click()
    page.locator(".pl-mine-own-name").fill(name)
    page.locator(".pl-mine-own-note").fill(note)
    page.locator(".pl-mine-own-note").press("Tab")


def close_card(page) -> None:
    page.keyboard.press("Escape")
    page.wait_for_function("!document.querySelector('.pl-card').open")


def open_notes(page, tab: str = "concepts") -> None:
    page.locator(f"#{tab} .pl-take-button").click()
    page.locator(f"#{tab} .pl-take-entry", has_text="Your names").click()
    page.wait_for_selector(".pl-mine-dialog[open]")
