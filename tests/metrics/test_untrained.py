"""Dictionaries nobody trained fire as often as latents do, and are what they are said to be."""

import pytest
import torch

from sae.metrics.monosemanticity import MonosemanticityMeter
from sae.metrics.untrained import NAMES, Untrained, size_for, thresholds_for, untrained

D_IN, D_SAE, L0 = 6, 40, 3.0


def made(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, tuple[Untrained, ...]]:
    generator = torch.Generator().manual_seed(1)
    sample = torch.randn(3000, D_IN, generator=generator) * torch.arange(1, 7) + 5
    frequency = torch.rand(D_SAE, generator=generator)
    frequency[:4] = 0
    frequency *= L0 / frequency.sum()
    return sample, frequency, untrained(sample, frequency, seed=seed)


def test_each_is_as_sparse_as_the_latents():
    sample, frequency, found = made()
    assert tuple(one.name for one in found) == NAMES
    neurons, directions, tokens = (one(sample) for one in found)
    for units in (directions, tokens):
        assert units.shape == (3000, D_SAE)
        assert ((units > 0).sum(1) <= L0).all()
        assert float((units > 0).sum(1).float().mean()) > L0 - 0.1
    fires = (neurons > 0).double().mean(0).sort().values
    alive = frequency[frequency > 0].double()
    wanted = alive.quantile(torch.linspace(0, 1, 14, dtype=torch.float64)[1:-1])
    torch.testing.assert_close(fires, wanted, atol=1 / 3000, rtol=0)


def test_directions_are_random_or_tokens_less_the_mean():
    sample, _, (_, directions, tokens) = made()
    away = torch.nn.functional.normalize(sample - sample.mean(0), dim=1)
    assert (tokens.directions @ away.T).amax(1) == pytest.approx(1, abs=1e-5)
    assert directions.directions.norm(dim=1) == pytest.approx(1, abs=1e-5)
    x = sample[:7]
    products = ((x - sample.mean(0)) @ directions.directions.T).relu()
    kept = products.topk(3, dim=1)
    by_hand = torch.zeros_like(products).scatter_(1, kept.indices, kept.values)
    torch.testing.assert_close(directions(x), by_hand)
    again, other = made()[2], made(seed=1)[2]
    assert torch.equal(again[2].directions, tokens.directions)
    assert not torch.equal(other[2].directions, tokens.directions)


def test_the_mean_over_tokens_is_that_of_every_token_whatever_the_number_of_images():
    _, _, found = made()
    x = torch.randn(5, 2048, D_IN, generator=torch.Generator().manual_seed(2)) * 4 + 5
    for one in found:
        by_hand = torch.stack([one(image).double().mean(0) for image in x])
        torch.testing.assert_close(one.means(x), by_hand)


@pytest.mark.parametrize(
    ("d_sae", "l0", "n", "k"), [(2048, 8, 2048, 8), (49152, 32, 2048, 1), (65536, 20, 3277, 1)]
)
def test_wide_saes_do_not_make_wide_dictionaries(d_sae, l0, n, k):
    assert size_for(d_sae, l0) == (n, k)
    assert k / n == pytest.approx(l0 / d_sae, rel=0.6)


def test_thresholds_leave_the_wanted_share_above_them():
    units = torch.arange(100.0)[:, None].expand(100, 3)
    at = thresholds_for(units, torch.full((9,), 0.07), torch.Generator())
    assert (units > at).sum(0).tolist() == [7, 7, 7]


def test_what_cannot_be_made_is_refused():
    with pytest.raises(ValueError, match="latents that fire"):
        untrained(torch.randn(50, 4), torch.zeros(8))
    with pytest.raises(ValueError, match="two tokens"):
        untrained(torch.randn(1, 4), torch.full((8,), 0.1))


def test_chance_is_the_mean_cosine_of_two_images():
    vectors = torch.randn(9, 4, generator=torch.Generator().manual_seed(3))
    meter = MonosemanticityMeter(1, 4)
    for part in vectors.split(4):
        meter.update(torch.ones(len(part), 1), part)
    units = torch.nn.functional.normalize(vectors.double(), dim=1)
    pairs = (units @ units.T)[*torch.triu_indices(9, 9, 1)]
    assert meter.chance() == pytest.approx(float(pairs.mean()))
    assert torch.tensor(MonosemanticityMeter(1, 4).chance()).isnan()
