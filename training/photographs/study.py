"""Names the latents of the lens on photographs and measures it, from one look at every photo.

Knows which photos serve for what: names come from exemplars among the photos trained on, their confidence
from the other photos trained on, and every figure from the test photos. Labels are for measuring only.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from sae.backbones import Backbone
from sae.backbones.classes import ClassReadout, wider_words
from sae.backbones.image_encoder import image_encoder
from sae.concepts.index import ConceptIndex
from sae.metrics.baselines import LinearUnits, ica, pca
from sae.model import SparseAutoencoder
from sae.storage import write_sealed
from training.data.sources import open_whole
from training.evaluate import evaluate
from training.indexing.labelled import Labelled
from training.photographs.figures import (
    best_of_classes,
    class_figures,
    meanings,
    name_figures,
    random_decoder,
    together,
)
from training.photographs.looking import LATENTS, Seen, Units, look
from training.photographs.names import (
    LEAST,
    Judged,
    Named,
    confidences,
    fires_on,
    judge,
    name_latents,
    word_probabilities,
)

FIT_PHOTOS = 150
"""Photos whose tokens the baselines are fitted on."""
PCA_UNITS, ICA_UNITS = 256, 64
"""Components by variance, and independent ones among the first so many of these: all 1,280 take hours."""
MOST_OTHERS = 400
"""Training photos that are looked at for names beside those on which class units are chosen."""


class Study:
    """See the module. `lens` has backbone/ and sae/ with its index over `training`."""

    def __init__(
        self, lens: Path, training: Path, test: Path, *, embedder: str | None = None
    ) -> None:
        self.lens, self.test_folder, self.embedder = lens, test, embedder
        self.backbone = Backbone.from_pretrained(lens / "backbone")
        self.sae = SparseAutoencoder.from_pretrained(lens / "sae")
        self.index = ConceptIndex.from_pretrained(lens / "sae")
        n_indexed = self.index.n_images + self.index.n_unreadable
        self.training, self.test = _labelled(training, n_indexed), _labelled(test, None)
        self.classes, self.wider = self.backbone.classes, wider_words(self.backbone.classes)

    def name(self) -> None:
        """Put the names, with their confidence, into the index, and save it."""
        named, judged, sure = self.named
        keep = sure >= LEAST
        words = [word if ok else "" for word, ok in zip(named.words, keep, strict=True)]
        self.index = self.index.with_names(
            words,
            [source if ok else "" for source, ok in zip(named.sources, keep, strict=True)],
            [round(float(push), 3) for push in named.pushes * keep],
            [round(float(one), 4) for one in sure * keep],
        )
        self.index.save_pretrained(self.lens / "sae")

    @cached_property
    def named(self) -> tuple[Named, Judged, Float[np.ndarray, " d_sae"]]:
        """Names, how they did on training photos that they are not from, and their confidences."""
        readout, seen = self._readout(), self.seen
        effects = (self.sae.W_dec.detach() @ readout.weights.float().T).numpy()
        named = name_latents(
            effects,
            seen.regions,
            seen.n_regions,
            seen.border,
            self.index.dead | self.index.dense,
            self.classes,
            self.wider,
        )
        judged = judge(
            named.words,
            word_probabilities(seen.said, self.classes, self.wider),
            fires_on(seen.firing[LATENTS], self.index.max_activation),
            left_out=seen.exemplars,
        )
        rows, columns = self.index.grid
        rim = 1 - (rows - 2) * (columns - 2) / (rows * columns)
        return named, judged, confidences(named, judged.accuracy, rim)

    def figures(self) -> dict[str, Any]:
        """Everything that docs/photos.md tells, measured on the test photos."""
        named, judged, sure = self.named
        kept = named._replace(
            words=[word if ok else "" for word, ok in zip(named.words, sure >= LEAST, strict=True)]
        )
        fits = evaluate(
            str(self.lens / "sae"),
            str(self.test_folder),
            image_batch=4,
            backbone=str(self.lens / "backbone"),
        )
        self._write_metrics(fits)
        found: dict[str, Any] = {
            "test_photos": len(self.test),
            "fvu": fits["fvu"],
            "l0": fits["l0"],
            "pca": fits["baselines"],
            "dead_share_on_training_photos": float(self.index.dead.mean()),
            "always_on": int(self.index.dense.sum()),
            "classes": self._classes(),
            "names": name_figures(
                kept,
                judged,
                sure,
                self.seen_test.firing[LATENTS],
                self.index.max_activation,
                self.seen_test.said,
                self.classes,
                self.wider,
            ),
            "named": sum(map(bool, kept.words)),
            "borders": sum(source == "place in the picture" for source in named.sources),
        }
        if self.embedder is not None:
            found["monosemanticity"] = self._meanings(self.embedder)
        return found

    def _write_metrics(self, fits: dict[str, Any]) -> None:
        """The figures that the page and a card show, with what is behind each."""
        sample = {
            "command": "make photos PHOTOS=DIR",
            "data": f"{len(self.test)} test photos of Caltech-101",
            "n_images": fits["n_images"],
            "n_tokens": fits["n_tokens"],
            "tokens": "all",
        }
        figures = {name: fits[name] for name in ("fvu", "l0", "dead_fraction")}
        content = {**figures, "evidence": dict.fromkeys(figures, sample)}
        write_sealed(self.lens / "sae" / "metrics.json", content)

    def _classes(self) -> dict[str, Any]:
        """Of every kind of unit, how well its best one finds each class of the photos.

        The best is chosen on the photos of `choosing`; of latents also on all photos looked at, and there is
        also what the three best latents find together.
        """
        names = sorted(set(self.training.classes) & set(self.test.classes))
        first, second = (_numbers(data, names) for data in (self.training, self.test))
        labels = first[self.choosing]
        found = {}
        for kind, one in self.seen.firing.items():
            known, other = (one[: len(labels)], labels), (self.seen_test.firing[kind], second)
            best, scores = best_of_classes(known, other, len(names))
            found[kind] = class_figures(scores, names)
            if kind == LATENTS:
                found[kind]["best_latents"] = dict(zip(names, map(int, best), strict=True))
                known_all = (one, first[self.looked])
                _, scores = best_of_classes(known_all, other, len(names))
                found["latents, chosen on all photos"] = class_figures(scores, names)
                scores = together(known, other, self.index.max_activation, len(names))
                found["three latents together"] = class_figures(scores, names)
        return found

    def _meanings(self, embedder: str) -> dict[str, Any]:
        encode = image_encoder(embedder)
        photos = list(_photos(self.test))
        parts = [encode(photos[i : i + 8]) for i in range(0, len(photos), 8)]
        kinds = (LATENTS, "raw neurons", "random decoder")
        return meanings({kind: self.seen_test.firing[kind] for kind in kinds}, torch.cat(parts))

    @cached_property
    def seen(self) -> Seen:
        """The photos of `looked`."""
        photos = (self.training[number].image for number in self.looked)
        return look(photos, self.backbone, self.sae, self.others, range(len(self.choosing)))

    @cached_property
    def looked(self) -> list[int]:
        """The photos trained on that names are from: those of `choosing`, then a part of the others."""
        rest = sorted(set(range(len(self.training))) - set(self.choosing))
        return [*self.choosing, *rest[:: 1 + len(rest) // MOST_OTHERS]]

    @cached_property
    def choosing(self) -> list[int]:
        """The training photos on which the best unit of a class is chosen: as many of every class, where
        one of several folders is called train; else the first MOST_OTHERS."""
        numbers = range(len(self.training))
        of_train = [n for n in numbers if self.training.image_name(n).startswith("train/")]
        return of_train or list(numbers)[:MOST_OTHERS]

    @cached_property
    def seen_test(self) -> Seen:
        """The test photos."""
        return look(_photos(self.test), self.backbone, self.sae, self.others)

    @cached_property
    def others(self) -> dict[str, Units]:
        """What latents have to beat, fitted on some of the photos trained on."""
        sample = self._sample()
        components = pca(sample)
        some, few = (
            LinearUnits("PCA", components.centre, components.directions[:n].contiguous())
            for n in (PCA_UNITS, ICA_UNITS)
        )
        independent = ica(few(sample))
        random = random_decoder(self.sae, sample)
        return {
            "raw neurons": lambda x: x,
            "PCA": lambda x: _both_signs(some(x)),
            "ICA": lambda x: _both_signs(independent(few(x))),
            "random decoder": random.encode,
        }

    def _sample(self) -> Float[Tensor, "tokens d_in"]:
        numbers = np.linspace(0, len(self.training) - 1, FIT_PHOTOS).astype(int)
        photos = [self.training[int(number)].image for number in numbers]
        layer = self.sae.cfg.backbone.layer
        parts = [
            self.backbone.activations(photos[i : i + 4], layer) for i in range(0, len(photos), 4)
        ]
        return torch.cat(parts).flatten(0, 1)

    def _readout(self) -> ClassReadout:
        readout = self.backbone.class_readout(self.sae.cfg.backbone.layer)
        if readout is None:
            raise ValueError(
                f"{self.backbone.id}: its classifier is not linear in the SAE's layer."
            )
        return readout


def _labelled(folder: Path, n: int | None) -> Labelled:
    return Labelled(*open_whole(str(folder)), n)


def _photos(data: Labelled) -> Iterator[Image.Image]:
    return (data[number].image for number in range(len(data)))


def _numbers(data: Labelled, names: Sequence[str]) -> np.ndarray:
    labels = [data.label(number) for number in range(len(data))]
    return np.asarray([names.index(label) if label in names else -1 for label in labels])


def _both_signs(units: Tensor) -> Tensor:
    return torch.cat([units, -units], dim=1)
