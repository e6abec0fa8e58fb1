"""Questions about scenes and their true answers. Knows scenes and English; knows no model."""

import numpy as np

from sae.world.scenes import OBJECT_SIZES, Scene, kind_names, kinds
from training.world.captions import NUMBER_WORDS, join, noun_phrase, place_phrase

DESCRIBE = (
    "describe the image",
    "describe this image",
    "describe the scene",
    "what is in the image ?",
)
ONE_WORD = (
    "what is shown , in one word ?",
    "what is shown in one word ?",
    "what is shown in this image ? use exactly one word",
    "what is shown in the image ? use exactly one word",
)
BACKGROUND = ("what is the background ?", "what is the background", "which background is it ?")
COUNT = ("how many objects ?", "how many objects", "how many objects are there ?")
IS_THERE = ("is there {} ?", "is there {}", "is there {} in the image ?")
PROMPT = "user : <image> {} assistant :"
"""How a question is put to the model; the answer follows, then the end token."""


def _pick(rng: np.random.Generator, choices: tuple[str, ...]) -> str:
    return choices[int(rng.integers(len(choices)))]


def description(scene: Scene) -> str:
    """The answer to "describe the image": objects from left to right, then the background."""
    ordered = sorted(scene.objects, key=lambda item: (item.x, item.y))
    phrases = [noun_phrase(item.kind) for item in ordered] or ["no object"]
    return f"{join(phrases)} {place_phrase(scene.background)}"


def main_object(scene: Scene) -> str:
    """The answer to "what is shown, in one word": the largest object, the leftmost of equals."""
    if not scene.objects:
        return scene.background
    return min(scene.objects, key=lambda item: (-OBJECT_SIZES[item.size], item.x, item.y)).kind


def is_there(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    """A yes/no question, true half of the time; a quarter of them about a wider word."""
    shown = {item.kind for item in scene.objects}
    by_name = {kind.name: kind for kind in kinds()}
    if rng.random() < 0.25:
        realms = sorted({kind.realm for kind in kinds()})
        present = {by_name[name].realm for name in shown}
        return _ask(realms, present, rng)
    return _ask(list(kind_names()), shown, rng)


def _ask(words: list[str], present: set[str], rng: np.random.Generator) -> tuple[str, str]:
    wants_yes = bool(present) and rng.random() < 0.5
    pool = sorted(present) if wants_yes else [word for word in words if word not in present]
    word = pool[int(rng.integers(len(pool)))]
    noun = word if word == "food" else noun_phrase(word)
    return _pick(rng, IS_THERE).format(noun), "yes" if wants_yes else "no"


def questions(scene: Scene, rng: np.random.Generator) -> list[tuple[str, str]]:
    """One question of each kind with its answer; the yes/no kind, the hardest to learn, four times."""
    return [
        (_pick(rng, DESCRIBE), description(scene)),
        (_pick(rng, ONE_WORD), main_object(scene)),
        (_pick(rng, BACKGROUND), scene.background),
        (_pick(rng, COUNT), NUMBER_WORDS[len(scene.objects)]),
        *(is_there(scene, rng) for _ in range(4)),
    ]
