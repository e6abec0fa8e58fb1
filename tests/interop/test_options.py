"""The two options that SAEs of other libraries need: known answers, strict files, honest errors."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from sae.config import BackboneRef, SAEConfig
from sae.errors import ArtifactError
from sae.model import SparseAutoencoder
from tests.tiny_saes import ARCHITECTURES, tiny_sae

X = torch.randn(3, 7, 16, generator=torch.Generator().manual_seed(1))


def identity(**options: object) -> SparseAutoencoder:
    """latents = h = x, x_hat = latents, on four dimensions."""
    cfg = SAEConfig("topk", 4, 4, BackboneRef("bundled", 0), k=2, **options)
    sae = SparseAutoencoder(cfg)
    with torch.no_grad():
        sae.W_enc.copy_(torch.eye(4))
        sae.W_dec.copy_(torch.eye(4))
    return sae


@pytest.mark.parametrize(
    ("negative", "expected"),
    [("zero", [0, 0, 1, 0]), ("keep", [0, -2, 1, 0]), ("rank", [-4, 0, 0, -3])],
)
def test_what_topk_does_with_negative_values(negative: str, expected: list[float]) -> None:
    x = torch.tensor([[-4.0, -2.0, 1.0, -3.0]])
    sae = identity(negative=negative)
    assert sae.encode(x).tolist() == [expected]
    values, indices = sae.encode_sparse(x)
    assert torch.zeros(1, 4).scatter_add(1, indices, values).tolist() == [expected]
    assert torch.equal(sae(x), sae.encode(x))
    strongest = sae.encode_sparse(x, max_active=1)
    assert strongest.values.shape == (1, 1)


def test_each_token_is_normalised_and_put_back() -> None:
    x = torch.tensor([[1.0, 3.0, 5.0, 7.0]])
    std = (20 / 3) ** 0.5
    normed = [0.0, 0.0, 1 / (std + 1e-5), 3 / (std + 1e-5)]
    sae = identity(input_norm="layer_norm")
    assert sae.encode(x)[0].tolist() == pytest.approx(normed)
    assert sae(x)[0].tolist() == pytest.approx([v * std + 4 for v in normed])
    sae = identity(input_norm="constant_norm")
    size = 84**0.5 / 2
    assert sae.encode(x)[0].tolist() == pytest.approx([0, 0, 5 / size, 7 / size])
    assert sae(x)[0].tolist() == pytest.approx([0, 0, 5, 7])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sparse_and_dense_agree_with_every_architecture(architecture: str) -> None:
    sae = tiny_sae(architecture)
    sae.cfg = dataclasses.replace(sae.cfg, input_norm="layer_norm")
    sparse, dense = sae.encode_sparse(X), sae.encode(X)
    torch.testing.assert_close(sae.decode(sparse, like=X), sae.decode(dense, like=X))
    torch.testing.assert_close(sae(X), sae.decode(dense, like=X))


def test_decoding_without_the_token_is_refused() -> None:
    sae = identity(input_norm="layer_norm")
    with pytest.raises(
        ValueError, match=r"decode needs the activations .*decode\(latents, like=x\)"
    ):
        sae.decode(torch.zeros(1, 4))
    assert torch.equal(identity().decode(torch.zeros(1, 4)), torch.zeros(1, 4))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"input_norm": "layer_norm"}, {"normalize_activations": "layer_norm"}),
        ({"input_norm": "constant_norm"}, {"normalize_activations": "constant_norm_rescale"}),
        ({"negative": "rank"}, {"architecture": "abstopk"}),
        ({"negative": "keep"}, None),
    ],
)
def test_options_come_back_and_are_told_truly(
    options: dict, words: dict | None, tmp_path: Path
) -> None:
    identity().save_pretrained(tmp_path)
    assert not {"negative", "input_norm"} & set(json.loads((tmp_path / "config.json").read_text()))
    identity(**options).save_pretrained(tmp_path)
    assert SparseAutoencoder.from_pretrained(tmp_path).cfg == identity(**options).cfg
    path = tmp_path / "cfg.json"
    assert path.exists() == (words is not None), "SAELens has no words for keep"
    if words:
        assert json.loads(path.read_text()).items() >= words.items()


@pytest.mark.parametrize("change", [{"negative": 1}, {"negative": None}, {"input_norm": "rms"}])
def test_options_are_read_strictly(change: dict, tmp_path: Path) -> None:
    identity().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ArtifactError, match="config.json"):
        SparseAutoencoder.from_pretrained(tmp_path)
