"""The table of architectures, and an architecture that is defined outside the package."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sae.architectures import (
    ARCHITECTURES,
    Architecture,
    Settings,
    Vectors,
    register_architecture,
)
from sae.artifact import SAELENS_CONFIG
from sae.config import BackboneRef, SAEConfig
from sae.model import SparseAutoencoder
from tests.tiny_saes import tiny_sae


def soft_threshold(h: Tensor, cfg: Settings, vectors: Vectors) -> Tensor:
    """What exceeds the latent's own threshold: max(h - theta, 0)."""
    del cfg
    return (h - vectors["threshold"]).relu()


@pytest.fixture
def soft(monkeypatch: pytest.MonkeyPatch) -> Architecture:
    """The architecture, in the table until the test ends."""
    made = Architecture("soft", "soft threshold", soft_threshold, threshold="latent")
    monkeypatch.setitem(ARCHITECTURES, "soft", made)
    del ARCHITECTURES["soft"]  # and when the test ends it is taken out again
    return register_architecture(made)


def soft_sae() -> SparseAutoencoder:
    sae = SparseAutoencoder(SAEConfig("soft", 16, 40, BackboneRef("bundled", 4)))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return sae.eval()


@torch.no_grad()
def test_an_architecture_from_outside(soft: Architecture, tmp_path: Path) -> None:
    sae, x = soft_sae(), torch.randn(7, 16, generator=torch.Generator().manual_seed(1))
    by_hand = ((x - sae.b_dec) @ sae.W_enc + sae.b_enc - sae.threshold).clamp(min=0)
    assert torch.allclose(sae.encode(x), by_hand, atol=1e-5)
    values, indices = sae.encode_sparse(x)
    assert torch.equal(torch.zeros(7, 40).scatter_add(1, indices, values), sae.encode(x))
    assert bool((values[:, 1:] <= values[:, :-1]).all())
    assert torch.allclose(sae(x), by_hand @ sae.W_dec + sae.b_dec, atol=1e-4)

    sae.save_pretrained(tmp_path)
    again = SparseAutoencoder.from_pretrained(tmp_path)
    assert again.cfg == sae.cfg
    assert again.architecture is soft
    for name, parameter in sae.named_parameters():
        assert torch.equal(again.get_parameter(name), parameter)
    assert torch.equal(again(x), sae(x))
    assert not (tmp_path / SAELENS_CONFIG).exists()


def test_without_registration_it_is_unknown() -> None:
    with pytest.raises(ValueError, match=r"must be one of \('relu', 'topk', .*got 'soft'"):
        soft_sae()


def test_a_name_is_given_once(soft: Architecture) -> None:
    with pytest.raises(ValueError, match="there is an architecture 'soft' already"):
        register_architecture(soft)


@torch.no_grad()
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_the_table_says_is_so(name: str) -> None:
    row, sae = ARCHITECTURES[name], tiny_sae(name)
    x = torch.randn(9, 16, generator=torch.Generator().manual_seed(2))
    h = (x - sae.b_dec) @ sae.W_enc + sae.b_enc
    latents = row.latents(h, sae.cfg, sae.vectors)
    assert ("threshold" in dict(sae.named_parameters())) == (row.threshold == "latent")
    some = torch.tensor([3, 17, 29])
    of_some = {name: vector[some] for name, vector in sae.vectors.items()}
    if row.elementwise:
        assert torch.equal(row.latents(h[:, some], sae.cfg, of_some), latents[:, some])
    values, indices = row.sparse_latents(h, sae.cfg, sae.vectors)
    assert torch.equal(torch.zeros_like(h).scatter_add(1, indices, values), latents)
