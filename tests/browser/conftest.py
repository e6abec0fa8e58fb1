"""Fixtures of the browser tests: one app on small random models for all, one visitor a test."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sae.world.scenes import Scene, SceneObject, compose
from tests.browser.serving import Visit, browser, served
from tests.small_page import save


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = save(tmp_path_factory.mktemp("small"))
    with served("app.py", "--port", "{port}", "--sae", str(folder), "--device", "cpu") as address:
        yield address


@pytest.fixture(scope="session")
def bundled_url() -> Iterator[str]:
    """The emoji world alone, for the files whose `url` this is."""
    with served("app.py", "--port", "{port}", "--lens", "emoji") as address:
        yield address


@pytest.fixture(scope="module")
def running() -> Iterator[object]:
    """A browser for one file: while it runs, its event loop would be in the way of other tests' own."""
    with browser() as one:
        yield one


@pytest.fixture
def visit(running, url) -> Iterator[Visit]:
    one = Visit(running, url, viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    yield one
    assert one.foreign == []
    one.close()


@pytest.fixture
def photo(tmp_path) -> Path:
    """A wide photograph-like picture: a bright disc on a gradient."""
    y, x = np.mgrid[0:240, 0:400]
    pixels = np.stack([x * 255 / 400, y * 255 / 240, np.full_like(x, 90.0)], -1)
    pixels[(x - 200) ** 2 + (y - 120) ** 2 < 60**2] = (250, 220, 40)
    path = tmp_path / "photo.jpg"
    Image.fromarray(pixels.astype(np.uint8)).save(path, quality=92)
    return path


@pytest.fixture
def tiger(tmp_path) -> str:
    """A tiger on grass, as a file."""
    path = tmp_path / "tiger.png"
    scene = Scene("grass", (SceneObject("tiger", "noto", 48, 48),), 3)
    Image.fromarray(compose(scene).image).save(path)
    return str(path)
