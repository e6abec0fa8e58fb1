"""Captions, questions and answers are true, and the tokenizer knows every word of them."""

import numpy as np
import pytest

from sae.world.scenes import Scene, SceneObject, kinds
from training.world.generator import sample_scene
from training.world.words import (
    PROMPT,
    caption,
    description,
    is_there,
    main_object,
    make_tokenizer,
    noun_phrase,
    questions,
)

SCENE = Scene(
    "grass",
    (SceneObject("dog", x=60), SceneObject("owl", size="small", x=20), SceneObject("key", x=40)),
)


def scenes(n: int = 300) -> list[Scene]:
    rng = np.random.default_rng(3)
    return [sample_scene(rng) for _ in range(n)]


def test_articles():
    assert [noun_phrase(w) for w in ("cat", "owl", "ufo", "grapes")] == [
        "a cat",
        "an owl",
        "a ufo",
        "grapes",
    ]


def test_description_reads_left_to_right():
    assert description(SCENE) == "an owl , a key and a dog on grass"
    assert description(Scene("sky")) == "no object in the sky"


def test_main_object_is_the_largest_then_the_leftmost():
    assert main_object(SCENE) == "key"


def test_captions_say_nothing_false():
    """Every kind, wider word, size and background in a caption is in its scene."""
    rng = np.random.default_rng(0)
    by_name = {kind.name: kind for kind in kinds()}
    words_of_kinds = set(by_name)
    for scene in scenes():
        words = caption(scene, rng).split()
        shown = {item.kind for item in scene.objects}
        realms = {by_name[name].realm for name in shown}
        assert set(words) & words_of_kinds <= shown
        assert set(words) & {"animal", "plant", "food", "vehicle"} <= realms
        assert set(words) & {"small", "large"} <= {item.size for item in scene.objects}


def test_yes_no_answers_are_true_and_balanced():
    rng = np.random.default_rng(0)
    by_name = {kind.name: kind for kind in kinds()}
    yes = 0
    for scene in scenes(400):
        question, answer = is_there(scene, rng)
        shown = {item.kind for item in scene.objects} | {
            by_name[item.kind].realm for item in scene.objects
        }
        asked = set(question.split()) & (set(by_name) | {kind.realm for kind in kinds()})
        assert (bool(asked & shown)) == (answer == "yes")
        yes += answer == "yes"
    assert 0.4 < yes / 400 < 0.6


@pytest.mark.parametrize("closes", [True, False])
def test_the_tokenizer_knows_every_word(closes):
    rng = np.random.default_rng(1)
    tokenizer = make_tokenizer(closes=closes)
    for scene in scenes(200):
        texts = [caption(scene, rng)]
        texts += [
            PROMPT.format(question) + " " + answer for question, answer in questions(scene, rng)
        ]
        for text in texts:
            ids = tokenizer(text)["input_ids"]
            assert tokenizer.unk_token_id not in ids, text
            assert (ids[-1] == tokenizer.eos_token_id) == closes
