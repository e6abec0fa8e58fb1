"""Every published format gives the numbers that its own library computes."""

from pathlib import Path

import pytest
import torch

from sae import interop
from sae.model import SparseAutoencoder
from tests.interop.published import PUBLISHED, D

X = torch.randn(64, D, generator=torch.Generator().manual_seed(5)) * 1.5 + 0.3


@pytest.mark.parametrize("case", PUBLISHED)
def test_equal_to_the_formats_own_encode_and_decode(case: str, tmp_path: Path) -> None:
    name, make = PUBLISHED[case]
    published = make(tmp_path)
    found = interop.read(published.source, published.hints)
    assert found.format == name == interop.detect(published.source)
    backbone = found.cfg.backbone
    assert (backbone.id, backbone.layer, backbone.tokens) == published.place
    sae = SparseAutoencoder._from_weights(found.cfg, found.tensors)
    latents = published.encode(X)
    assert 0.02 < float((latents != 0).float().mean()) < 0.98
    torch.testing.assert_close(sae.encode(X), latents, atol=1e-4, rtol=1e-4)
    assert torch.equal(sae.encode(X) != 0, latents != 0)
    torch.testing.assert_close(sae(X), published.decode(latents, X), atol=1e-3, rtol=1e-4)
    sparse = sae.encode_sparse(X)
    torch.testing.assert_close(sae.decode(sparse, like=X), sae(X), atol=1e-4, rtol=1e-4)
    sae.save_pretrained(tmp_path / "ours")
    again = SparseAutoencoder.from_pretrained(tmp_path / "ours")
    assert again.cfg == found.cfg
    assert torch.equal(again.encode(X), sae.encode(X))
