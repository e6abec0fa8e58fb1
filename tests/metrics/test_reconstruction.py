"""FVU, L0 and dead latents against what they mean, written out."""

import pytest
import torch

from sae.metrics.reconstruction import Reconstruction, ReconstructionMeter, told
from tests.tiny_saes import ARCHITECTURES, tiny_sae


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_batches_add_up_to_the_definition(architecture: str) -> None:
    sae = tiny_sae(architecture)
    x = torch.randn(30, 2, 16, generator=torch.Generator().manual_seed(1)) + 50
    meter = ReconstructionMeter(sae)
    for batch in x.split(7):
        meter.update(batch)
    found, flat = meter.result(), x.reshape(-1, 16)
    with torch.no_grad():
        error = (flat - sae(flat)).double().square().sum()
        latents = sae.encode(flat)
    spread = (flat.double() - flat.double().mean(0)).square().sum()
    assert found.fvu == pytest.approx(float(error / spread), rel=1e-5)
    assert found.l0 == pytest.approx(float((latents > 0).sum(1).double().mean()))
    assert found.dead_fraction == pytest.approx(float((~(latents > 0).any(0)).double().mean()))
    assert found.n_tokens == 60


def test_nothing_to_measure_is_an_error() -> None:
    meter = ReconstructionMeter(tiny_sae("relu"))
    with pytest.raises(ValueError, match="0 tokens were added"):
        meter.result()
    meter.update(torch.ones(4, 16))
    with pytest.raises(ValueError, match="tokens that differ; 4 tokens"):
        meter.result()


def test_a_share_of_dead_latents_needs_enough_tokens() -> None:
    assert Reconstruction(0.1, 4.0, 0.25, 9_999).dead_share is None
    assert Reconstruction(0.1, 4.0, 0.25, 10_000).dead_share == 0.25
    assert told(0.0, 34) is None
