"""Moran's I against its definition, its null, and the rules of which maps count."""

import numpy as np
import pytest
import torch

from sae.metrics.coherence import CoherenceMeter, morans_i


def by_definition(x: np.ndarray) -> float:
    rows, columns = x.shape
    places = [(r, c) for r in range(rows) for c in range(columns)]
    centred, total, links = x - x.mean(), 0.0, 0
    for a in places:
        for b in places:
            if a != b and abs(a[0] - b[0]) <= 1 and abs(a[1] - b[1]) <= 1:
                total, links = total + centred[a] * centred[b], links + 1
    return x.size / links * total / (centred**2).sum()


def test_equals_the_definition():
    maps = np.random.default_rng(0).normal(size=(4, 5, 7))
    assert morans_i(maps) == pytest.approx([by_definition(x) for x in maps])
    assert np.isnan(morans_i(np.ones((1, 3, 3)))).all()


def test_known_blobs_on_a_14_grid():
    for side, expected in ((2, 0.40), (3, 0.59), (4, 0.69), (6, 0.77)):
        x = np.zeros((1, 14, 14))
        x[0, 4 : 4 + side, 4 : 4 + side] = 1
        assert morans_i(x)[0] == pytest.approx(expected, abs=0.005)


def test_the_null_is_that_of_values_placed_at_random():
    rng = np.random.default_rng(1)
    found = morans_i(
        np.stack([rng.permutation(np.arange(196) < 20).reshape(14, 14) for _ in range(3000)])
    )
    assert found.mean() == pytest.approx(-1 / 195, abs=0.003)


def codes(maps: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Sparse codes of dense maps `(images, latents, rows, columns)`, latents in shuffled places."""
    flat = torch.from_numpy(maps).flatten(2).transpose(1, 2)
    values, indices = flat.topk(flat.shape[2], dim=2)
    return values, indices.masked_fill(values == 0, 0)


def test_meter_averages_valid_maps_by_latent(monkeypatch):
    rng = np.random.default_rng(2)
    maps = rng.random((40, 6, 4, 5)) * (rng.random((40, 6, 1, 1)) * 1.1 > rng.random((40, 6, 4, 5)))
    maps[:, 4] = 0
    maps[:, 5] = 0.5
    monkeypatch.setattr("sae.metrics.coherence.MAP_ELEMENTS", 100)
    meter = CoherenceMeter(6, (4, 5), min_maps=5)
    for part in np.split(maps, 8):
        meter.update(*codes(part))
    found = meter.result()
    active = (maps > 0).sum((2, 3))
    valid = (active >= 5) & (active <= 18)
    for latent in range(4):
        scores = [by_definition(x) for x in maps[valid[:, latent], latent]]
        assert found.by_latent[latent] == pytest.approx(np.mean(scores))
    assert np.isnan(found.by_latent[4:]).all()
    assert found.n_measured == 4
    assert found.mean == pytest.approx(found.by_latent[:4].mean())
    assert found.null == -1 / 19


def test_meter_takes_the_first_maps_only():
    maps = np.random.default_rng(3).random((30, 1, 4, 4)) * (np.arange(16).reshape(4, 4) < 9)
    meter = CoherenceMeter(1, (4, 4), max_maps=12, min_maps=12)
    meter.update(*codes(maps[:20]))
    meter.update(*codes(maps[20:]))
    assert meter.result().by_latent[0] == pytest.approx(morans_i(maps[:12, 0]).mean())
    few = CoherenceMeter(1, (4, 4), min_maps=50)
    few.update(*codes(maps))
    assert np.isnan(few.result().mean)


def test_bad_shapes_are_named():
    with pytest.raises(ValueError, match="leave CLS"):
        CoherenceMeter(4, (3, 3)).update(torch.ones(1, 10, 2), torch.zeros(1, 10, 2).long())
    with pytest.raises(ValueError, match="more than 5 patches"):
        CoherenceMeter(4, (2, 2))
