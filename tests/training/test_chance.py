"""What chance leaves of a gain, on hand-made weights where it is known which concepts carry it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sae.adaptation.classifier import Classifier
from sae.adaptation.lens import ConceptLens, HookedActivations
from sae.config import BackboneRef, SAEConfig
from sae.model import SparseAutoencoder
from training.tasks.chance import hits, random_off, says, shares

D, N = 24, 200
"""Widths, each of which is a latent of its own, and pictures."""


class HandMade(ConceptLens):
    """One token a picture, whose widths are the latents; right where `good` adds up to over `limit`."""

    def __init__(self, tables: dict[str, torch.Tensor], good: torch.Tensor, limit: float) -> None:
        sae = SparseAutoencoder(SAEConfig("relu", D, D, BackboneRef("hand", 0)))
        for name, parameter in sae.named_parameters():
            parameter.data = torch.eye(D) if name.startswith("W_") else torch.zeros(D)
        self.sae, self.tables = sae.requires_grad_(False), tables
        self.good, self.limit = good, limit
        self.parts = SimpleNamespace(backbone=SimpleNamespace(device="cpu"))
        self.view = SimpleNamespace(read=lambda x: x, put=lambda _, read: read)

    def read(self, images, prompts=None):
        hidden = self.tables[prompts][images][:, None]
        return HookedActivations(hidden, self.sae.encode_sparse(hidden))

    def features(self, hidden, prompts=None, *, cls_only=False):  # noqa: ARG002
        score = hidden[:, 0] @ self.good
        return torch.stack([score, torch.full_like(score, self.limit)], dim=1)


class Numbers:
    """Pictures that are their numbers, all of the first class."""

    labels = np.zeros(N, dtype=np.int64)

    def __len__(self) -> int:
        return N

    def pictures(self, numbers):
        return list(numbers)


def measured(before, after, good: list[int], limit: float) -> tuple[dict, dict]:
    """Shares over two seeds of training that learned the same, and what was switched off."""
    weight = torch.zeros(D).index_fill_(0, torch.tensor(good), 1.0)
    lens = HandMade({"before": before, "after": after}, weight, limit)
    first, second = (
        Classifier(name, ("right", "wrong"), torch.eye(2), 10.0, torch.zeros(2), prompts=name)
        for name in ("before", "after")
    )
    hit, sizes = hits(lens, first, second, Numbers(), draws=6)
    assert not hit["per_token/first"].any()
    assert hit["per_token/second"].all()
    return shares([hit, hit]), sizes


def test_a_gain_wholly_from_concepts_that_were_there_beats_chance():
    before = torch.zeros(N, D)
    before[:, 0] = 0.5
    before[:, 1:6] = 0.4
    after = before.clone()
    after[:, 0] = 1.2  # a concept that was there grows and decides
    after[:, 6:10] = 0.5  # and new ones come that say nothing
    found, sizes = measured(before, after, [0], 1.0)
    assert sizes["new mass"] == pytest.approx(2 / 5.2, abs=1e-3)
    assert sizes["random mass"] <= sizes["new mass"]
    for error in ("per_token", "none"):
        assert found[error]["existing"] == [1, 1, 1]
        assert found[error]["random"][0] < 0.9
        assert says(found[error]) == "new concepts carry less than chance"


def test_a_gain_wholly_from_new_concepts_is_more_than_chance():
    before = torch.zeros(N, D)
    before[:, 1:6] = 1.2
    after = before.clone()
    after[:, 6] = 1.2  # of six concepts of one size the new one decides
    found, sizes = measured(before, after, [6], 1.0)
    assert sizes["new mass"] == sizes["random mass"] == pytest.approx(1 / 6, abs=1e-3)
    for error in ("per_token", "none"):
        assert found[error]["existing"] == [0, 0, 0]
        assert found[error]["random"][0] == pytest.approx(5 / 6, abs=0.05)
        assert says(found[error]) == "new concepts carry more than chance"


def test_a_gain_that_is_the_same_whichever_concepts_are_new_is_chance():
    rng = np.random.default_rng(1)
    before, after = torch.zeros(N, D), torch.zeros(N, D)
    after[:, :20] = 0.1
    for row in before:  # in every picture any five of twenty are new
        row[rng.permutation(20)[5:]] = 0.01
    found, sizes = measured(before, after, list(range(10)), 0.75)
    assert sizes["new concepts"] == sizes["random concepts"] == 5
    for error in ("per_token", "none"):
        assert 0.3 < found[error]["existing"][0] < 0.8
        assert abs(found[error]["difference"][0]) < 0.1
        assert says(found[error]) == "cannot be told apart from chance"


def test_random_concepts_carry_as_much_and_never_more():
    generator = torch.Generator().manual_seed(0)
    sums = torch.rand(30, 50, generator=generator) * (torch.rand(30, 50, generator=generator) < 0.6)
    mass = 0.3 * sums.sum(1)
    off = random_off(sums, mass, generator)
    assert not (off & (sums <= 0)).any()
    carried = (sums * off).sum(1)
    assert (carried <= mass * 1.001).all()
    assert (carried > 0.9 * mass).all()
    assert not torch.equal(off, random_off(sums, mass, generator))
    assert not random_off(sums, torch.zeros(30), generator).any()


def test_where_nothing_is_gained_nothing_is_shared():
    table = np.ones((1, 40), bool)
    names = ("first", "second", "existing", "random")
    hit = {f"{error}/{name}": table for error in ("per_token", "none") for name in names}
    found = shares([hit])["none"]
    assert found["existing"] is found["random"] is found["difference"] is None
    assert says(found) == "hardly a gain"
