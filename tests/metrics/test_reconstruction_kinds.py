"""Reconstruction by kind of token, and under a large common offset."""

import pytest
import torch

from sae.backbones.tokens import TokenView
from sae.metrics.reconstruction import ReconstructionMeter
from tests.backbones.towers import Tower
from tests.tiny_saes import tiny_sae

KINDS = TokenView(Tower((2, 2), 2, has_cls=True), "all").kinds()


def activations(n: int = 20) -> torch.Tensor:
    x = torch.randn(n, 6, 16, generator=torch.Generator().manual_seed(1))
    x[:, 0] = x[:, 0] * 3 + 5
    return x


def test_kinds_are_named_by_position():
    assert KINDS == ("cls", "register", "patch", "patch", "patch", "patch")


@pytest.mark.parametrize("architecture", ["topk", "relu", "batch_topk"])
def test_each_kind_equals_a_meter_of_its_own(architecture):
    sae, x = tiny_sae(architecture), activations()
    meter = ReconstructionMeter(sae, KINDS)
    for batch in x.split(7):
        meter.update(batch)
    found = meter.by_kind()
    assert list(found) == ["cls", "register", "patch"]
    for kind, tokens in (("cls", x[:, :1]), ("register", x[:, 1:2]), ("patch", x[:, 2:])):
        alone = ReconstructionMeter(sae)
        alone.update(tokens)
        assert found[kind] == pytest.approx(alone.result())
    whole = ReconstructionMeter(sae)
    whole.update(x)
    assert meter.result() == pytest.approx(whole.result())
    assert whole.by_kind()["all"] == whole.result()


def test_an_offset_changes_nothing():
    sae = tiny_sae("topk")
    x = activations().double()
    sae = sae.double()
    plain, moved = ReconstructionMeter(sae), ReconstructionMeter(sae)
    plain.update(x)
    with torch.no_grad():
        shifted = tiny_sae("topk").double()
        shifted.b_dec += 1e6
    moved = ReconstructionMeter(shifted)
    moved.update(x + 1e6)
    assert moved.result().fvu == pytest.approx(plain.result().fvu, rel=1e-6)


def test_merging_equals_one_meter():
    sae, x = tiny_sae("matryoshka"), activations()
    parts = [ReconstructionMeter(sae, KINDS) for _ in range(3)]
    for meter, batch in zip(parts, x.split(8), strict=True):
        meter.update(batch)
    parts[0].merge(parts[1])
    parts[0].merge(parts[2])
    whole = ReconstructionMeter(sae, KINDS)
    whole.update(x)
    assert parts[0].result() == pytest.approx(whole.result())
    with pytest.raises(ValueError, match="cannot be merged"):
        whole.merge(ReconstructionMeter(sae))


def test_a_wrong_number_of_tokens_is_named():
    with pytest.raises(ValueError, match=r"expected \(\*batch, 6, d_in\)"):
        ReconstructionMeter(tiny_sae("topk"), KINDS).update(torch.zeros(2, 5, 16))
