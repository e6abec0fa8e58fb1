"""Designs of steering do what they say, and the contest between them is fair: budget, splits, intervals."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sae.sparse import SparseLatents
from sae.steering.activations import Activations
from tests.steering.parts import random_sae
from training.steering import contest, protocol
from training.steering.contest import BUDGET, Bench, Entry, difference, interval, verdict
from training.steering.designs import (
    by_direction,
    by_latents,
    decoder_directions,
    fill,
    lower,
    paint,
    subtract,
)
from training.steering.evidence import Evidence, above, gather, summed
from training.steering.line_up import DIFF_MEAN, putting_in, taking_out

D = 16


class Layout:
    """CLS and a grid of 2 × 4 patches."""

    has_cls, patch_grid = True, (2, 4)

    def read_by(self, policy):
        kinds = torch.tensor([[False] + [True] * 8])
        return ~kinds if policy == "cls" else kinds

    def tokens_of_patches(self, patches):
        return torch.tensor([[number - 1 in patches for number in range(9)]])


@pytest.fixture
def pair():
    """One picture of nine tokens, random, of kind 0."""
    sae = random_sae(D, 0)
    x = torch.randn(1, 9, D, generator=torch.Generator().manual_seed(2))
    most = torch.full((sae.cfg.d_sae,), 2.0)
    steerer = SimpleNamespace(sae=sae, max_activation=most)
    activations = Activations(x, sae, Layout, most)
    return protocol.Pair(
        SimpleNamespace(activations=activations, steerer=steerer), 0, "dog", (1, 2)
    )


@pytest.fixture
def evidence(pair):
    d_sae = pair.prepared.steerer.sae.cfg.d_sae
    rows = torch.randn(1, D, generator=torch.Generator().manual_seed(3))
    codes = torch.rand(1, d_sae, generator=torch.Generator().manual_seed(4))
    kinds = protocol.KindLatents([[5, 7, 9]], np.ones(1), rows, rows, torch.full((D,), 0.1))
    return Evidence(kinds, rows, codes, codes)


def test_subtracting_turns_the_projection_round_on_its_tokens_alone(pair):
    mean, direction = torch.full((D,), 0.1), torch.eye(D)[:1] * 7
    x = pair.prepared.activations.x[0]
    found = subtract(by_direction(direction, mean), 0.5, direction, mean, 3.0)(pair)[0]
    size = x[:, 0] - 0.1
    here = size > 0.5 * size.max()
    assert 0 < here.sum() < 9
    torch.testing.assert_close(found[here, 0] - 0.1, -2 * size[here])
    assert torch.equal(found[~here], x[~here])
    torch.testing.assert_close(found[:, 1:], x[:, 1:])


def test_filled_tokens_become_the_mean_of_the_other_patches(pair):
    direction = torch.eye(D)[:1]
    x = pair.prepared.activations.x[0]
    found = fill(by_direction(direction, torch.zeros(D)), 0.5)(pair)[0]
    here = x[:, 0] > 0.5 * x[:, 0].max()
    rest = ~here & torch.tensor([False] + [True] * 8)
    torch.testing.assert_close(found[here], x[rest].mean(0).expand(int(here.sum()), -1))
    assert torch.equal(found[~here], x[~here])


def test_lowered_latents_are_at_their_dose_where_they_exceed_their_share(pair, evidence):
    activations, sae = pair.prepared.activations, pair.prepared.steerer.sae
    latents = [
        int(n)
        for n in summed(SparseLatents(*(p[0] for p in activations.code)), sae.cfg.d_sae)
        .topk(2)
        .indices
    ]
    chosen = replace(evidence, kinds=replace(evidence.kinds, latents=[latents]))
    before = activations.latents(latents)[0]
    change = lower(chosen, 2, 0.5, 0.3)(pair)[0] - activations.x[0]
    target = torch.where(before > 0.3 * before.amax(0), torch.tensor(-1.0), before)
    expected = (target - before) @ sae.W_dec[latents]
    torch.testing.assert_close(change, expected, atol=1e-4, rtol=1e-3)


def test_painting_reaches_the_region_alone(pair):
    directions, mean = torch.eye(D)[:1], torch.full((D,), 0.3)
    x = pair.prepared.activations.x[0]
    found = paint(directions, mean, 2.0, "replace")(pair)[0]
    torch.testing.assert_close(found[2:4], (mean + 2 * directions[0]).expand(2, -1))
    assert torch.equal(found[[0, 1, *range(4, 9)]], x[[0, 1, *range(4, 9)]])
    added = paint(directions, mean, 2.0, "region")(pair)[0]
    torch.testing.assert_close(added[2:4] - x[2:4], (2 * directions[0]).expand(2, -1))


def test_directions_of_latents_are_their_rows_by_weight(pair, evidence):
    rows = pair.prepared.steerer.sae.W_dec
    assert torch.equal(decoder_directions(evidence, rows, 1), rows[[5]])
    whole = decoder_directions(evidence, rows, len(rows))
    torch.testing.assert_close(whole, evidence.code_difference @ rows)
    scores = by_latents(evidence, 3)(pair)
    torch.testing.assert_close(scores, pair.prepared.activations.latents([5, 7, 9])[0].sum(-1) / 2)
    assert above(torch.tensor([-1.0, 2.0, 1.1, 0.9]), 0.5).tolist() == [False, True, True, False]
    assert not above(torch.zeros(3), 0.5).any()


def test_every_design_stays_within_the_budget(pair, evidence):
    rows = pair.prepared.steerer.sae.W_dec
    for designs in (taking_out(evidence, rows), putting_in(evidence, evidence.kinds, rows)):
        assert sum(name.startswith(DIFF_MEAN) for name in designs) >= 3
        assert sum(not name.startswith(DIFF_MEAN) for name in designs) >= 4
        for settings in designs.values():
            assert 1 < len(settings) <= BUDGET


def made(monkeypatch, tables) -> Bench:
    """A bench whose changes are no changes, each judged by its table of hits."""

    def judge(_steerer, pairs, change, *, insert):  # noqa: ARG001
        return tables[change][: len(pairs)], np.ones(len(pairs), bool)

    monkeypatch.setattr(contest, "judge", judge)
    pairs = [SimpleNamespace(kind=number % 4) for number in range(200)]
    return Bench(None, pairs[:120], pairs, insert=True)


def test_tuning_looks_at_validation_pairs_alone(monkeypatch, tmp_path):
    hits = np.arange(200) < 120  # right on the validation pairs, wrong on the rest
    good, other, none = (lambda _, n=n: torch.zeros(1, n, 4) for n in (1, 2, 3))
    bench = made(monkeypatch, {good: hits, other: ~hits, none: np.zeros(200, bool)})
    bench.folder = tmp_path
    entry = bench.enter("design", {"a": none, "b": good, "c": other})
    assert (entry.setting, entry.tuned) == ("b", 1.0)
    assert bench.outcome(entry).both == pytest.approx(0.6)
    monkeypatch.setattr(contest, "judge", None)  # what lies there is not measured again
    assert bench.enter("design", {"a": none, "b": good, "c": other}).setting == "b"
    with pytest.raises(ValueError, match="the budget is"):
        bench.tune("greedy", {str(number): good for number in range(BUDGET + 1)})


def test_intervals_are_of_kinds_and_differences_are_paired():
    kinds = np.repeat(np.arange(100), 10)
    rng = np.random.default_rng(0)
    same = rng.random(1000) < 0.8
    low, high = interval(same.astype(float), kinds)
    assert low < same.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.16 / 1000), rel=0.35)
    by_kind = interval(np.repeat(rng.random(100) < 0.8, 10).astype(float), kinds)
    assert by_kind[1] - by_kind[0] > 2 * (high - low)  # pairs of a kind are not independent
    always = np.ones(1000, bool)
    one, other = (Entry(name, "", 0.0, hit, always) for name, hit in (("a", same), ("b", same)))
    assert difference(one, other, kinds) == (0, 0, 0)
    assert "cannot be told apart" in verdict(one, other, kinds)
    better = replace(one, name="c", done=same | (np.arange(1000) % 10 == 0))
    assert verdict(better, other, kinds).startswith("c wins against b by ")
    assert verdict(other, better, kinds).startswith("c wins against b by ")


@pytest.mark.slow
def test_evidence_is_of_pictures_that_show_the_kind(steerer):
    with np.errstate(all="ignore"):
        found = gather(steerer, 64, n_latents=3)
    assert found.refined.shape == (120, 128)
    assert found.code_difference.shape == found.profile.shape == (120, steerer.sae.cfg.d_sae)
    shown = found.refined.norm(dim=1) > 0
    assert 0 < shown.sum() <= 120
    assert found.refined.isfinite().all()
    assert found.profile.isfinite().all()
