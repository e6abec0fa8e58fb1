"""The words of the emoji world: captions, questions with their true answers, and the tokenizer.

Knows scenes and English; knows nothing of models. Captions leave attributes out at random and sometimes use
the wider word ("an animal on grass"), as people do. The vocabulary is closed: every word that captions,
questions and answers use.
"""

from functools import lru_cache
from typing import Any

import numpy as np

from sae.world.backgrounds import BACKGROUNDS
from sae.world.scenes import OBJECT_SIZES, Scene, SceneObject, kind_names, kinds
from sae.world.tasks import WORLD_TEMPLATES

P_SIZE, P_BACKGROUND, P_WIDER = 0.3, 0.7, 0.1
"""How often a caption tells an object's size, the background, and uses a wider word for an object."""
NUMBER_WORDS = ("no", "one", "two", "three")
_SPOKEN_GROUP = {"road vehicle": "vehicle", "wild plant": "plant"}
"""What people say for groups that have no plain word of their own."""
_PLURAL_LIKE = {"grapes", "cherries", "fries", "scissors", "glasses", "clover"}
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
_OTHER_TEXT = (
    "a an and , in on the of there is are picture photo image scene object objects background "
    "small large animal plant food vehicle tree describe what which shown show does one word how "
    "many yes no with it this that user assistant question answer not use exactly : ? ."
)
SPECIAL = ("<pad>", "<unk>", "<mask>", "<s>", "</s>", "<image>")
"""Special tokens, by id. The end token is not id 2: CLIPTextModel treats that id as a legacy case."""


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
    return _pick(rng, WORLD_TEMPLATES).format(text)


def nouns() -> list[str]:
    """What objects are called: kinds, groups and realms, sorted."""
    return sorted({word for kind in kinds() for word in (kind.name, kind.group, kind.realm)})


def phrases_of_nouns() -> dict[str, list[str]]:
    """Each kind, group, realm and background with the phrases that stand for it."""
    phrases = {noun: phrases_of(noun) for noun in nouns()}
    for ground in BACKGROUNDS:
        phrases[f"{ground} background"] = [
            f"{thing} {place_phrase(ground)}"
            for thing in ("an object", "an animal", "a picture of food")
        ]
    return phrases


def phrases_of(noun: str) -> list[str]:
    """The noun with its article in every template."""
    return [template.format(noun_phrase(noun)) for template in WORLD_TEMPLATES]


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


@lru_cache(maxsize=1)
def vocabulary() -> tuple[str, ...]:
    """Every word that captions, questions and answers use, sorted."""
    words = {kind.name for kind in kinds()} | {kind.realm for kind in kinds()}
    words |= {word for kind in kinds() for word in spoken_group(kind.group).split()}
    return tuple(sorted(words | set(BACKGROUNDS) | set(NUMBER_WORDS) | set(_OTHER_TEXT.split())))


@lru_cache(maxsize=2)
def make_tokenizer(*, closes: bool = True) -> Any:
    """A lower-casing word-level tokenizer that writes `<s> … </s>`, or `<s> …` when not `closes`:
    a prompt that a language model goes on with stays open."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = {word: number for number, word in enumerate((*SPECIAL, *vocabulary()))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>" if closes else "<s> $A",
        special_tokens=[("<s>", words["<s>"]), ("</s>", words["</s>"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=32 if closes else 256,
        extra_special_tokens={"image_token": "<image>"},
    )
