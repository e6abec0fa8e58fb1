"""A task's pictures read through a head's vision tower, some at a time. Knows no measure of them."""

from collections.abc import Iterator

import torch
from jaxtyping import Int64
from torch import Tensor

from sae.adaptation.classifier import Classifier
from sae.adaptation.lens import ConceptLens, HookedActivations
from training.tasks.data import Labelled

CHUNK = 40


def chunks(
    lens: ConceptLens, classifier: Classifier, data: Labelled, limit: int | None = None
) -> Iterator[tuple[HookedActivations, Int64[Tensor, " images"]]]:
    """Readings and labels, CHUNK pictures at a time."""
    n = len(data) if limit is None else min(limit, len(data))
    for start in range(0, n, CHUNK):
        numbers = range(start, min(start + CHUNK, n))
        labels = torch.from_numpy(data.labels[list(numbers)]).to(lens.parts.backbone.device)
        yield lens.read(data.pictures(numbers), classifier.prompts), labels
