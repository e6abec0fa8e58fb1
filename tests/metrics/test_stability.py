"""Agreement of dictionaries: permutations are found, means are no agreement, nulls are as known."""

import numpy as np
import pytest
import torch

from sae.metrics.stability import stability


def random_rows(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_a_permuted_and_scaled_dictionary_agrees_wholly():
    rows = random_rows(50, 12, 0)
    other = 3 * rows[torch.randperm(50, generator=torch.Generator().manual_seed(1))]
    found = stability(rows, other)
    assert found.found.matched == pytest.approx(1, abs=1e-5)
    assert found.found.matched_same == found.found.nearest_same == 1
    assert found.null.matched < 0.8


def test_matching_is_one_to_one_and_nearest_is_not():
    rows = torch.eye(3, 8)
    copies = rows[[0, 0, 0]]
    found = stability(rows, copies, centre=False).found
    assert found.matched == pytest.approx(1 / 3)
    assert found.nearest == pytest.approx((1 / 3 + 1) / 2)


def test_equals_brute_force_on_few_rows():
    import itertools

    a, b = random_rows(5, 4, 2), random_rows(5, 4, 3)
    units = [x / x.norm(dim=1, keepdim=True) for x in (a, b)]
    centred = [x - x.mean(0) for x in units]
    cosines = (
        centred[0]
        / centred[0].norm(dim=1, keepdim=True)
        @ (centred[1] / centred[1].norm(dim=1, keepdim=True)).T
    ).numpy()
    best = max(
        np.mean([cosines[i, p[i]] for i in range(5)]) for p in itertools.permutations(range(5))
    )
    found = stability(a, b).found
    assert found.matched == pytest.approx(best, abs=1e-6)
    nearest = (cosines.max(0).mean() + cosines.max(1).mean()) / 2
    assert found.nearest == pytest.approx(nearest, abs=1e-6)


def test_a_shared_mean_is_no_agreement_once_centred():
    offset = 2 * torch.ones(1, 32)
    a, b = random_rows(200, 32, 4) + offset, random_rows(200, 32, 5) + offset
    centred, plain = stability(a, b), stability(a, b, centre=False)
    assert plain.found.matched > plain.null.matched + 0.3
    assert centred.found.matched == pytest.approx(centred.null.matched, abs=0.03)
    assert plain.null_covariance.matched == pytest.approx(plain.found.matched, abs=0.03)


def test_the_null_at_768_dimensions_and_chunks_change_nothing(monkeypatch):
    a, b = random_rows(1024, 768, 6), random_rows(1024, 768, 7)
    found = stability(a, b, match=False)
    assert found.null.nearest == pytest.approx(0.117, abs=0.002)
    assert np.isnan(found.found.matched)
    monkeypatch.setattr("sae.metrics.stability.SIMILARITIES_AT_ONCE", 10_000)
    assert stability(a, b, match=False).found.nearest == pytest.approx(found.found.nearest)


@pytest.mark.usefixtures("wrong_shapes")
def test_rows_of_zero_and_other_widths():
    a = random_rows(6, 4, 8)
    with_dead = torch.cat([a, torch.zeros(2, 4)])
    assert stability(a, with_dead).found == stability(a, a).found
    with pytest.raises(ValueError, match="same backbone"):
        stability(a, random_rows(6, 5, 9))
