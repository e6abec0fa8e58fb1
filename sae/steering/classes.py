"""Steering a classifier: what a backbone's own classes become while latents are turned up or down.

Knows a Backbone with classes and an SAE of it; edits mean what they mean to the Steerer. Where pooling and
classifier are linear in the SAE's layer (Backbone.class_readout), a picture runs through the tower once
and every edit is a sum: logits = logits as it is + mean over tokens of the change @ weights.T, exact but for
rounding. Elsewhere the model is run with the edited activations.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Float32
from PIL import Image
from torch import Tensor

from sae import hub
from sae.backbones import Backbone
from sae.backbones.classes import wider_words
from sae.concepts.index import ConceptIndex
from sae.lazy import lazy
from sae.model import SparseAutoencoder
from sae.steering.activations import (
    Activations,
    check_edits,
    check_image,
    control_change,
    control_latent,
    layout_of,
)
from sae.steering.doses import DOSES, MAX_DOSES, dosed, has_word
from sae.steering.edits import EVERYWHERE, Edit, Mode, Scope, Units, as_edits

LISTED = 0.01
"""Probability from which a class that was not likely before is listed."""
MAX_EFFECTS = 1 << 23
"""Numbers of the table of all latents' effects on all classes that is kept; beyond it, gradients guess."""
_RUN = 8
"""Edited pictures that are run at once where the classifier is not linear."""


@dataclass(frozen=True)
class ClassChange:
    """A class's probability as it is, with the edits and with the control (None without one)."""

    name: str
    before: float
    after: float
    control: float | None


@dataclass(frozen=True, eq=False)
class ClassAnswers:
    """Probabilities of all classes; tensors are (classes,) float32 on the CPU."""

    class_names: tuple[str, ...]
    before: Float32[Tensor, " classes"]
    after: Float32[Tensor, " classes"]
    control: Float32[Tensor, " classes"] | None
    """With a random latent that changes every token by as much; None if none was asked for."""
    relative_change: float
    """Size of the change over that of the activations: 0.18 for 18 %."""
    control_latent: int | None

    def change(self, number: int) -> ClassChange:
        """What becomes of one class, by its number."""
        control = None if self.control is None else float(self.control[number])
        before, after = float(self.before[number]), float(self.after[number])
        return ClassChange(self.class_names[number], before, after, control)

    def top(self, n: int = 5, risen: int = 3) -> list[ClassChange]:
        """The `n` likeliest as it is, in order; then those of the `risen` likeliest with the edits that have
        at least LISTED, and the likeliest with the control, that are not among them."""
        chosen = self.before.topk(min(n, len(self.before))).indices.tolist()
        after = self.after.topk(min(risen, len(self.after)))
        more = after.indices[after.values >= LISTED].tolist()
        if self.control is not None:
            more.append(int(self.control.argmax()))
        return [self.change(number) for number in dict.fromkeys([*chosen, *more])]

    def to_json(self, n: int = 5, risen: int = 3) -> dict[str, Any]:
        """Plain values: `classes` as of `top`, the likeliest class of each answer, and the edit's size."""
        likeliest = {
            name: None if values is None else self.class_names[int(values.argmax())]
            for name, values in zip(
                ("original", "steered", "control"),
                (self.before, self.after, self.control),
                strict=True,
            )
        }
        return {
            "classes": [asdict(row) for row in self.top(n, risen)],
            **likeliest,
            "relative_change": self.relative_change,
            "control_latent": self.control_latent,
        }


@dataclass(frozen=True)
class ClassDose:
    """The answer at one strength."""

    dose: float
    """What every edit's strength is multiplied with."""
    best: str
    """The likeliest class."""
    p_best: float
    p_word: float | None
    """Probability of the classes that the word means; None without a word."""


@dataclass(frozen=True)
class ClassLadder:
    """A ladder of doses. `original` is the likeliest class as it is."""

    word: str | None
    original: str
    doses: list[ClassDose]
    """In the order in which they were asked for."""
    flip: float | None
    """The smallest dose, by size, at which another class is the likeliest; None if no dose does it."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class SeenClasses:
    """A picture whose layers up to the SAE's are computed, with its logits; see ClassSteerer.prepare."""

    inputs: dict[str, Tensor] | None
    """None where the classifier is linear in the layer: the model is not run again."""
    activations: Activations
    logits: Float32[Tensor, " classes"]
    """As it is, on the CPU."""


