"""Encoding and decoding: known answers, and the equalities every architecture must keep."""

import dataclasses

import pytest
import torch

from sae.config import INPUT_NORMS, NEGATIVES, BackboneRef, SAEConfig
from sae.model import SparseAutoencoder, SparseLatents
from tests.tiny_saes import ARCHITECTURES, tiny_sae


def by_hand(architecture: str, **fields: object) -> SparseAutoencoder:
    """d_in 2, d_sae 3: latents read x0, x1 and x0 + x1 of x - (1, 1)."""
    cfg = SAEConfig(architecture, 2, 3, BackboneRef("bundled", 4), **fields)
    sae = SparseAutoencoder(cfg)
    with torch.no_grad():
        sae.W_enc.copy_(torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]))
        sae.W_dec.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]))
        sae.b_enc.copy_(torch.tensor([0.0, 0.0, -1.0]))
        sae.b_dec.copy_(torch.tensor([1.0, 1.0]))
        if architecture == "jumprelu":
            sae.threshold.copy_(torch.tensor([2.5, 0.0, 3.0]))
    return sae


@pytest.mark.parametrize(
    ("architecture", "fields", "latents"),
    [
        ("relu", {}, [[2.0, 3.0, 4.0], [0.0, 1.0, 0.0]]),
        ("topk", {"k": 1}, [[0.0, 0.0, 4.0], [0.0, 1.0, 0.0]]),
        ("topk", {"k": 2}, [[0.0, 3.0, 4.0], [0.0, 1.0, 0.0]]),
        ("batch_topk", {"k": 1, "threshold": 2.0}, [[0.0, 3.0, 4.0], [0.0, 0.0, 0.0]]),
        ("batch_topk", {"k": 1, "threshold": -1.0}, [[2.0, 3.0, 4.0], [0.0, 1.0, 0.0]]),
        (
            "matryoshka",
            {"k": 1, "threshold": 2.0, "group_sizes": (1, 2)},
            [[0.0, 3.0, 4.0], [0.0, 0.0, 0.0]],
        ),
        ("jumprelu", {}, [[0.0, 3.0, 4.0], [0.0, 1.0, 0.0]]),
    ],
)
def test_known_answers(architecture: str, fields: dict, latents: list) -> None:
    sae = by_hand(architecture, **fields)
    x = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    expected = torch.tensor(latents)
    assert torch.equal(sae.encode(x), expected)
    assert torch.equal(sae(x), expected @ sae.W_dec + sae.b_dec)


def test_sparse_latents_are_sorted_and_padded_with_zeros() -> None:
    found = by_hand("relu").encode_sparse(torch.tensor([[3.0, 4.0], [0.0, 2.0]]))
    assert found.values.tolist() == [[4.0, 3.0, 2.0], [1.0, 0.0, 0.0]]
    assert found.indices.tolist() == [[2, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("shape", [(16,), (7, 16), (2, 3, 16), (0, 16)])
def test_sparse_and_dense_agree(architecture: str, shape: tuple[int, ...]) -> None:
    sae = tiny_sae(architecture)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    dense, sparse = sae.encode(x), sae.encode_sparse(x)
    assert dense.shape == (*shape[:-1], 40)
    assert sparse.values.shape == sparse.indices.shape
    assert sparse.indices.dtype == torch.int64
    rebuilt = torch.zeros_like(dense).scatter_add(-1, sparse.indices, sparse.values)
    assert torch.equal(rebuilt, dense)
    assert bool((sparse.values.diff(dim=-1) <= 0).all())
    assert bool((sparse.indices[sparse.values == 0] == 0).all())
    torch.testing.assert_close(sae.decode(sparse), sae.decode(dense))
    torch.testing.assert_close(sae(x), sae.decode(dense))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_chunks_change_nothing(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sae = tiny_sae(architecture)
    x = torch.randn(70, 16, generator=torch.Generator().manual_seed(1))
    whole = sae.encode_sparse(x)
    monkeypatch.setattr("sae.sparse.CHUNK_ELEMENTS", 1)
    for one, other in zip(whole, sae.encode_sparse(x), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_max_active_keeps_the_strongest(architecture: str) -> None:
    sae = tiny_sae(architecture)
    x = torch.randn(9, 16, generator=torch.Generator().manual_seed(1))
    every, two = sae.encode_sparse(x), sae.encode_sparse(x, max_active=2)
    assert torch.equal(two.values, every.values[:, :2])
    assert torch.equal(two.indices, every.indices[:, :2])
    assert sae.encode_sparse(x, max_active=1000).values.shape == every.values.shape


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradients_reach_the_input_and_every_weight(architecture: str) -> None:
    sae = tiny_sae(architecture).double()
    x = torch.randn(5, 16, generator=torch.Generator().manual_seed(1)).double().requires_grad_()
    sae(x).square().sum().backward()
    dense_grad, x.grad = x.grad, None
    sae.decode(sae.encode(x)).square().sum().backward()
    torch.testing.assert_close(x.grad, dense_grad)
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        assert sae.get_parameter(name).grad.abs().sum() > 0


def test_other_dtypes_are_converted() -> None:
    sae = tiny_sae("topk")
    assert sae.encode(torch.randn(3, 16, dtype=torch.float16)).dtype == torch.float32
    assert sae.bfloat16()(torch.randn(3, 16)).dtype == torch.bfloat16


@pytest.mark.parametrize("call", ["encode", "encode_sparse", "forward"])
def test_wrong_width_says_both_and_names_the_backbone(call: str) -> None:
    with pytest.raises(ValueError, match=r"d_in=16, got shape \(2, 17\).*'bundled'"):
        getattr(tiny_sae("relu"), call)(torch.zeros(2, 17))


def test_decode_refuses_wrong_latents() -> None:
    sae = tiny_sae("relu")
    with pytest.raises(ValueError, match=r"d_sae=40, got shape \(2, 41\)"):
        sae.decode(torch.zeros(2, 41))
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 4\)"):
        sae.decode(SparseLatents(torch.zeros(2, 3), torch.zeros(2, 4, dtype=torch.long)))
    with pytest.raises(ValueError, match="max_active must be at least 1, got 0"):
        sae.encode_sparse(torch.zeros(2, 16), max_active=0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"architecture": "gated"}, "architecture must be one of"),
        ({"architecture": "topk"}, "needs 1 <= k <= d_sae=8, got k=None"),
        ({"architecture": "topk", "k": 9}, "got k=9"),
        ({"architecture": "relu", "k": 3}, "k means nothing for relu"),
        ({"architecture": "batch_topk", "k": 3}, "needs a finite scalar threshold, got None"),
        ({"architecture": "jumprelu", "threshold": 0.1}, "means nothing for jumprelu"),
        ({"architecture": "relu", "group_sizes": (8,)}, "group_sizes mean nothing"),
        (
            {"architecture": "matryoshka", "k": 1, "threshold": 0.1, "group_sizes": (4, 5)},
            "summing to d_sae=8",
        ),
        ({"architecture": "relu", "d_in": 0}, "must be positive"),
        ({"architecture": "relu", "format": 2}, "update PatchLens"),
    ],
)
def test_inconsistent_configs_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SAEConfig(**{"d_in": 4, "d_sae": 8, "backbone": BackboneRef("bundled", 0), **fields})


