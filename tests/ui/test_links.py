"""Links: every view comes back, nothing that a stranger writes does harm."""

import copy
import random
import re
from dataclasses import replace

import pytest
import torch

from sae.ui.links import (
    OTHER_SAE,
    Limits,
    View,
    format_view,
    mark_of,
    parse_view,
    scene_code,
    scene_from_code,
)
from sae.world.scenes import (
    ANGLES,
    BACKGROUNDS,
    OBJECT_SIZES,
    STYLES,
    Scene,
    SceneObject,
    kind_names,
)
from tests.tiny_saes import tiny_sae

LIMITS = Limits(examples=("tiger", "bus"), n_patches=144, d_sae=2048)


def query_of(text: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in text.split("&"))


def random_scene(rng: random.Random) -> Scene:
    objects = tuple(
        SceneObject(
            rng.choice(kind_names()),
            rng.choice(STYLES),
            rng.randrange(96),
            rng.randrange(96),
            rng.choice(list(OBJECT_SIZES)),
            rng.choice(ANGLES),
        )
        for _ in range(rng.randrange(4))
    )
    return Scene(rng.choice(BACKGROUNDS), objects, rng.randrange(2**32))


def random_view(rng: random.Random) -> View:
    picture = rng.randrange(3)
    concept = rng.choice([None, rng.randrange(2048)])
    return View(
        example=rng.choice(LIMITS.examples) if picture == 0 else None,
        scene=random_scene(rng) if picture == 1 else None,
        patches=tuple(sorted(rng.sample(range(144), rng.choice([0, 1, 4, 60])))),
        concept=concept,
        rank=rng.choice(("max", "mean", "cls")),
        scale=rng.choice(("dataset", "image")),
        card=rng.choice([None, rng.randrange(2048)]),
    )


@pytest.mark.parametrize("seed", range(200))
def test_every_view_comes_back_from_its_link(seed):
    view = random_view(random.Random(seed))
    text = format_view(view)
    assert len(text) < 2000
    assert parse_view(query_of(text), LIMITS) == (view, [])


@pytest.mark.parametrize("seed", range(100))
def test_noise_never_raises_and_never_leaves_the_limits(seed):
    rng = random.Random(seed)
    letters = "0123456789-,.~:<>${}{{}}%&ex:sc:tigermaxdataset1e9\0é٣ \n"
    keys = ("v", "img", "p", "z", "rank", "scale", "card", "other")
    query = {key: "".join(rng.choices(letters, k=rng.randrange(30))) for key in rng.sample(keys, 5)}
    view, ignored = parse_view(query, LIMITS)
    assert all(0 <= patch < 144 for patch in view.patches)
    assert view.concept is None or 0 <= view.concept < 2048
    assert view.example in (None, *LIMITS.examples)
    assert all(clause[0].islower() and clause[-1].isalpha() for clause in ignored)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"img": "ex:${alert(1)}"}, "picture"),
        ({"img": "sc:grass.0~<img onerror=x>.noto.1.1.large.0"}, "scene"),
        ({"z": "1000000000"}, "concept"),
        ({"z": "-1"}, "concept"),
        ({"z": "1e3"}, "concept"),
        ({"z": "٣"}, "concept"),
        ({"p": "144"}, "patches"),
        ({"p": "5-3"}, "patches"),
        ({"p": ",,"}, "patches"),
        ({"rank": "best"}, "order"),
        ({"scale": "{{x}}"}, "scale"),
        ({"v": "2"}, "version"),
    ],
)
def test_what_does_not_fit_is_left_out_and_said_without_repeating_it(query, words):
    view, ignored = parse_view(query, LIMITS)
    assert view == View()
    assert len(ignored) == 1
    assert words in ignored[0]
    assert not any(text in ignored[0] for text in query.values() if len(text) > 2)


def test_another_saes_concepts_are_left_out_and_its_picture_is_kept():
    limits = replace(LIMITS, mark="1234abcd")
    query = {"sae": "1234abcd", "img": "ex:bus", "p": "3", "z": "7", "card": "8"}
    assert parse_view(query, limits) == (View(example="bus", patches=(3,), concept=7, card=8), [])
    assert parse_view({**query, "sae": "0"}, limits) == (
        View(example="bus", patches=(3,)),
        [OTHER_SAE],
    )
    del query["sae"]  # as links were before
    assert parse_view(query, limits)[1] == []


def test_an_sae_is_told_from_others_in_every_precision():
    sae = tiny_sae("topk")
    mark = mark_of(sae)
    assert re.fullmatch("[0-9a-f]{8}", mark)
    assert mark_of(copy.deepcopy(sae).to(torch.bfloat16)) == mark
    with torch.no_grad():
        sae.W_dec[0] *= -1
    assert mark_of(sae) != mark


def test_a_visitors_own_picture_is_the_pages_to_find():
    assert parse_view({"img": "own:k3x9", "z": "7"}, LIMITS) == (View(concept=7), [])
    for text in ("own:", "own:../a", "own:" + "a" * 21, "own:<b>"):
        assert parse_view({"img": text}, LIMITS)[1] == ["its picture is not known"]


def test_good_parts_of_a_partly_bad_link_are_kept():
    view, ignored = parse_view({"img": "ex:bus", "p": "3,999", "z": "7"}, LIMITS)
    assert view == View(example="bus", patches=(3,), concept=7)
    assert len(ignored) == 1


def test_patches_of_an_unknown_picture_are_dropped_with_it():
    view, _ = parse_view({"img": "ex:gone", "p": "3"}, LIMITS)
    assert view.patches == ()


def test_scene_codes_need_no_escaping_and_are_exact():
    scene = Scene("grass", (SceneObject("hotdog", "fluent", 3, 95, "small", -16),), 2**32 - 1)
    code = scene_code(scene)
    assert code == "sc:grass.4294967295~hotdog.fluent.3.95.small.-16"
    assert scene_from_code(code) == scene


@pytest.mark.parametrize(
    "code", ["", "sc:", "sc:grass", "sc:grass.x", "sc:moon.1", "sc:grass.1~cat", "ex:tiger"]
)
def test_broken_scene_codes_are_value_errors(code):
    with pytest.raises(ValueError, match="."):
        scene_from_code(code)
