"""Words for what a person does and sees on the lens, for the browser tests."""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from sae.ui.static_files import script_address


def click_patch(page, patch: int, columns: int = 12, **options) -> None:
    box = page.locator(".pl-grid").bounding_box()
    side = box["width"] / columns
    at = {"x": (patch % columns + 0.5) * side, "y": (patch // columns + 0.5) * side}
    page.locator(".pl-grid").click(position=at, **options)


def upload(page, path: Path) -> None:
    page.locator(".pl-file").set_input_files(path)
    page.wait_for_function("document.querySelector('.pl-photo').alt === 'Your picture'")


def wait_for_icons(page) -> None:
    """Return once every picture of a concept that was asked for is there."""
    page.wait_for_function(
        "async (address) => { const { bus } = await import(new URL(address, document.baseURI));"
        " return bus.icons.size > 0 && [...bus.icons.values()].every(Boolean); }",
        arg=script_address("bus.js"),
    )


def overlay(page) -> np.ndarray:
    """Alpha and colour of the map canvas, (h, w, 4)."""
    data = page.evaluate(
        "() => { const c = document.querySelector('.pl-map');"
        " return c.toDataURL('image/png').split(',')[1]; }"
    )
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA")).astype(int)


def title(page) -> str:
    return page.locator(".pl-title").inner_text()


def query(page) -> dict[str, str]:
    return page.evaluate("Object.fromEntries(new URLSearchParams(location.search))")
