"""Two heads on one image, concept by concept: what the Compare tab and /compare ask.

    comparison = Comparison(backbone, sae, index.names)
    found = comparison.explain(image, "fluent", ("zero_shot", "maple"))
    found.to_json()
    comparison.switched_off(found, [12, 407])

Knows heads, the lens and attribution; knows nothing of pages. One Comparison serves many threads.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from sae.adaptation import files
from sae.adaptation.attribution import Attribution, attribute
from sae.adaptation.classifier import Classifier, checked_classes
from sae.adaptation.explanation import ConceptRow, Explanation, Prediction, Side, ranked
from sae.adaptation.heads import ZeroShotHead
from sae.adaptation.lens import ConceptLens, ErrorTerm, HookedActivations
from sae.backbones.base import Backbone
from sae.backbones.prompting import ClipParts
from sae.model import SparseAutoencoder
from sae.sparse import SparseLatents
from sae.world.tasks import task

MAX_WORDS = 200
"""Longest free text, in letters."""


class Switched(NamedTuple):
    """Both heads with some concepts off."""

    predictions: tuple[list[Prediction], list[Prediction]]
    scores: tuple[float, float]
    """The explained score (margin or match) of each head, recomputed."""


class Comparison:
    """A CLIP, an SAE on it, and the heads in a folder; `names` names the latents."""

    def __init__(
        self,
        backbone: Backbone,
        sae: SparseAutoencoder,
        names: Sequence[str] | None = None,
        *,
        root: Path = files.ROOT,
    ) -> None:
        """Raises ValueError if the backbone is no CLIP with text or the SAE is of another one."""
        self.parts = ClipParts(backbone)
        self.lens = ConceptLens(self.parts, sae)
        self.names, self.root = names, root
        self._classifier = lru_cache(maxsize=64)(self._open)

    def tasks(self) -> list[dict[str, Any]]:
        """name, title, cause, base, novel, heads (name, label, any_classes, accuracy) of each task."""
        return files.list_tasks(self.root)

    def results(self, task_name: str, head: str) -> dict[str, Any] | None:
        """Task-level results of zero-shot against `head`: accuracy, overlap, scatter, masking …"""
        return files.results(task_name, self.root).get(head)

    def classifier(self, task_name: str, head: str, split: str = "base") -> Classifier:
        """A bundled head, ready for the classes of a split; kept for the next time."""
        return self._classifier(task_name, head, split)

    def for_classes(self, class_names: Sequence[str], templates: Sequence[str]) -> Classifier:
        """Zero-shot for classes of a user's own."""
        return ZeroShotHead(checked_classes(class_names), templates=templates).classifier(
            self.parts
        )

    def with_classes(self, task_name: str, head: str, class_names: Sequence[str]) -> Classifier:
        """A bundled head for classes of a user's own (not for a linear probe)."""
        stored = files.open_head(task_name, head, self.parts, self.root)
        return stored.head.classifier(self.parts, class_names, name=head)

    def explain(
        self,
        image: Image.Image,
        task_name: str,
        heads: tuple[str, str],
        *,
        split: str = "base",
        classes: tuple[str, str] | None = None,
    ) -> Explanation:
        """Both heads' predictions, and every concept's share in the margin of two classes.

        `classes` defaults to what the second head predicts against what the first one does, or
        against the second head's runner-up where they agree.
        """
        first, second = (self.classifier(task_name, head, split) for head in heads)
        return self.explain_with(image, (first, second), classes=classes)

    def explain_with(
        self,
        image: Image.Image,
        pair: tuple[Classifier, Classifier],
        *,
        classes: tuple[str, str] | None = None,
    ) -> Explanation:
        """As `explain`, with classifiers of one and the same list of classes."""
        first, second = pair
        if first.class_names != second.class_names:
            raise ValueError("the two heads were prepared for different classes; use one list")
        readings = self._read(image, pair)
        logits = [self._logits(c, r) for c, r in zip(pair, readings, strict=True)]
        if classes is None:
            best = [int(row.argmax()) for row in logits]
            other = best[0] if best[0] != best[1] else int(logits[1].topk(2).indices[1])
            numbers = (best[1], other)
        else:
            numbers = (first.number(classes[0]), first.number(classes[1]))
            if numbers[0] == numbers[1]:
                raise ValueError(f"the margin of {classes[0]!r} and itself is 0; give two classes")
        attributions = [
            self._attribute(c, r, c.direction(*numbers), c.offset(*numbers))
            for c, r in zip(pair, readings, strict=True)
        ]
        named = (first.class_names[numbers[0]], first.class_names[numbers[1]])
        question = f"how much more each version says {named[0]} than {named[1]}"
        return self._explanation(question, named, pair, readings, logits, attributions)

    def match(
        self,
        image: Image.Image,
        words: str,
        pair: tuple[Classifier, Classifier],
        *,
        against: str | None = None,
    ) -> Explanation:
        """What in the image makes it match these words, through both heads' vision towers.

        The score is scale · cos(image, words), minus that of the words `against` if given.
        """
        direction = self.words(words)
        question = f"how well the picture matches “{words.strip()}”"
        if against is not None:
            direction = direction - self.words(against)
            question += f" rather than “{against.strip()}”"
        direction = self.parts.scale * direction
        readings = self._read(image, pair)
        logits = [self._logits(c, r) for c, r in zip(pair, readings, strict=True)]
        attributions = [
            self._attribute(c, r, direction, 0.0) for c, r in zip(pair, readings, strict=True)
        ]
        return self._explanation(question, None, pair, readings, logits, attributions, direction)

    def words(self, text: str) -> Float[Tensor, " d_proj"]:
        """Unit text features (d_proj) of free words; ValueError for none, too many or unknown."""
        text = text.strip()
        if not text:
            raise ValueError("no words were given; write what the picture should match")
        if len(text) > MAX_WORDS:
            raise ValueError(f"the words have {len(text)} letters, at most {MAX_WORDS} are taken")
        return self.parts.unit_text_features([text])[0]

    @torch.no_grad()
    def switched_off(
        self, explanation: Explanation, off: Sequence[int], error: ErrorTerm = "per_token"
    ) -> Switched:
        """Both heads again with the concepts `off` switched off at every token.

        With none off and the error term kept, these are the bits of the explanation.
        """
        d_sae = self.lens.sae.cfg.d_sae
        keep = torch.ones(d_sae, dtype=torch.bool, device=self.parts.backbone.device)
        for latent in off:
            if not 0 <= latent < d_sae:
                raise ValueError(f"there is no latent {latent}; this SAE has 0 to {d_sae - 1}")
            keep[latent] = False
        predictions, scores = [], []
        for side in explanation.sides:
            classifier = side.classifier
            hidden = self.lens.edited(side.reading, keep, error)
            features = self.lens.features(hidden, classifier.prompts)
            logits = classifier.logits(features)[0]
            predictions.append(ranked(classifier.class_names, logits))
            if explanation.direction is not None:
                unit = F.normalize(features.float(), dim=-1)[0]
                scores.append(float(unit @ explanation.direction))
            elif explanation.classes is not None:
                first, second = (classifier.number(name) for name in explanation.classes)
                scores.append(float(logits[first] - logits[second]))
        return Switched((predictions[0], predictions[1]), (scores[0], scores[1]))

    def _open(self, task_name: str, head: str, split: str) -> Classifier:
        class_names = task(task_name).classes(split)
        return self.with_classes(task_name, head, class_names)

    def _read(
        self, image: Image.Image, pair: tuple[Classifier, Classifier]
    ) -> tuple[HookedActivations, HookedActivations]:
        inputs = self.parts.backbone.preprocess([image])
        first = self.lens.read(inputs, pair[0].prompts)
        if pair[0].prompts is None and pair[1].prompts is None:
            return first, first
        return first, self.lens.read(inputs, pair[1].prompts)

    def _logits(self, classifier: Classifier, reading: HookedActivations) -> Tensor:
        return classifier.logits(self.lens.features(reading.hidden, classifier.prompts))[0]

    def _attribute(
        self, classifier: Classifier, reading: HookedActivations, direction: Tensor, offset: float
    ) -> Attribution:
        return attribute(self.lens, reading, direction, prompts=classifier.prompts, offset=offset)

    def _explanation(
        self,
        question: str,
        classes: tuple[str, str] | None,
        pair: tuple[Classifier, Classifier],
        readings: tuple[HookedActivations, HookedActivations],
        logits: Sequence[Tensor],
        attributions: Sequence[Attribution],
        direction: Tensor | None = None,
    ) -> Explanation:
        one, other = (
            Side(*each) for each in zip(pair, readings, logits, attributions, strict=True)
        )
        shell = Explanation(
            question,
            classes,
            (one, other),
            [],
            self.lens.view,
            direction,
        )
        shell.concepts.extend(self._rows(shell))
        return shell

    def _rows(self, explanation: Explanation) -> list[ConceptRow]:
        shares = [
            dict(zip(a.latents.tolist(), a.shares.tolist(), strict=True))
            for a in (side.attribution for side in explanation.sides)
        ]
        strongest = [_strongest(explanation.patch_codes(side)) for side in (0, 1)]
        used = [side.used() for side in explanation.sides]
        rows = []
        for latent in shares[0].keys() | shares[1].keys():
            by = (latent in used[0], latent in used[1])
            rows.append(
                ConceptRow(
                    latent,
                    self.names[latent] if self.names is not None else "",
                    (shares[0].get(latent, 0.0), shares[1].get(latent, 0.0)),
                    (strongest[0].get(latent, 0.0), strongest[1].get(latent, 0.0)),
                    {(True, True): "both", (True, False): "first", (False, True): "second"}.get(
                        by, "neither"
                    ),
                )
            )
        return sorted(rows, key=lambda row: (-max(map(abs, row.shares)), row.latent))


def _strongest(codes: SparseLatents) -> dict[int, float]:
    """The largest value of each active latent of codes (patches, n)."""
    active = codes.values > 0
    peaks: dict[int, float] = {}
    for latent, value in zip(
        codes.indices[active].tolist(), codes.values[active].tolist(), strict=True
    ):
        peaks[latent] = max(value, peaks.get(latent, 0.0))
    return peaks
