"""What two heads of one task do with concepts: counts, overlap, gain, masks, faithfulness.

Knows how often each concept fires in each class, how two models differ in that, and the order of the
measurements; gathers plain numbers. Pictures go through in chunks: nothing grows with their number. Counts
are PatchSAE's, equations 4 and 5: with tau = 0.2, the tokens of each image on which a latent is above tau,
added over the images of a class.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Int32, Int64, Num
from torch import Tensor

from sae.adaptation.classifier import Classifier
from sae.adaptation.heads import Head
from sae.adaptation.lens import ConceptLens, HookedActivations, image_sums
from sae.backbones.text import averaged_text_features, phrases_of
from training.tasks.data import Labelled, TaskData
from training.tasks.masking import (
    FRACTIONS,
    area,
    concept_scores,
    curves,
    families_of,
    logit_lens,
    sweep,
    usual_ks,
)
from training.tasks.reading import CHUNK, chunks

TAU = 0.2
UPPER_RANK, LOWER_RANK = 50, 100


def image_counts(
    reading: HookedActivations, d_sae: int, tau: float = TAU
) -> Int32[Tensor, "images d_sae"]:
    """a_i[s]: int32 (B, d_sae), the tokens of each image on which each latent is above tau."""
    values, indices = reading.latents
    fires = (values > tau).to(torch.int32).flatten(1)
    out = fires.new_zeros(len(values), d_sae)
    return out.scatter_add_(1, indices.flatten(1), fires)


def add_class_counts(
    counts: Int64[Tensor, "classes d_sae"],
    reading: HookedActivations,
    labels: Int64[Tensor, " images"],
    tau: float = TAU,
) -> None:
    """Add images with `labels` (B,) to a_c[s], int64 (C, d_sae), in place."""
    counts.index_add_(0, labels, image_counts(reading, counts.shape[1], tau).to(counts.dtype))


class Overlap(NamedTuple):
    """Mean number of latents a class in each group, as in PatchSAE's Table 1."""

    high: float
    """Above the upper bound in both models."""
    high_to_low: float
    """Above the upper bound in the first model, below the lower bound in the second."""
    low_to_high: float
    """Below the lower bound in the first model, above the upper bound in the second."""


def overlap(
    first: Num[Tensor, "classes d_sae"],
    second: Num[Tensor, "classes d_sae"],
    upper_rank: int = UPPER_RANK,
    lower_rank: int = LOWER_RANK,
) -> Overlap:
    """The groups from two models' class-level counts (C, d_sae).

    A class's upper and lower bounds are the 50th and 100th largest of both models' counts taken
    together ("the union top-50 and top-100"), so that some 25 latents (ties add a few) are high in
    both where the models agree. The paper has no code for this; its levels may be of another reading.
    """
    pooled = torch.cat([first, second], dim=1).sort(dim=1, descending=True).values
    upper = pooled[:, min(upper_rank, pooled.shape[1]) - 1].clamp(min=1)[:, None]
    lower = pooled[:, min(lower_rank, pooled.shape[1]) - 1][:, None].clamp(min=1)
    groups = (
        (first >= upper) & (second >= upper),
        (first >= upper) & (second < lower),
        (first < lower) & (second >= upper),
    )
    return Overlap(*(round(float(group.sum(1).double().mean()), 4) for group in groups))


def correlation(first: Num[Tensor, "rows d_sae"], second: Num[Tensor, "others d_sae"]) -> float:
    """Pearson's r of dataset-level counts a_D[s] of two models, over latents that either fires.

    0.0 where it is not defined (fewer than two latents, or constant counts).
    """
    totals = torch.stack([first.sum(0), second.sum(0)]).double()
    totals = totals[:, (totals > 0).any(0)]
    if totals.shape[1] < 2 or (totals.std(1) == 0).any():
        return 0.0
    return float(torch.corrcoef(totals)[0, 1])


def scatter_points(
    first: Num[Tensor, "classes d_sae"],
    second: Num[Tensor, "classes d_sae"],
    class_names: Sequence[str],
    top: int = 30,
) -> list[list[int]]:
    """[class number, latent, count in first, count in second], the largest count first.

    The `top` most frequent latents of each class in either model, whether they differ or not.
    """
    if len(class_names) != len(first):
        raise ValueError(f"{len(first)} rows of counts, but {len(class_names)} class names")
    keep = torch.zeros(first.shape, dtype=torch.bool)
    for counts in (first, second):
        keep.scatter_(1, counts.topk(min(top, counts.shape[1]), dim=1).indices, True)
    keep &= (first > 0) | (second > 0)
    rows, latents = keep.nonzero(as_tuple=True)
    pairs = torch.stack([first[rows, latents], second[rows, latents]], dim=1)
    order = pairs.amax(1).argsort(descending=True, stable=True)
    return torch.cat([rows[:, None], latents[:, None], pairs], dim=1)[order].tolist()


