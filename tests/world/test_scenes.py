"""The composer: same scene, same pixels; masks are where objects are; bad scenes are refused."""

import numpy as np
import pytest

from sae.world.backgrounds import BACKGROUNDS, paint_background
from sae.world.scenes import (
    SIZE,
    STYLES,
    Scene,
    SceneObject,
    compose,
    kind_names,
    kinds,
    patch_labels,
    scene_from_json,
    scene_to_json,
    sprite,
)

CAT = SceneObject("cat", "noto", 30, 40)
DOG = SceneObject("dog", "twemoji", 36, 44, "small", -16)


def test_there_are_100_to_150_kinds_with_a_taxonomy():
    assert 100 <= len(kinds()) <= 150
    assert len(set(kind_names())) == len(kinds())
    assert {kind.realm for kind in kinds()} == {"animal", "plant", "food", "vehicle", "object"}
    assert all(kind.group for kind in kinds())


def test_same_scene_same_pixels():
    scene = Scene("grass", (CAT, DOG), seed=5)
    assert np.array_equal(compose(scene).image, compose(scene).image)
    assert not np.array_equal(
        compose(scene).image, compose(Scene("grass", (CAT, DOG), seed=6)).image
    )


def test_pixels_outside_the_masks_rims_are_background():
    picture = compose(Scene("wood", (CAT,), seed=1))
    ground = paint_background("wood", SIZE, 1)
    changed = (picture.image != ground).any(-1)
    assert changed[picture.masks[0]].mean() > 0.97
    rows, columns = np.nonzero(changed)
    assert abs(rows.mean() - 40) < 4
    assert abs(columns.mean() - 30) < 4


def test_later_objects_cover_earlier_ones():
    alone = compose(Scene("plain", (CAT,))).masks[0]
    under, over = compose(Scene("plain", (CAT, DOG))).masks
    assert not (under & over).any()
    assert over.sum() > 0
    assert under.sum() < alone.sum()
    assert np.array_equal(under | (alone & over), alone)


def test_objects_at_the_border_are_clipped_not_wrapped():
    picture = compose(Scene("night", (SceneObject("cat", "noto", 0, 0),)))
    assert picture.masks[0][:30, :30].any()
    assert not picture.masks[0][40:].any()
    assert not picture.masks[0][:, 40:].any()


def test_patch_labels_are_shares():
    masks = np.zeros((1, SIZE, SIZE), bool)
    masks[0, :8, :4] = True
    share = patch_labels(masks, 8)
    assert share.shape == (1, 12, 12)
    assert share[0, 0, 0] == 0.5
    assert share.sum() == 0.5


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_backgrounds_are_pictures_and_differ_by_seed(name):
    first, again, other = (paint_background(name, SIZE, seed) for seed in (0, 0, 1))
    assert first.shape == (SIZE, SIZE, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("style", STYLES)
def test_every_kind_is_drawn_in_every_style(style):
    assert all(np.asarray(sprite(name, style))[..., 3].mean() > 20 for name in kind_names())


def test_json_round_trip():
    scene = Scene("dots", (CAT, DOG), seed=9)
    assert scene_from_json(scene_to_json(scene)) == scene


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        '{"background": "lava"}',
        '{"background": "grass", "seed": -1}',
        '{"background": "grass", "seed": 1.5}',
        '{"background": ["grass"]}',
        '{"background": "grass", "objects": [{"kind": "cat", "x": 96}]}',
        '{"background": "grass", "objects": [{"kind": "cat", "x": true}]}',
        '{"background": "grass", "objects": [{"kind": "cat", "wings": 2}]}',
        '{"background": "grass", "objects": 3}',
        '{"background": "grass", "objects": [{"kind":"cat"},{"kind":"cat"},{"kind":"cat"},{"kind":"cat"}]}',
    ],
)
def test_bad_scenes_are_refused(text):
    with pytest.raises(ValueError, match="[Ss]cene"):
        scene_from_json(text)
