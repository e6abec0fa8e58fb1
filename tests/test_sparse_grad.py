"""The hand-written gradients against finite differences and against dense autograd."""

import pytest
import torch

from sae.sparse_grad import Entries, decode_entries, preactivations_at

TOKENS, D_IN, D_SAE = 6, 5, 9


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"x": (TOKENS, D_IN), "W_enc": (D_IN, D_SAE), "b_enc": (D_SAE,), "b_dec": (D_IN,)}
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for name, shape in shapes.items()
    }


def ragged() -> Entries:
    """Token 0 has three entries, 1 none, 2 one, 5 two; latent 4 occurs twice."""
    return Entries(
        torch.tensor([0, 0, 0, 2, 5, 5]), torch.tensor([4, 1, 8, 4, 0, 3]), TOKENS, D_SAE
    )


def empty() -> Entries:
    return Entries(*torch.zeros(2, 0, dtype=torch.long), TOKENS, D_SAE)


@pytest.mark.parametrize("entries", [ragged(), empty()], ids=["ragged", "empty"])
def test_preactivations_match_finite_differences(entries: Entries) -> None:
    def values(x, W_enc, b_enc, b_dec):
        h = torch.addmm(b_enc, x - b_dec, W_enc).detach()
        chosen = h[entries.tokens, entries.latents]
        return preactivations_at(chosen, entries, x, W_enc, b_enc, b_dec)

    t = tensors()
    assert torch.autograd.gradcheck(values, (t["x"], t["W_enc"], t["b_enc"], t["b_dec"]))


@pytest.mark.parametrize("entries", [ragged(), empty()], ids=["ragged", "empty"])
def test_decoding_matches_finite_differences(entries: Entries) -> None:
    generator = torch.Generator().manual_seed(0)
    n = len(entries.tokens)
    values = torch.randn(n, generator=generator, dtype=torch.float64, requires_grad=True)
    W_dec = torch.randn(D_SAE, D_IN, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v, W: decode_entries(v, entries, W), (values, W_dec))


def test_no_gradient_is_computed_for_an_input_that_needs_none() -> None:
    t = tensors()
    x = t["x"].detach()
    h = torch.addmm(t["b_enc"], x - t["b_dec"], t["W_enc"]).detach()
    chosen = h[ragged().tokens, ragged().latents]
    preactivations_at(chosen, ragged(), x, t["W_enc"], t["b_enc"], t["b_dec"]).sum().backward()
    assert x.grad is None
    assert t["W_enc"].grad.abs().sum() > 0


def test_entries_of_topk_and_a_part_of_them() -> None:
    entries = Entries.from_indices(torch.tensor([[3, 1], [0, 3]]), 5)
    assert entries.tokens.tolist() == [0, 0, 1, 1]
    part = entries.where(entries.latents == 3)
    assert part.tokens.tolist() == [0, 1]
    rows = torch.tensor([[1.0], [10.0]])
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert entries.sum_by_latent(rows, weights).flatten().tolist() == [30, 2, 0, 41, 0]
