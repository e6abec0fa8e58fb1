"""Where two heads disagree: the pictures worth looking at first.

Knows classifiers and pictures; explains nothing, it only asks both heads.
"""

from collections.abc import Iterable, Sequence
from itertools import islice

import torch
from PIL import Image

from sae.adaptation.classifier import Classifier, classify
from sae.backbones.prompting import ClipParts


def first_disagreement(
    parts: ClipParts,
    images: Iterable[Image.Image],
    pair: tuple[Classifier, Classifier],
    at_once: int = 8,
    *,
    truths: Sequence[int] | None = None,
) -> int | None:
    """Place of the first image of which two heads say different classes; None if there is none.

    With `truths`, the class number of each image, the second head must also be right. `images` is
    drawn from only as far as is needed, `at_once` at a time.
    """
    waiting, seen = iter(images), 0
    while batch := list(islice(waiting, at_once)):
        inputs = parts.backbone.preprocess(batch)
        first, second = (classify(parts, head, inputs).argmax(-1) for head in pair)
        found = first != second
        if truths is not None:
            found &= second == torch.as_tensor(truths[seen : seen + len(batch)]).to(second.device)
        places = torch.nonzero(found)
        if len(places):
            return seen + int(places[0])
        seen += len(batch)
    return None
