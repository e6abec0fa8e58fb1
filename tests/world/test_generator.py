"""Scenes are sampled as asked, reproducibly, and training scenes never meet held-out ones."""

import numpy as np
import pytest

from sae.world.scenes import TRAINING_STYLES
from training.world.generator import images, sample_scene


@pytest.mark.parametrize("n_objects", [1, 2, 3])
def test_number_of_objects_and_styles(n_objects):
    rng = np.random.default_rng(0)
    for _ in range(50):
        scene = sample_scene(rng, n_objects=n_objects, styles=("fluent",))
        assert len(scene.objects) == n_objects == len({item.kind for item in scene.objects})
        assert {item.style for item in scene.objects} == {"fluent"}


def test_training_styles_leave_the_third_out():
    _, scenes = images(0, 100)
    assert {item.style for scene in scenes for item in scene.objects} == set(TRAINING_STYLES)


def test_streams_are_reproducible_and_differ():
    (first, scenes), (again, _), (other, _) = images(4, 8), images(4, 8), images(5, 8)
    assert first.shape == (8, 96, 96, 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert len(scenes) == 8


def test_objects_hardly_overlap():
    from sae.world.scenes import compose

    rng = np.random.default_rng(0)
    hidden = []
    for _ in range(100):
        scene = sample_scene(rng, n_objects=2)
        visible = compose(scene).masks[0].sum()
        whole = compose(type(scene)(scene.background, scene.objects[:1], scene.seed)).masks[0].sum()
        hidden.append(1 - visible / whole)
    assert np.mean(hidden) < 0.05
