"""Initialisation, unit rows, and the folding of the scale."""

import dataclasses
import math

import pytest
import torch

from sae.architectures import ARCHITECTURES
from sae.config import BackboneRef, SAEConfig
from tests.training.training_parts import config
from training.loop.trainer import geometric_median
from training.loop.weights import TrainableSAE, group_sizes


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_folding_the_scale_is_exact(architecture: str) -> None:
    w, scale = TrainableSAE(architecture, 6, 20, seed=0), 7.5
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        w.b_enc.copy_(torch.randn(20, generator=generator) * 0.1)
        w.b_dec.copy_(torch.randn(6, generator=generator))
    fields: dict = {"k": 3} if architecture in ("topk", "batch_topk", "matryoshka") else {}
    if architecture in ("batch_topk", "matryoshka"):
        fields["threshold"] = 0.4
    if architecture == "matryoshka":
        fields["group_sizes"] = (5, 15)
    unscaled = SAEConfig(architecture, 6, 20, BackboneRef("local", 0), **fields)
    scaled = unscaled
    if unscaled.threshold:
        scaled = dataclasses.replace(unscaled, threshold=unscaled.threshold * scale)
    x = torch.randn(40, 6, generator=generator)
    inside, outside = w.fold(unscaled, 1.0), w.fold(scaled, scale)
    torch.testing.assert_close(outside.encode(x * scale), inside.encode(x) * scale)
    torch.testing.assert_close(outside(x * scale), inside(x) * scale)


def test_the_start() -> None:
    w = TrainableSAE("topk", 6, 20, seed=0)
    torch.testing.assert_close(w.W_dec.norm(dim=1), torch.ones(20))
    assert torch.equal(w.W_enc, w.W_dec.t())
    assert w.W_enc.t().is_contiguous()
    assert torch.equal(w.W_dec, TrainableSAE("topk", 6, 20, seed=0).W_dec)
    assert not torch.equal(w.W_dec, TrainableSAE("topk", 6, 20, seed=1).W_dec)


def test_only_directions_are_learned() -> None:
    w = TrainableSAE("topk", 6, 20, seed=0)
    w.W_dec.grad = torch.randn(20, 6, generator=torch.Generator().manual_seed(1))
    w.remove_parallel_gradient()
    along = (w.W_dec.grad * w.W_dec).sum(1)
    torch.testing.assert_close(along, torch.zeros(20), atol=1e-6, rtol=0)
    with torch.no_grad():
        w.W_dec.mul_(3)
    w.normalise_decoder()
    torch.testing.assert_close(w.W_dec.norm(dim=1), torch.ones(20))


def test_the_geometric_median_resists_an_outlier() -> None:
    points = torch.tensor([[0.0, 0], [1, 0], [0, 1], [-1, 0], [0, -1], [1000, 1000]])
    assert geometric_median(points).norm() < 0.7
    square = torch.tensor([[0.0, 0], [2, 0], [0, 2], [2, 2]])
    torch.testing.assert_close(geometric_median(square), torch.ones(2))


def test_group_sizes_sum_to_the_latents() -> None:
    assert group_sizes(config(arch="matryoshka", d_sae=1000)) == (62, 125, 250, 563)
    assert group_sizes(config(arch="topk")) is None


def test_weights_start_kaiming_uniform() -> None:
    tied = TrainableSAE("matryoshka", 32, 600, seed=0, init="uniform")
    assert torch.equal(tied.W_enc, tied.W_dec.t())
    rows = tied.W_dec.detach()
    # a cube's corners are hit more often than by Gaussian rows: no entry far above the mean square
    assert float(rows.pow(4).mean() / rows.square().mean() ** 2) == pytest.approx(1.8, abs=0.1)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(600))
    w = TrainableSAE("relu", 32, 600, seed=0, init="independent")
    bound = math.sqrt(6 / 600)
    assert 0.98 * bound < float(w.W_enc.detach().abs().max()) <= bound
    assert not torch.allclose(w.W_enc, w.W_dec.t())
    torch.testing.assert_close(w.W_dec.norm(dim=1), torch.ones(600))
