"""The emoji world as a source: scene number i of a seed, composed when it is asked for."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from sae.world.scenes import compose
from training.data.sources.image_source import ImageSource
from training.world.generator import HELD_OUT_SEED, sample_scene


@dataclass(frozen=True)
class Scenes:
    """Endless scenes of one seed; a scene's label is its first object's kind."""

    seed: int

    def load(self, number: int) -> Image.Image:
        """Scene `number`, drawn."""
        return Image.fromarray(compose(self._scene(number)).image)

    def label(self, number: int) -> str:
        """The kind of scene `number`'s first object."""
        return self._scene(number).objects[0].kind

    def _scene(self, number: int):
        return sample_scene(np.random.default_rng((self.seed, number)))


def world(seed: int, n_eval: int) -> tuple[ImageSource, ImageSource]:
    """Endless training scenes and `n_eval` held-out ones, from seeds that never meet."""
    if not 0 <= seed < HELD_OUT_SEED:
        raise ValueError(f"--seed must be in 0 … {HELD_OUT_SEED - 1} with --data world: {seed}.")
    training, held_out = Scenes(seed), Scenes(HELD_OUT_SEED + seed)
    return (
        ImageSource(f"emoji world, seed {seed}", training.load, label=training.label),
        ImageSource(
            f"emoji world, {n_eval} held-out scenes",
            held_out.load,
            np.arange(n_eval),
            held_out.label,
        ),
    )
