"""Edits of activations equal the dense formula, whatever the SAE reads and does with its input."""

import pytest
import torch

from sae.config import INPUT_NORMS
from tests.adaptation.small import pictures, small_lens, small_parts


@pytest.fixture(scope="module")
def parts():
    return small_parts()


@pytest.mark.parametrize("norm", INPUT_NORMS)
@pytest.mark.parametrize("tokens", ["all", "patches", "cls"])
def test_an_edit_is_the_change_of_what_is_decoded(parts, tokens, norm):
    lens = small_lens(parts, tokens=tokens, input_norm=norm)
    reading = lens.read(pictures(2))
    keep = torch.rand(2, 64, generator=torch.Generator().manual_seed(0)) < 0.5
    x = lens.view.read(reading.hidden)
    z = lens.sae.encode(x)
    kept = z * keep[:, None]
    wanted = x + (lens.sae.decode(kept, like=x) - lens.sae.decode(z, like=x))
    edited = lens.edited(reading, keep)
    torch.testing.assert_close(lens.view.read(edited), wanted, rtol=1e-5, atol=1e-5)
    rest = torch.ones(edited.shape[1], dtype=torch.bool)
    rest[lens.view.span] = False
    assert torch.equal(edited[:, rest], reading.hidden[:, rest])
    without = lens.view.read(lens.edited(reading, keep, "none"))
    torch.testing.assert_close(without, lens.sae.decode(kept, like=x), rtol=1e-5, atol=1e-5)
    everything = torch.ones(64, dtype=torch.bool)
    assert lens.edited(reading, everything) is reading.hidden
