"""A PatchLens of random weights: a tiny CLIP, a small SAE and an index in memory, for UI tests.

Knows the interfaces the app needs. Does not need the bundled weights.
"""

import io
import sys
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel

from sae.backbones import Backbone
from sae.concepts.search import NameSearch
from sae.config import BackboneRef, SAEConfig
from sae.model import SparseAutoencoder
from sae.world.scenes import BACKGROUNDS, Scene, SceneObject, compose, kind_names

N_IMAGES = 24
GRID = (12, 12)


class Exemplar(NamedTuple):
    image_id: int
    activation: float
    label: str
    patches: list[int]
    values: list[float]


class Concept(NamedTuple):
    latent: int
    name: str
    name_source: str
    name_score: float
    name_confidence: float
    frequency: float
    token_frequency: float
    mean_activation: float
    max_activation: float
    entropy: float
    dead: bool
    rare: bool
    dense: bool
    histogram: list[int]
    histogram_edges: list[float]
    exemplars: dict[str, list[Exemplar]]
    statistics: dict[str, float]
    classes: list[tuple]
    neighbours: list[tuple]
    cofiring: list[tuple]


class Neighbour(NamedTuple):
    latent: int
    name: str
    score: float


class ClassCount(NamedTuple):
    label: str
    tokens: int
    share: float


class Hit(NamedTuple):
    latent: int
    name: str
    score: float
    by: str


class TinySearcher:
    """Finds by the name's last letter: enough to see that an answer arrives."""

    has_text = True

    def __init__(self, words: list[str], confidences: np.ndarray) -> None:
        self.words, self.names = words, NameSearch(words, confidences)

    def prepare(self) -> None:
        """Nothing to read."""

    def by_name(self, text: str, k: int = 5) -> list[Hit]:
        return [Hit(i, self.words[i], score, "name") for i, score in self.names.find(text, k)]

    def by_meaning(self, text: str, k: int = 5, **_more: object) -> list[Hit]:
        fits = [i for i, name in enumerate(self.words) if name.endswith(text[-1])]
        return [Hit(i, self.words[i], 0.5 - 0.001 * n, "meaning") for n, i in enumerate(fits[:k])]

    def search(self, text: str, k: int = 5, **_more: object) -> list[Hit]:
        return self.by_meaning(text, k)

    def like_image(
        self, _image: Image.Image, k: int = 5, *, patches: object = None, **_more: object
    ) -> list[Hit]:
        first = 100 if patches is None else min(patches)
        return [Hit(i, self.words[i], 0.3, "image") for i in range(first, first + k)]


