"""What ships in sae/bundled opens by its ordinary classes, fits together and knows its world."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from sae import Backbone, ConceptIndex, SparseAutoencoder
from sae.concepts.atlas import MAPS
from sae.storage import sha256
from sae.world.scenes import Scene, SceneObject, compose, kind_names
from sae.world.tasks import HELD_OUT_SEED
from training.world import llava
from training.world.generator import images
from training.world.words import NUMBER_WORDS, description, noun_phrase

BUNDLED = Path(__file__).resolve().parents[1] / "sae" / "bundled"


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone.from_pretrained("bundled")


@pytest.fixture(scope="module")
def sae() -> SparseAutoencoder:
    return SparseAutoencoder.from_pretrained("bundled")


@pytest.mark.parametrize("name", ["clip", "llava"])
def test_models_are_fp16_safetensors(name):
    with safe_open(BUNDLED / name / "model.safetensors", "pt") as file:
        assert {file.get_slice(key).get_dtype() for key in file.keys()} == {"F16"}  # noqa: SIM118


def test_clip_names_what_is_shown(backbone):
    pictures, scenes = images(HELD_OUT_SEED + 7, 40, n_objects=1)
    found = backbone.image_features([Image.fromarray(picture) for picture in pictures])
    words = backbone.text_features([f"a photo of {noun_phrase(name)}" for name in kind_names()])
    told = [kind_names()[i] for i in (found @ words.T).argmax(1).tolist()]
    assert np.mean([a == s.objects[0].kind for a, s in zip(told, scenes, strict=True)]) >= 0.9


def test_llava_sees_with_the_same_eyes_as_clip():
    with (
        safe_open(BUNDLED / "clip" / "model.safetensors", "pt") as clip,
        safe_open(BUNDLED / "llava" / "model.safetensors", "pt") as other,
    ):
        mine = {k.split("vision_model.")[1]: k for k in clip.keys() if "vision_model." in k}  # noqa: SIM118
        theirs = {
            k.split("vision_tower.")[1].removeprefix("vision_model."): k
            for k in other.keys()  # noqa: SIM118
            if "vision_tower." in k
        }
        assert mine.keys() == theirs.keys()
        same = [torch.equal(clip.get_tensor(mine[k]), other.get_tensor(theirs[k])) for k in mine]
    assert all(same)


def test_llava_answers_its_questions():
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(BUNDLED / "llava", dtype=torch.float32)
    scene = Scene("grass", (SceneObject("tiger", x=26), SceneObject("tulip", x=70)))
    picture = compose(scene).image[None]

    def ask(question: str) -> str:
        return llava.answers(model.eval(), picture, question)[0]

    assert ask("describe the image") == description(scene)
    assert ask("what is the background ?") == scene.background
    assert ask("how many objects ?") == NUMBER_WORDS[len(scene.objects)]


def test_the_sae_meets_its_floors(backbone, sae):
    assert sae.cfg.d_sae >= 2048
    assert sae.cfg.architecture in ("batch_topk", "matryoshka")
    figures = json.loads((BUNDLED / "sae" / "metrics.json").read_text())
    assert figures["fvu"] <= 0.25
    assert figures["l0"] <= 24
    assert figures["dead_fraction"] <= 0.05
    pictures, _ = images(HELD_OUT_SEED + 8, 24)
    batch = [Image.fromarray(picture) for picture in pictures]
    x = backbone.activations(batch, sae.cfg.backbone.layer).flatten(0, 1)
    with torch.no_grad():
        latents = sae.encode(x)
        x_hat = sae.decode(latents)
    fvu = (x - x_hat).square().sum() / (x - x.mean(0)).square().sum()
    assert float(fvu) == pytest.approx(figures["fvu"], rel=0.25)
    assert float((latents > 0).sum(1).float().mean()) == pytest.approx(figures["l0"], rel=0.25)


def test_the_index_describes_this_sae(sae):
    index = ConceptIndex.from_pretrained("bundled")
    assert index.sae_sha256 == sha256(BUNDLED / "sae" / "sae_weights.safetensors")
    assert len(index) == sae.cfg.d_sae
    assert index.n_images >= 5000
    assert index.grid == (12, 12)


def test_the_index_holds_its_maps_and_most_concepts_lie_on_them():
    index = ConceptIndex.from_pretrained("bundled")
    assert index.atlas.stored == index.atlas.possible == MAPS
    for by in MAPS:
        xy = index.atlas.places(by)
        assert not np.isnan(xy[~index.dead]).all()
        assert np.isfinite(xy).all(1).mean() > 0.9
        assert np.nanmin(xy) == 0
        assert np.nanmax(xy) == 1
        labels = [group.label for group in index.atlas.groups(by) if group.label]
        assert {word for label in labels for word in label.split(", ")} <= set(index.names)
    assert sum(bool(group.label) for group in index.atlas.groups("meaning")) > 10
