"""The bundled models on one picture, for the tests of steering."""

import pytest
from PIL import Image

from sae import Steerer
from sae.steering import Prepared
from sae.world.scenes import Scene, SceneObject, compose
from tests.steering.parts import PROMPT


@pytest.fixture(scope="session")
def steerer() -> Steerer:
    return Steerer.from_pretrained("bundled")


@pytest.fixture(scope="session")
def picture() -> Image.Image:
    """A zebra in the upper left, on grass."""
    return Image.fromarray(compose(Scene("grass", (SceneObject("zebra", x=26, y=26),))).image)


@pytest.fixture(scope="session")
def prepared(steerer: Steerer, picture: Image.Image) -> Prepared:
    return steerer.prepare(picture, PROMPT)