class TinyIndex:
    """The part of ConceptIndex that the app reads, over a few composed scenes."""

    grid = GRID
    n_images = N_IMAGES

    def __init__(self, d_sae: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        words = kind_names()
        self.names = ["" if i % 3 == 2 else words[i % len(words)] for i in range(d_sae)]
        self.name_sources = ["text tower" if name else "" for name in self.names]
        self.name_scores = np.where([bool(n) for n in self.names], 0.71, 0).astype(np.float32)
        self.frequency = rng.uniform(0.001, 0.3, d_sae).astype(np.float32)
        self.token_frequency = self.frequency / 4
        self.mean_activation = rng.uniform(0.05, 0.4, d_sae).astype(np.float32)
        self.max_activation = rng.uniform(2, 6, d_sae).astype(np.float32)
        self.entropy = rng.uniform(0, 3, d_sae).astype(np.float32)
        self.dead = np.zeros(d_sae, bool)
        self.dense = np.arange(d_sae) % 50 == 0
        self.name_confidences = self.name_scores
        self.searcher = TinySearcher(self.names, self.name_confidences)
        self.statistics = {
            "frequency": self.frequency,
            "mean_activation": self.mean_activation,
            "max_activation": self.max_activation,
            "entropy": self.entropy,
            "monosemanticity": rng.uniform(0, 0.6, d_sae).astype(np.float32),
        }
        self.labels = [words[i * 7 % len(words)] for i in range(N_IMAGES)]
        self._pictures = [self._picture(i) for i in range(N_IMAGES)]
        self._rng_seed = seed

    def deciles(self, latent: int) -> list[list[Exemplar]]:
        rng = np.random.default_rng((self._rng_seed, latent, 1))
        top = float(self.max_activation[latent])
        return [self._exemplars(rng, top * (1 - i / 10))[:3] for i in range(10)]

    def thumbnail(self, image_id: int) -> bytes:
        return self._pictures[image_id]

    def concept(self, latent: int) -> Concept:
        rng = np.random.default_rng((self._rng_seed, latent))
        top = float(self.max_activation[latent])
        levels = {"top": 1.0, "middle": 0.5, "low": 0.15}
        return Concept(
            latent=latent,
            name=self.names[latent],
            name_source=self.name_sources[latent],
            name_score=float(self.name_scores[latent]),
            name_confidence=float(self.name_confidences[latent]),
            frequency=float(self.frequency[latent]),
            token_frequency=float(self.token_frequency[latent]),
            mean_activation=float(self.mean_activation[latent]),
            max_activation=top,
            entropy=float(self.entropy[latent]),
            dead=bool(self.dead[latent]),
            rare=False,
            dense=bool(self.dense[latent]),
            histogram=np.histogram(rng.normal(0, 1, 400), 24)[0].tolist(),
            histogram_edges=np.geomspace(top / 300, top, 25).tolist(),
            statistics={name: float(array[latent]) for name, array in self.statistics.items()},
            classes=[ClassCount("tiger", 30, 0.75), ClassCount("cat", 10, 0.25)],
            neighbours=[Neighbour(3, self.names[3], 0.4), Neighbour(9, self.names[9], 0.3)],
            cofiring=[Neighbour(4, self.names[4], 0.2)],
            exemplars={n: self._exemplars(rng, top * s) for n, s in levels.items()},
        )

    def _exemplars(self, rng: np.random.Generator, strongest: float) -> list[Exemplar]:
        rows: list[Exemplar] = []
        for number in rng.choice(N_IMAGES, 6, replace=False):
            first = int(rng.integers(30, 100))
            patches = [first, first + 1, first + 12, first + 13]
            values = (strongest * np.array([1, 0.8, 0.7, 0.5])).tolist()
            rows.append(Exemplar(int(number), strongest, self.labels[number], patches, values))
        return rows

    def _picture(self, number: int) -> bytes:
        item = SceneObject(self.labels[number], "noto", 30 + number % 4 * 10, 40)
        scene = Scene(BACKGROUNDS[number % len(BACKGROUNDS)], (item,), number)
        buffer = io.BytesIO()
        Image.fromarray(compose(scene).image).save(buffer, "webp", quality=80)
        return buffer.getvalue()


def tiny_backbone() -> Backbone:
    """A random CLIP: 96 px, patches of 8, 4 layers of width 32."""
    torch.manual_seed(0)
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "image_size": 96,
        "patch_size": 8,
    }
    text = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 64,
        "eos_token_id": 2,
        "bos_token_id": 1,
        "pad_token_id": 0,
    }
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    return Backbone.from_model(CLIPModel(config), id="tiny")


def tiny_sae(backbone: Backbone, d_sae: int = 512, architecture: str = "topk") -> SparseAutoencoder:
    """An untrained SAE on layer -2 whose latents are random directions."""
    torch.manual_seed(1)
    ref = BackboneRef("tiny", -2, family=backbone.family)
    k = 16 if architecture == "topk" else None
    sae = SparseAutoencoder(SAEConfig(architecture, backbone.d_model, d_sae, ref, k=k))
    with torch.no_grad():
        directions = torch.nn.functional.normalize(torch.randn(backbone.d_model, d_sae), dim=0)
        sae.W_enc.copy_(directions)
        sae.W_dec.copy_(directions.T / 4)
    return sae.eval()


def tiny_demo(d_sae: int = 512) -> object:
    """The whole page on random weights."""
    from sae.ui import build_demo

    backbone = tiny_backbone()
    sae = tiny_sae(backbone, d_sae)
    return build_demo(backbone, sae, TinyIndex(sae.cfg.d_sae), metrics={"fvu": 0.21, "l0": 16.0})


if __name__ == "__main__":
    from sae.ui import launch_settings

    torch.set_num_threads(1)
    tiny_demo(*map(int, sys.argv[2:])).launch(
        server_name="127.0.0.1", server_port=int(sys.argv[1]), **launch_settings()
    )
