"""Shares add up; where the path is linear they are the true differences; words can be asked for."""

import pytest
import torch
import torch.nn.functional as F

from sae.adaptation.attribution import attribute, score_of
from sae.backbones.prompting import VisionPrompts
from sae.config import INPUT_NORMS
from tests.adaptation.small import pictures, small_lens, small_parts
from training.tasks.masking import FRACTIONS, area, concept_scores, curves, logit_lens


@pytest.fixture(scope="module")
def parts():
    return small_parts()


@pytest.mark.parametrize("tokens", ["all", "patches", "cls"])
@pytest.mark.parametrize("layer", [-1, -2, 0])
@pytest.mark.parametrize("norm", INPUT_NORMS)
def test_the_shares_and_the_rest_add_up_to_the_score(parts, layer, tokens, norm):
    lens = small_lens(parts, layer, tokens, input_norm=norm)
    torch.manual_seed(0)
    direction, prompts = torch.randn(16), VisionPrompts(torch.randn(2, 32), (torch.randn(2, 32),))
    reading = lens.read(pictures(1), prompts)
    found = attribute(lens, reading, direction, prompts=prompts, offset=0.7, steps=64)
    features = lens.features(reading.hidden, prompts)
    score = float(F.normalize(features, dim=-1)[0] @ direction) + 0.7
    assert found.score == pytest.approx(score, abs=1e-4)
    total = found.start + found.error + found.gap + float(found.shares.sum())
    assert total == pytest.approx(found.score, abs=1e-4)
    assert found.start + found.explained + found.residual == pytest.approx(found.score, abs=1e-9)
    assert found.residual == pytest.approx(found.error + found.gap, abs=1e-4)
    assert abs(found.gap) < 1e-2
    assert found.exact == (layer == -1)
    if found.exact:
        assert found.gap == 0.0
    by_latent = {int(i): found.share(int(i)) for i in found.latents}
    values, indices = found.by_token
    for latent, share in by_latent.items():
        assert float(values[indices == latent].sum()) == pytest.approx(share, abs=1e-4)


def test_on_the_last_layer_shares_are_those_of_the_hand(parts):
    # score = cos: with both norms at their values, a latent's share is value * W_dec row * g.
    lens = small_lens(parts, -1, "cls")
    direction = torch.randn(16, generator=torch.Generator().manual_seed(0))
    reading = lens.read(pictures(1))
    cls = reading.hidden[:, 0].clone().requires_grad_()
    model = parts.backbone._model
    norm, weight = model.vision_model.post_layernorm, model.visual_projection.weight
    deviation = (cls.var(-1, unbiased=False) + norm.eps).sqrt().detach()
    features = ((cls - cls.mean(-1, keepdim=True)) / deviation * norm.weight + norm.bias) @ weight.T
    (features @ direction / features.norm().detach()).sum().backward()
    found = attribute(lens, reading, direction)
    for value, latent in zip(*(part[0, 0] for part in reading.latents), strict=True):
        expected = float(value * (lens.sae.W_dec[latent] @ cls.grad[0]))
        assert found.share(int(latent)) == pytest.approx(expected, abs=1e-5)


def test_curves_begin_and_end_where_they_must(parts):
    lens = small_lens(parts)
    direction = torch.randn(16, generator=torch.Generator().manual_seed(1))
    reading = lens.read(pictures(1))
    scores = concept_scores(lens, reading, direction, None, logit_lens(lens), seed=0)
    full = float(score_of(lens, reading.hidden, direction, None))
    found = curves(lens, reading, direction, scores, error="per_token")
    assert len(found) == 8
    for name, curve in found.items():
        assert len(curve) == len(FRACTIONS)
        ends = curve if name.endswith("deletion") else curve.flip(0)
        assert float(ends[0]) == pytest.approx(full, abs=1e-5)
        none = lens.edited(reading, torch.zeros(64, dtype=torch.bool), "per_token")
        off = float(score_of(lens, none, direction, None))
        assert float(ends[-1]) == pytest.approx(off, abs=1e-4)
    assert area(found["attribution/deletion"]) < area(found["attribution/insertion"])
    assert area(torch.ones(len(FRACTIONS))) == pytest.approx(1.0)


def test_the_logit_lens_is_the_decoder_direction_as_cls(parts):
    lens = small_lens(parts)
    row = parts.project(lens.sae.W_dec[5])
    torch.testing.assert_close(logit_lens(lens)[5], F.normalize(row, dim=-1))
