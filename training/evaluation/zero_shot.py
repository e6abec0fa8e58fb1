"""Zero-shot accuracy when activations are replaced by an SAE's reconstructions.

Knows class prompts and the backbone's edits. Knows nothing of training.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from sae.backbones import Backbone
from sae.backbones.text import CLASS_TEMPLATES, averaged_text_features, phrases_of
from sae.backbones.tokens import TokenView
from sae.model import SparseAutoencoder
from sae.world.scenes import kind_names
from training.data.sources import ImageSource
from training.evaluation.measure import image_batches

Reconstruct = Callable[[Float[Tensor, "*tokens d_in"]], Float[Tensor, "*tokens d_in"]]
"""Activations `(*, d_in)` in, the same after a bottleneck out."""

MOST_LABELS = 20_000
"""Images outside the measured ones whose labels are looked up."""


def zero_shot(
    sae: SparseAutoencoder,
    backbone: Backbone,
    held_out: ImageSource,
    *,
    image_batch: int,
    others: ImageSource | None = None,
    baselines: Mapping[str, Reconstruct] | None = None,
) -> dict[str, Any]:
    """Accuracy on the images that have a label: as they are, and reconstructed at the SAE's layer.

    "original" leaves activations alone; "all" replaces every token that the SAE reads; "cls" the CLS
    token alone; the same by each of `baselines`. The classes are the labels that occur, also in
    `others`. ValueError if the backbone has no text, or there are fewer than two classes.
    """
    if not backbone.has_text:
        raise ValueError(f"{backbone.id} has no text tower")
    labels = {n: held_out.label(n) for n in held_out.all_numbers()}
    world = held_out.name.startswith("emoji world")
    classes = kind_names() if world else _labels(labels.values(), others)
    if len(classes) < 2:
        raise ValueError(f"{held_out.name} have no labels")
    text = class_features(backbone, classes, world=world)
    n_right: dict[tuple[str, str], int] = {}
    n_images = 0
    for images, numbers in image_batches(held_out, image_batch):
        kept = [i for i, number in enumerate(numbers) if labels[number]]
        if not kept:
            continue
        truth = torch.tensor([classes.index(labels[numbers[i]]) for i in kept])
        inputs = backbone.preprocess([images[i] for i in kept])
        n_images += len(kept)
        for name, features in _versions(sae, backbone, inputs, baselines or {}):
            right = (features @ text.T).argmax(1).cpu() == truth
            n_right[name] = n_right.get(name, 0) + int(right.sum())
    shares: dict[str, dict[str, float]] = {}
    for (by, part), n in n_right.items():
        shares.setdefault(by, {})[part] = n / max(1, n_images)
    accuracy = shares.pop("sae")
    by_baseline = {"baselines": shares} if shares else {}
    return {"accuracy": accuracy, **by_baseline, "n_classes": len(classes), "n_images": n_images}


def _labels(known: Iterable[str], others: ImageSource | None) -> list[str]:
    known = set(known)
    if others is not None and others.numbers is not None:
        known |= {others.label(int(n)) for n in others.numbers[:MOST_LABELS]}
    return sorted(known - {""})


def class_features(
    backbone: Backbone, classes: Sequence[str], *, world: bool = False
) -> Float32[Tensor, "classes d_proj"]:
    """Unit text features `(classes, d_proj)`, the mean over prompts."""
    if world:
        from training.world import words

        phrases = [words.phrases_of(name) for name in classes]
    else:
        phrases = [phrases_of(name.replace("_", " "), CLASS_TEMPLATES) for name in classes]
    return averaged_text_features(backbone.text_features, phrases)


def _versions(
    sae: SparseAutoencoder,
    backbone: Backbone,
    inputs: dict[str, Tensor],
    baselines: Mapping[str, Reconstruct],
) -> Iterator[tuple[tuple[str, str], Tensor]]:
    """Image features with each kind of replacement: (by what, of what), features."""
    where = sae.cfg.backbone
    views = [TokenView(backbone, where.tokens)]
    if backbone.has_cls and where.tokens == "all":
        views.append(TokenView(backbone, "cls"))
    yield ("sae", "original"), backbone.image_features(inputs)
    for by, reconstruct in {"sae": sae, **baselines}.items():
        for view in views:

            def replaced(h: Tensor, view: TokenView = view, new: Any = reconstruct) -> Tensor:
                return view.put(h, new(view.read(h)))

            with torch.no_grad(), backbone.edit(where.layer, replaced):
                features = backbone.image_features(inputs)
            yield (by, view.policy), features
