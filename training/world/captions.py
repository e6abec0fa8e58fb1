"""Words about scenes: captions for contrastive training and the world's closed vocabulary.

Knows scenes and English; knows nothing of models. Captions leave attributes out at random and
sometimes use the wider word ("an animal on grass"), as people do.
"""

from functools import lru_cache

import numpy as np

from sae.world.backgrounds import BACKGROUNDS
from sae.world.scenes import Scene, SceneObject, kinds

P_SIZE, P_BACKGROUND, P_WIDER = 0.3, 0.7, 0.1
"""How often a caption tells an object's size, the background, and uses a wider word for an object."""
NUMBER_WORDS = ("no", "one", "two", "three")
_TEMPLATES = ("{}", "a picture of {}", "a photo of {}", "there is {}", "an image of {}")
_SPOKEN_GROUP = {"road vehicle": "vehicle", "wild plant": "plant"}
"""What people say for groups that have no plain word of their own."""
_PLURAL_LIKE = {"grapes", "cherries", "fries", "scissors", "glasses", "clover"}


@lru_cache(maxsize=1)
def _kind_by_name() -> dict:
    return {kind.name: kind for kind in kinds()}


def spoken_group(group: str) -> str:
    """The word or words that captions use for a group of kinds."""
    return _SPOKEN_GROUP.get(group, group)


def noun_phrase(noun: str) -> str:
    """The noun with its article: "a cat", "an owl", "grapes"."""
    if noun in _PLURAL_LIKE:
        return noun
    article = "an" if noun[0] in "aeiou" and not noun.startswith(("uf", "un")) else "a"
    return f"{article} {noun}"


def place_phrase(background: str) -> str:
    """ "on grass", "in the night" … one fixed phrase a background."""
    return {"water": "in water", "sky": "in the sky", "night": "in the night"}.get(
        background, f"on {background}"
    )


def _object_phrase(item: SceneObject, rng: np.random.Generator) -> str:
    kind = _kind_by_name()[item.kind]
    noun = item.kind
    if rng.random() < P_WIDER:
        noun = kind.realm if rng.random() < 0.5 else spoken_group(kind.group)
    if rng.random() < P_SIZE:
        return noun_phrase(f"{item.size} {noun}")
    return noun_phrase(noun)


def join(phrases: list[str]) -> str:
    """ "a", "a and b", "a , b and c"."""
    return " and ".join([*([" , ".join(phrases[:-1])] if phrases[:-1] else []), phrases[-1]])


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """A random true caption of `scene`."""
    order = rng.permutation(len(scene.objects))
    text = join([_object_phrase(scene.objects[i], rng) for i in order])
    if rng.random() < P_BACKGROUND:
        text = f"{text} {place_phrase(scene.background)}"
    return _TEMPLATES[int(rng.integers(len(_TEMPLATES)))].format(text)


_OTHER_TEXT = (
    "a an and , in on the of there is are picture photo image scene object objects background "
    "small large animal plant food vehicle tree describe what which shown show does one word how "
    "many yes no with it this that user assistant question answer not use exactly : ? ."
)


@lru_cache(maxsize=1)
def vocabulary() -> tuple[str, ...]:
    """Every word that captions, questions and answers use, sorted."""
    words = {kind.name for kind in kinds()} | {kind.realm for kind in kinds()}
    words |= {word for kind in kinds() for word in spoken_group(kind.group).split()}
    return tuple(sorted(words | set(BACKGROUNDS) | set(NUMBER_WORDS) | set(_OTHER_TEXT.split())))