@pytest.mark.parametrize(
    ("fields", "message"), [({"id": ""}, "is empty"), ({"tokens": "some"}, "one of")]
)
def test_inconsistent_backbones_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BackboneRef(**{"id": "bundled", "layer": 0, **fields})


KINDS = [
    (architecture, norm, negative, dtype)
    for architecture in ARCHITECTURES
    for norm in INPUT_NORMS
    for negative in (NEGATIVES if architecture == "topk" else ("zero",))
    for dtype in (torch.float32, torch.float16, torch.bfloat16)
]


def of_kind(kind: tuple) -> SparseAutoencoder:
    architecture, norm, negative, dtype = kind
    made = tiny_sae(architecture)
    made.cfg = dataclasses.replace(made.cfg, input_norm=norm, negative=negative)
    return made.to(dtype)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_never_no_concept(kind: tuple, number: float) -> None:
    made = of_kind(kind)
    x = torch.randn(3, 7, 16, generator=torch.Generator().manual_seed(2))
    latents = made.encode_sparse(x)
    dense = made.encode(x)
    broken = x.clone()
    broken[1, 4, 5] = number
    said = (
        r"activations of shape \(3, 7, 16\) hold (NaN|infinity) at \[1, 4, 5\].*layer 4 of bundled"
    )
    for use in (made.encode, made.encode_sparse, made, lambda x: made.encode_sparse(x, 2)):
        with pytest.raises(ValueError, match=said):
            use(broken)
    values = latents.values.clone()
    values[2, 3, 0] = number
    dense = dense.clone()
    dense[2, 3, 0] = number
    for wrong in (latents._replace(values=values), dense):
        with pytest.raises(ValueError, match=r"latents of shape .* at \[2, 3, 0\]"):
            made.decode(wrong, like=x)
    if kind[1] != "none":
        with pytest.raises(ValueError, match=said):
            made.decode(latents, like=broken)
    if kind[1] != "layer_norm":  # torch warns of a deviation of nothing
        assert made.encode_sparse(x[:0]).values.shape[0] == 0


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("size", [1e3, 6e4, 1e6, 1e20, 3e38])
def test_large_activations_have_their_latents_or_an_error(kind: tuple, size: float) -> None:
    """In whatever dtype: what fires in float64 fires, or it is told."""
    made, wide = of_kind(kind), of_kind((*kind[:3], torch.float64))
    wide.load_state_dict({name: value.double() for name, value in made.state_dict().items()})
    x = torch.randn(20, 16, generator=torch.Generator().manual_seed(3))
    x = (x / x.abs().max() * size).to(torch.bfloat16).float()
    refused = None
    try:
        found = made.encode(x).double()
        decoded = made.decode(made.encode_sparse(x), like=x)
    except ValueError as error:
        refused = str(error)
    if refused is not None:
        assert "overflow" in refused
        assert size > (1e3 if kind[3] == torch.float16 else 1e15)
        return
    assert found.isfinite().all()
    assert decoded.isfinite().all()
    exact = wide.encode(x.double())
    strong = exact.abs() > 0.5 * exact.abs().amax()
    torch.testing.assert_close(found[strong], exact[strong], rtol=0.1, atol=0.0)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind[1] != "none"], ids=str)
def test_a_token_of_zeros_stays_one(kind: tuple) -> None:
    made = of_kind(kind)
    zeros = torch.zeros(2, 16)
    latents = made.encode_sparse(zeros)
    assert latents.values.isfinite().all()
    dense = made.encode(zeros)
    h = (-made.b_dec.float()) @ made.W_enc.float() + made.b_enc.float()
    above = dense[0].float() > 0
    torch.testing.assert_close(dense[0].float()[above], h[above], rtol=0.05, atol=0.05)
    assert made.decode(latents, like=zeros).tolist() == zeros.tolist()
    assert made(zeros).tolist() == zeros.tolist()
