"""Steering CLIP's embedding, and steerability, against whole forwards and the paper's formula."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sae.backbones import Backbone
from sae.concepts.index import ConceptIndex
from sae.config import INPUT_NORMS
from sae.model import SparseAutoencoder
from sae.steering import ClipSteerer, Edit, Scope
from sae.steering.clip import SCALE, steerability
from tests.backbones.pictures import noise
from tests.steering.parts import random_sae
from tests.tiny_models import tiny
from training.steering.steerability import STEERABLE, pictures, words_for

LABELS = ["a cat", "a dog", "red grass"]


def backbone(family: str) -> Backbone:
    made = tiny(family)
    return Backbone.from_model(made.model, made.image_processor, made.tokenizer)


@pytest.fixture(params=["clip", "siglip", "open_clip"])
def steerer(request) -> ClipSteerer:
    return ClipSteerer(
        backbone(request.param), random_sae(32, 1), max_activation=torch.full((48,), 2.0)
    )


def test_zero_shot_moves_as_if_the_whole_model_were_edited(steerer):
    vit, image = steerer.backbone, noise(40, 30)
    edit = Edit(5, "set", 4.0)
    answer = steerer.zero_shot(image, LABELS, [edit])
    hidden = steerer.prepare(image).activations.edited([edit])
    text = vit.text_features(LABELS)
    before = vit.image_features([image])
    with vit.edit(1, lambda _h: hidden):
        after = vit.image_features([image])
    for rows, name in ((before, "similarity_before"), (after, "similarity_after")):
        wanted = (rows @ text.T)[0].tolist()
        assert [getattr(row, name) for row in answer.labels] == pytest.approx(wanted, abs=1e-5)
    assert answer.embedding_shift == pytest.approx(float(1 - before @ after.T), abs=1e-5)
    assert answer.embedding_shift > 1e-3
    assert sum(row.after for row in answer.labels) == pytest.approx(1, abs=1e-5)
    nothing = steerer.zero_shot(image, LABELS)
    assert all(row.before == row.after for row in nothing.labels)
    assert torch.equal(vit.image_features([image]), before)


def test_regions_follow_the_crop_of_the_backbone(steerer):
    seen = steerer.prepare(noise(64, 32))
    left = seen.activations.reach(Scope("region", box=(0, 0, 0.5, 1)))
    grid = steerer.backbone.patch_grid
    patches = left[0, steerer.backbone.n_prefix :].reshape(grid)
    assert patches[:, : grid[1] // 2].all()
    assert not patches[:, grid[1] // 2 :].any()


@pytest.mark.parametrize("norm", INPUT_NORMS)
def test_steerability_is_the_papers_formula(norm):
    vit, sae = backbone("clip"), random_sae(32, 1)
    sae.cfg = replace(sae.cfg, input_norm=norm)
    limits = np.linspace(0.5, 2, 48).astype(np.float32)
    limits[10] = 0
    steerer = ClipSteerer(vit, sae, max_activation=limits)
    images, words = [noise(40, 30), noise(30, 50)], ["cat", "dog", "red", "grass"]
    measured = steerability(steerer, images, words, strength=3.0, batch=7)
    assert np.isnan(measured.steerability[10])
    text = vit.text_features(words)
    for latent in (0, 9, 47):
        change = torch.zeros(4)
        for image in images:
            h = vit.activations([image], 1)
            z = sae.encode(h)
            new = z.clone()
            new[..., latent] = 3.0 * float(limits[latent])
            edited = h + sae.decode(new, like=h) - sae.decode(z, like=h)
            rows = [vit.image_features([image])]
            with vit.edit(1, lambda _h, edited=edited: edited):
                rows.append(vit.image_features([image]))
            p = (SCALE * torch.cat(rows) @ text.T).softmax(-1)
            change += (p[1] - p[0]) / 2
        assert measured.steerability[latent] == pytest.approx(
            float(change.square().sum()), rel=1e-3
        )
        assert measured.power[latent] == pytest.approx(float(change.max()), rel=1e-3)
        assert measured.word[latent] == int(change.argmax())
    measured_words = measured.word[measured.word >= 0]
    assert measured.coverage == len(set(measured_words)) / 47


def test_only_the_layers_after_the_edit_run(monkeypatch):
    steerer = ClipSteerer(backbone("clip"), random_sae(32, 1))
    seen = steerer.prepare(noise(32, 32))
    ran = []
    for number, layer in enumerate(steerer.backbone._layers):
        mlp = layer.mlp
        monkeypatch.setattr(
            mlp, "forward", lambda *a, n=number, f=mlp.forward: ran.append(n) or f(*a)
        )
    features = steerer.features(seen, torch.cat([seen.kept.hidden] * 3))
    assert ran == [2]
    torch.testing.assert_close(F.normalize(features, dim=-1), features)


def test_an_sae_of_another_backbone_is_refused():
    with pytest.raises(ValueError, match="width 16"):
        ClipSteerer(backbone("clip"), random_sae(16, 1))
    with pytest.raises(ValueError, match="is clip of width 32"):
        ClipSteerer(backbone("clip"), random_sae(32, 1, family="siglip"))
    with pytest.raises(ValueError, match="latent's maximum"):
        steerability(ClipSteerer(backbone("clip"), random_sae(32, 1)), [noise(9, 9)], ["cat"])


def test_the_bundled_index_tells_how_well_each_concept_steers():
    """After `training/index.py`, run `training/steerability.py`: `make world` does."""
    index, vit = ConceptIndex.from_pretrained("bundled"), Backbone.from_pretrained("bundled")
    steerer = ClipSteerer(vit, SparseAutoencoder.from_pretrained("bundled"), index=index)
    stored = index.statistics["steerability"], index.statistics["steering_power"]
    assert (~np.isnan(stored[0]) == (index.max_activation > 0)).all()
    assert 0.05 < float((stored[0] > STEERABLE).mean()) < 0.3
    latents = [int(stored[0].argmax()), 0]
    again = steerability(
        steerer,
        pictures("world", 16),
        words_for("world", None),
        strength=2.0,
        prompt="{}",
        latents=latents,
    )
    assert stored[0][latents] == pytest.approx(again.steerability[latents], rel=1e-2)
    assert stored[1][latents] == pytest.approx(again.power[latents], rel=1e-2)
