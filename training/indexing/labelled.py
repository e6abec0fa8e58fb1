"""The images of --data with their labels and captions, as an index is built over them.

Knows the sources of training/data/sources and the emoji world's words; knows nothing of models or indexes.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from sae.concepts.build.image_pass import Item
from training.data.record import images_of
from training.data.sources import ImageSource, open_whole

INDEX_SEED = 777
"""Scenes of the bundled index: neither training scenes of the CLIP (seed 0) nor held-out ones."""


class World:
    """`n` scenes of the emoji world; labels are the main object's kind, captions describe all."""

    def __init__(self, n: int, seed: int = INDEX_SEED) -> None:
        from sae.world.scenes import kind_names

        if n < 1:
            raise ValueError(f"--n-images {n}: an index needs at least one.")
        self.name, self.n, self.classes = f"emoji world, {n} scenes", n, list(kind_names())
        self.seed = seed

    def content(self) -> tuple[str, str]:
        """The seed: scenes have no files that could change."""
        return f"seed {self.seed}", f"seed {self.seed}"

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, number: int) -> Item:
        from sae.world.scenes import compose
        from training.world.generator import sample_scene
        from training.world.words import description, main_object

        scene = sample_scene(np.random.Generator(np.random.PCG64([self.seed, number])))
        return Item(Image.fromarray(compose(scene).image), main_object(scene), description(scene))


class Labelled:
    """The images of a source with their labels, or `n` of them drawn by chance, always the same."""

    def __init__(self, source: ImageSource, n_all: int, n: int | None) -> None:
        if n is not None and n < 1:
            raise ValueError(f"--n-images {n}: an index needs at least one.")
        numbers = np.arange(n_all)
        if n is not None and n < n_all:
            numbers = np.sort(np.random.default_rng(0).permutation(n_all)[:n])
        self._source, self._numbers = source, numbers
        self._labels = [source.label(int(number)).replace("_", " ") for number in numbers]
        self.classes = sorted(set(self._labels) - {""})
        self.name = f"{_short(source.name)}, {len(numbers)} images"

    def content(self) -> tuple[str, str]:
        """Hashes of the images' names, and of what they hold, in their order."""
        images = images_of(replace(self._source, numbers=self._numbers))
        return _hash(list(images)), _hash(list(images.values()))

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, number: int) -> Item:
        label = self._labels[number]
        return Item(self._source.load(int(self._numbers[number])), label, label)

    def label(self, number: int) -> str:
        """The image's class, "" for none."""
        return self._labels[number]

    def image_name(self, number: int) -> str:
        """The image's path in the data set, or its number."""
        of_source, number = self._source.image_name, int(self._numbers[number])
        return of_source(number) if of_source else f"image {number} of {self._source.name}"


def _hash(texts: list[str]) -> str:
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def open_labelled(data: str, n: int | None) -> "World | Labelled":
    """The images of 'world', a folder (labels: its sub-folders), tar shards, or a dataset."""
    if data == "world":
        return World(6000 if n is None else n)
    return Labelled(*open_whole(data), n)


def _short(name: str) -> str:
    """A source's name without the path that leads to it on this machine."""
    path = Path(name)
    return "/".join(path.resolve().parts[-2:]) if path.exists() else name


def vocabulary(data: str, classes: Sequence[str], file: str | None) -> dict[str, list[str]]:
    """The candidate names with their phrases: of the user's file; else the world's words, or the
    classes and the common words that come with PatchLens."""
    from sae.backbones.text import phrases_of
    from sae.concepts.build.naming import read_words

    if file is None and data == "world":
        from training.world.words import phrases_of_nouns

        return phrases_of_nouns()
    words = read_words(file) if file else [*classes, *read_words()]
    return {word: phrases_of(word) for word in dict.fromkeys(words)}
