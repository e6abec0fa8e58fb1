"""The lens on photographs that comes along: its parts fit together and are what they are said to be."""

import json
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from sae.adaptation.class_shares import class_shares
from sae.backbones import Backbone
from sae.concepts.concept import GUESS
from sae.concepts.index import ConceptIndex
from sae.hub import BUNDLED
from sae.model import SparseAutoencoder
from sae.storage import sha256

FOLDER = BUNDLED / "photos"
MOST_BYTES = 35_000_000


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone.from_pretrained("photos")


@pytest.fixture(scope="module")
def index() -> ConceptIndex:
    return ConceptIndex.from_pretrained("photos")


def test_it_is_small_enough_to_carry() -> None:
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) <= MOST_BYTES


def test_the_parts_fit_together(backbone: Backbone, index: ConceptIndex) -> None:
    sae = SparseAutoencoder.from_pretrained("photos")
    assert sae.cfg.backbone.id == "photos"
    assert index.sae_sha256 == sha256(FOLDER / "sae" / "sae_weights.safetensors")
    assert backbone.at(sae.cfg.backbone.layer).d_model == sae.cfg.d_in
    assert backbone.at(sae.cfg.backbone.layer).patch_grid == index.grid == (9, 9)
    assert backbone.dtype == torch.float32  # stored in half of it
    assert len(backbone.classes) == 1000


def test_its_figures_meet_their_aims(index: ConceptIndex) -> None:
    figures = json.loads((FOLDER / "sae" / "metrics.json").read_text())
    assert figures["fvu"] <= 0.377  # half of a PCA's with 32 components
    assert figures["l0"] <= 32
    assert index.dead.mean() <= 0.02


def test_names_are_the_classifiers_words(backbone: Backbone, index: ConceptIndex) -> None:
    """Classes of ImageNet and wider words, never the photos' own labels; dead latents have none."""
    from sae.backbones.classes import wider_words

    words = {*backbone.classes, *wider_words(backbone.classes), "edge of the picture", ""}
    assert set(index.model_names) <= words
    named = np.array([bool(name) for name in index.model_names])
    assert not (named & index.dead).any()
    assert (named & (index.name_confidences >= GUESS)).sum() >= 100


def test_a_photos_classes_are_explained_exactly(backbone: Backbone, index: ConceptIndex) -> None:
    sae = SparseAutoencoder.from_pretrained("photos")
    ids, _ = index.exemplar_table("top")
    picture = Image.open(BytesIO(index.thumbnail(int(ids[ids >= 0][0]))))
    logits = backbone.class_logits([picture])[0]
    first, second = (backbone.classes[int(number)] for number in logits.topk(2).indices)
    found = class_shares(backbone, sae, picture, first, second)
    total = found.start + float(found.shares.sum()) + found.error
    assert found.score == pytest.approx(total, abs=1e-4)
    margin = logits[backbone.classes.index(first)] - logits[backbone.classes.index(second)]
    assert found.score == pytest.approx(float(margin), abs=1e-4)
