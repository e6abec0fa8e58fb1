"""Words in prompts, and one unit vector for each word: the one home of templates and their average.

Knows templates, and anything that encodes texts; knows no index, no heads and no files. (The emoji
world's own captions, which its tasks use as templates, are in `sae.world.tasks`.)
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import Tensor

from sae.backbones.base import Backbone

WORD_TEMPLATES = ("{}", "a photo of {}", "a picture of {}")
"""For words of any kind: names of concepts, what a person searches."""
CLASS_TEMPLATES = ("a photo of a {}.", "a picture of a {}.", "{}")
"""For class labels of a data set."""
NO_WORD = tuple(template.format("").strip() or "a" for template in WORD_TEMPLATES)
"""What WORD_TEMPLATES say when they say nothing."""
_NONSENSE = "qzxvj"
_SAME = 0.9999

Encode = Callable[[list[str]], Float[Tensor, "texts d_proj"]]
"""Texts to unit vectors (n, d_proj): `Backbone.text_features`, or `ClipParts.unit_text_features`."""


@cache
def openai_templates() -> tuple[str, ...]:
    """The 80 prompt templates that OpenAI chose for ImageNet, each with one "{}"."""
    from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES

    return tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)


def checked_templates(templates: Sequence[str]) -> tuple[str, ...]:
    """Prompt templates with one "{}" each, for the class name; ValueError otherwise."""
    if isinstance(templates, str) or not templates:
        raise ValueError(f"expected a list of one or more templates, got {templates!r:.80}")
    for template in templates:
        fits = isinstance(template, str) and template.count("{}") == 1
        if not fits or set("{}") & set(template.replace("{}", "")):
            raise ValueError(
                f"template {template!r:.80} needs exactly one {{}}, where the class name goes, as in "
                '"a photo of a {}."'
            )
    return tuple(templates)


def phrases_of(word: str, templates: Sequence[str] = WORD_TEMPLATES) -> list[str]:
    """The phrases that stand for a word: each template with the word in it."""
    return [template.format(word) for template in templates]


def averaged_text_features(
    encode: Encode, phrases: Sequence[Sequence[str]], *, batch: int = 256
) -> Float32[Tensor, "words d_proj"]:
    """Unit vectors (words, d_proj) float32, on the encoder's device: of each word's phrases
    (`phrases_of`) the mean of their unit features, made a unit vector. Means are float64."""
    texts = [phrase for group in phrases for phrase in group]
    parts = [encode(texts[start : start + batch]) for start in range(0, len(texts), batch)]
    features = torch.cat([part.cpu().double() for part in parts])
    means = [group.mean(0) for group in features.split([len(group) for group in phrases])]
    return F.normalize(torch.stack(means), dim=-1).float().to(parts[0].device)


def word_directions(
    backbone: Backbone, words: Mapping[str, Sequence[str]]
) -> Float32[np.ndarray, "words d_proj"] | None:
    """Each word's vector (of its phrases) less that of NO_WORD, float32 (words, d_proj).

    Its product with a unit image vector is a difference of cosines. None if the tower tells none of
    the words from as many meaningless ones: it does not know them.
    """
    lengths = [max(1, len(word.split())) for word in words]
    kinds = sorted(set(lengths))  # a tower may tell two unknown words from one
    nonsense = [phrases_of(" ".join([_NONSENSE] * n)) for n in kinds]
    asked = [*words.values(), NO_WORD, *nonsense]
    vectors = averaged_text_features(backbone.text_features, asked).cpu().numpy()
    known, nothing, meaningless = np.split(vectors, [len(words), len(words) + 1])
    own = meaningless[[kinds.index(n) for n in lengths]]
    return None if ((known * own).sum(1) > _SAME).all() else known - nothing