class Sizes(NamedTuple):
    """How many pictures each measurement takes."""

    n_test: int = 400
    n_masks: int = 200
    n_curves: int = 60
    shots: int = 16


class Model(NamedTuple):
    """A head with its name in the comparison."""

    name: str
    head: Head


def class_counts(
    lens: ConceptLens, classifier: Classifier, data: Labelled
) -> Int64[Tensor, "classes d_sae"]:
    """a_c[s] (C, d_sae) over `data`."""
    shape = (len(classifier.class_names), lens.sae.cfg.d_sae)
    counts = torch.zeros(shape, dtype=torch.int64, device=lens.parts.backbone.device)
    for reading, labels in chunks(lens, classifier, data):
        add_class_counts(counts, reading, labels)
    return counts.cpu()


@torch.no_grad()
def gain(
    lens: ConceptLens, first: Classifier, second: Classifier, data: Labelled
) -> dict[str, Any]:
    """Where the second head's gain over the first comes from, in accuracies on `data`.

    remapped    the first model's activations of CLS and patches, read out by the second head
    existing    the second model's activations without the concepts that the first model's do not
                have anywhere in the same picture, read out by the second head
    swapped     the second model's activations of CLS and patches, read out by the first head
    and the shares of the gain that the first two reach. `mass` is the part of the second model's
    summed activations that lies on concepts the first model has in the same picture.
    """
    n_image = lens.view.image.stop
    names = ("first", "second", "remapped", "existing", "swapped")
    right, mass, n = dict.fromkeys(names, 0), 0.0, 0
    for (a, labels), (b, _) in zip(
        chunks(lens, first, data), chunks(lens, second, data), strict=True
    ):
        active = [
            image_sums(r.latents.values, r.latents.indices, lens.sae.cfg.d_sae) for r in (a, b)
        ]
        existing = lens.edited(b, active[0] > 0, "per_token")
        remapped = torch.cat([a.hidden[:, :n_image], b.hidden[:, n_image:]], dim=1)
        swapped = torch.cat([b.hidden[:, :n_image], a.hidden[:, n_image:]], dim=1)
        runs = (
            ("first", first, a.hidden),
            ("second", second, b.hidden),
            ("remapped", second, remapped),
            ("existing", second, existing),
            ("swapped", first, swapped),
        )
        for name, classifier, hidden in runs:
            features = lens.features(hidden, classifier.prompts, cls_only=True)
            right[name] += int((classifier.logits(features).argmax(-1) == labels).sum())
        mass += float((active[1] * (active[0] > 0)).sum() / active[1].sum()) * len(labels)
        n += len(labels)
    figures: dict[str, Any] = {name: round(count / n, 4) for name, count in right.items()}
    gained = right["second"] - right["first"]
    for name in ("remapped", "existing"):
        share = (right[name] - right["first"]) / gained if gained > 0.005 * n else None
        figures[f"{name}_share"] = None if share is None else round(share, 4)
    return figures | {"mass": round(mass / n, 4), "n_images": n}


def masking(
    lens: ConceptLens,
    classifier: Classifier,
    counts: Int64[Tensor, "classes d_sae"],
    data: Labelled,
    n: int,
) -> dict[str, Any]:
    """Accuracies of a whole sweep, by family, error term and on/off; "plain" is without masks.

    The rankings come from `counts`, which are of training pictures.
    """
    device = lens.parts.backbone.device
    families, ks = families_of(counts.to(device)), usual_ks(lens.sae.cfg.d_sae)
    errors = sum(
        lens.mean_error(r) * len(y) for r, y in chunks(lens, classifier, data, CHUNK)
    ) / min(CHUNK, len(data))
    right: dict[str, Tensor] = {}
    total = 0
    for reading, labels in chunks(lens, classifier, data, n):
        predictions = sweep(
            lens,
            classifier,
            reading,
            labels,
            families,
            ks,
            ("none", "scalar", "per_token"),
            errors,
        )
        for name, predicted in predictions.items():
            hits = (predicted == labels).sum(-1).cpu()
            right[name] = right.get(name, torch.zeros_like(hits)) + hits
        total += len(labels)
    curves_found: dict[str, Any] = {name: (hits / total).tolist() for name, hits in right.items()}
    plain = curves_found.pop("plain")
    rounded = {name: [round(v, 4) for v in values] for name, values in curves_found.items()}
    return {
        "ks": list(ks),
        "plain": round(plain, 4),
        "curves": rounded,
        "scalar": round(errors, 6),
        "n_images": total,
    }