Picture: TypeAlias = Image.Image | SeenClasses
Edits: TypeAlias = Mapping[int, float] | Iterable[Edit]


class ClassSteerer:
    """Edits latents of a backbone with a classifier and follows what it says."""

    def __init__(
        self,
        backbone: Backbone,
        sae: SparseAutoencoder,
        *,
        index: ConceptIndex | None = None,
        max_activation: Float[np.ndarray | Tensor, " d_sae"] | None = None,
    ) -> None:
        """Strengths are multiples of each latent's maximum with an index, else raw.

        Raises ValueError if the backbone has no classes or the SAE is of another width.
        """
        self.layer = sae.cfg.backbone.layer
        self.backbone = backbone.at(self.layer)
        if not backbone.classes:
            raise ValueError(
                f"backbone {backbone.id} ({backbone.family}) ends without a classifier; use a model with "
                "one, such as timm's of ImageNet, or ClipSteerer for words"
            )
        if sae.cfg.d_in != self.backbone.d_model:
            raise ValueError(
                f"the SAE was trained on {sae.cfg.backbone.id!r}, of width {sae.cfg.d_in}; layer "
                f"{self.layer} of {backbone.id} has width {self.backbone.d_model}"
            )
        self.sae, self.index, self.class_names = sae, index, tuple(backbone.classes)
        self.wider = wider_words(self.class_names)
        """Words that stand for several classes, with their numbers."""
        self.readout = self.backbone.class_readout(self.layer)
        """None where the classifier is not linear in the layer."""
        if max_activation is None and index is not None:
            max_activation = index.max_activation
        self.max_activation = None if max_activation is None else torch.as_tensor(max_activation)
        self.units: Units = "raw" if max_activation is None else "max"

    @classmethod
    def from_pretrained(cls, sae: str | Path, **options: Any) -> "ClassSteerer":
        """Load an SAE, its backbone and its index: a folder, a Hub id or a preset; `options` as of
        `SparseAutoencoder.from_pretrained`."""
        source = hub.pinned(sae, **{k: v for k, v in options.items() if k != "device"})
        autoencoder = SparseAutoencoder.from_pretrained(source, **options)
        index = ConceptIndex.beside(source)
        backbone = Backbone.of(autoencoder.cfg.backbone, **options)
        return cls(backbone, autoencoder, index=index)

    @torch.no_grad()
    def prepare(self, image: Picture) -> SeenClasses:
        """Run the tower once, for all edits of this picture."""
        if isinstance(image, SeenClasses):
            return image
        check_image(image)
        inputs = self.backbone.preprocess([image])
        hidden = self.backbone.activations(inputs, self.layer)
        place = partial(layout_of, self.backbone, image.size)
        edited = Activations(hidden, self.sae, place, self.max_activation)
        if self.readout is None:
            return SeenClasses(inputs, edited, self.backbone.class_logits(inputs)[0].cpu())
        weights, bias = self.readout
        logits = hidden.float().mean(1) @ weights.float().T + bias.float()
        return SeenClasses(None, edited, logits[0].cpu())

    def classify(
        self,
        image: Picture,
        edits: Edits = (),
        mode: Mode = "set",
        error_term: bool = True,
        *,
        units: Units | None = None,
        scope: Scope = EVERYWHERE,
        control: bool = False,
        control_seed: int = 0,
    ) -> ClassAnswers:
        """What the classifier says as it is and with the edits, which are as in Steerer.generate.

        `control` adds a third answer: a random latent that changes every token by as much.
        """
        chosen = as_edits(edits, mode, units or self.units, scope)
        check_edits(chosen, self.sae, self.max_activation)
        seen = self.prepare(image)
        change = seen.activations.change(chosen, error_term=error_term)
        changes, drawn = [change], None
        if control:
            limits = self.max_activation
            drawn = control_latent(chosen, control_seed, self.sae.cfg.d_sae, limits)
            changes.append(control_change(self.sae, change, drawn))
        after, *other = self.logits(seen, torch.cat(changes)).softmax(-1)
        size = seen.activations.norms(change)
        before = seen.logits.softmax(-1)
        return ClassAnswers(
            self.class_names, before, after, other[0] if other else None, size, drawn
        )

    def ladder(
        self,
        image: Picture,
        edits: Edits,
        doses: Sequence[float] = DOSES,
        *,
        word: str | None = None,
        error_term: bool = True,
    ) -> ClassLadder:
        """The edits with their strengths multiplied by each dose, as in `dose_response`; `word` is a class
        to watch, as in `numbers`."""
        chosen = as_edits(edits, "set", self.units, EVERYWHERE)
        if not 1 <= len(doses) <= MAX_DOSES or not chosen:
            raise ValueError(
                f"a ladder needs 1 to {MAX_DOSES} doses and an edit, got {len(doses)} doses and "
                f"{len(chosen)} edits"
            )
        watched = self.numbers(word) if word else None
        seen = self.prepare(image)
        changes = []
        for dose in doses:
            scaled = dosed(chosen, dose)
            check_edits(scaled, self.sae, self.max_activation)
            kept = error_term or not scaled
            changes.append(seen.activations.change(scaled, error_term=kept))
        rows = []
        original = int(seen.logits.argmax())
        for dose, p in zip(
            doses, self.logits(seen, torch.cat(changes)).softmax(-1).split(1), strict=True
        ):
            best = int(p[0].argmax())
            p_word = None if watched is None else float(p[0, watched].sum())
            rows.append(ClassDose(dose, self.class_names[best], float(p[0, best]), p_word))
        said = self.class_names[original]
        turned = [row.dose for row in rows if row.dose and row.best != said]
        return ClassLadder(word, said, rows, min(turned, key=abs, default=None))

    def numbers(self, word: str) -> list[int]:
        """The classes that a word means: the one that is called so, those that a wider word such as "dog"
        stands for, or all that have it as a whole word. ValueError if there is none.
        """
        asked = " ".join(word.split()).casefold()
        called = {name.casefold(): number for number, name in enumerate(self.class_names)}
        if asked in called:
            return [called[asked]]
        if asked in self.wider:
            return list(self.wider[asked])
        found = [i for i, name in enumerate(self.class_names) if asked and has_word(name, asked)]
        if found:
            return found
        spelled = {name.casefold(): name for name in (*self.class_names, *self.wider)}
        near = get_close_matches(asked, spelled, 3, 0.5) or list(spelled)[:3]
        near = [spelled[name] for name in near]
        raise ValueError(
            f"there is no class {word!r} among the {len(self.class_names):,} of this classifier; try another "
            f"word, such as {', '.join(near)}"
        )

    @torch.no_grad()
    def logits(
        self, seen: SeenClasses, changes: Float[Tensor, "n tokens d"]
    ) -> Float32[Tensor, "n classes"]:
        """Logits (n, classes) with each change added to the activations, on the CPU."""
        if not changes.isfinite().all():
            raise ValueError(
                "the edit is too strong: activations would become infinite; use a smaller strength"
            )
        if self.readout is not None:
            moved = changes.float().mean(1) @ self.readout.weights.float().T
            return seen.logits + moved.cpu()
        x, dtype = seen.activations.x.float(), seen.activations.hidden.dtype
        rows = [self.run(seen, (x + some).to(dtype)) for some in changes.split(_RUN)]
        return torch.cat(rows).cpu()

    def run(
        self, seen: SeenClasses, hidden: Float[Tensor, "n tokens d"]
    ) -> Float[Tensor, "n classes"]:
        """Logits (n, classes) with `hidden` as what the layer gives; differentiable in it."""
        if self.readout is not None:
            weights, bias = self.readout
            return hidden.float().mean(1) @ weights.float().T + bias.float()
        assert seen.inputs is not None, "kept where the classifier is not linear"
        inputs = {
            name: value.expand(len(hidden), *value.shape[1:]) for name, value in seen.inputs.items()
        }
        with self.backbone.edit(self.layer, lambda _: hidden):
            return self.backbone._class_logits(self.backbone._inputs(inputs)).float()

    @lazy
    def effects(self) -> Float32[Tensor, "d_sae classes"] | None:
        """What a unit of each latent on every token adds to every class's logit, on the CPU; None where
        that is not linear, or more than MAX_EFFECTS numbers."""
        if self.readout is None or self.sae.cfg.d_sae * len(self.class_names) > MAX_EFFECTS:
            return None
        with torch.no_grad():
            rows = self.sae.W_dec.float()
            return (rows @ self.readout.weights.float().to(rows).T).cpu()