def faithfulness(
    lens: ConceptLens, classifier: Classifier, data: Labelled, templates: Sequence[str], n: int
) -> dict[str, Any]:
    """Mean deletion and insertion curves, for the class margin and for a free-text prompt.

    The margin is of the predicted class against its runner-up; the prompt is the first template
    with the true class, as free words.
    """
    rows = logit_lens(lens)
    phrases = [phrases_of(name, templates[:1]) for name in classifier.class_names]
    words = averaged_text_features(lens.parts.unit_text_features, phrases)
    sums: dict[str, dict[str, Tensor]] = {}
    count = 0
    for reading, labels in chunks(lens, classifier, data, n):
        logits = classifier.logits(lens.features(reading.hidden, classifier.prompts))
        for i, label in enumerate(labels.tolist()):
            one = reading.pick(slice(i, i + 1))
            best = logits[i].topk(2).indices.tolist()
            asked = {
                "margin": classifier.direction(*best),
                "words": lens.parts.scale * words[label],
            }
            for question, direction in asked.items():
                scores = concept_scores(lens, one, direction, classifier.prompts, rows, count)
                for error in ("none", "per_token"):
                    got = curves(
                        lens, one, direction, scores, prompts=classifier.prompts, error=error
                    )
                    into = sums.setdefault(f"{question}/{error}", {})
                    for name, curve in got.items():
                        into[name] = into.get(name, 0) + curve.cpu()
            count += 1
    result: dict[str, Any] = {"fractions": list(FRACTIONS), "n_images": count}
    for question, by_method in sums.items():
        mean = {name: curve / count for name, curve in by_method.items()}
        result[question] = {
            "areas": {name: round(area(curve), 3) for name, curve in mean.items()},
            "curves": {name: [round(v, 3) for v in c.tolist()] for name, c in mean.items()},
        }
    return result


def compare(
    lens: ConceptLens,
    data: TaskData,
    first: Model,
    second: Model,
    sizes: Sizes,
    *,
    known: dict[str, Any],
    seed: int = 0,
) -> dict[str, Any]:
    """Everything of one pair, as plain numbers. `known` keeps what depends on one head alone."""
    result: dict[str, Any] = {
        "task": data.name,
        "heads": [first.name, second.name],
        "sizes": sizes._asdict(),
    }
    for split in ("base", "novel"):
        names = data.classes(split)
        able = all(model.head.any_classes or split == "base" for model in (first, second))
        if len(names) < 2 or not able:
            continue
        pair = [m.head.classifier(lens.parts, names, name=m.name) for m in (first, second)]
        few = data.few_shot(split, sizes.shots, seed)
        test = data.test(split, sizes.n_test, seed, sizes.shots)
        counts = [
            _once(
                known, f"{m.name}/{split}/counts", lambda c=c, few=few: class_counts(lens, c, few)
            )
            for m, c in zip((first, second), pair, strict=True)
        ]
        part = {
            "n_classes": len(names),
            "overlap": overlap(*counts)._asdict(),
            "correlation": round(correlation(*counts), 4),
            "gain": gain(lens, pair[0], pair[1], test),
        }
        if split == "base":
            part["scatter"] = {
                "class_names": list(names),
                "points": scatter_points(counts[0], counts[1], names),
            }
            result |= _of_each_head(lens, data, (first, second), pair, counts, test, sizes, known)
        result[split] = part
    accuracies = [result["base"]["gain"][name] for name in ("first", "second")]
    result["improvement_rate"] = improvement_rate(*accuracies)
    return result


def _of_each_head(
    lens: ConceptLens,
    data: TaskData,
    models: Sequence[Model],
    classifiers: Sequence[Classifier],
    counts: Sequence[Tensor],
    test: Labelled,
    sizes: Sizes,
    known: dict[str, Any],
) -> dict[str, dict[str, Any]]:
    """Masks and faithfulness of each head on the base classes, by its name."""
    figures: dict[str, dict[str, Any]] = {"masking": {}, "faithfulness": {}}
    for model, classifier, own in zip(models, classifiers, counts, strict=True):
        figures["masking"][model.name] = _once(
            known,
            f"{model.name}/masking",
            lambda c=classifier, a=own: masking(lens, c, a, test, sizes.n_masks),
        )
        figures["faithfulness"][model.name] = _once(
            known,
            f"{model.name}/faithfulness",
            lambda c=classifier: faithfulness(lens, c, test, data.templates, sizes.n_curves),
        )
    return figures


def improvement_rate(first: float, second: float) -> float | None:
    """PatchSAE's Delta in percent: the part of the first model's errors that the second mends."""
    return None if first >= 1 else round(100 * (second - first) / (1 - first), 2)


def _once(known: dict[str, Any], key: str, make: Any) -> Any:
    if key not in known:
        known[key] = make()
    return known[key]
