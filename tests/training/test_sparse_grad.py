"""The hand-written gradients of sparse reconstructions against finite differences."""

import pytest
import torch

from tests.training.kernel_kinds import KINDS, use
from training.kernels.sparse_grad import Entries, reconstruct, reconstruct_crowded, weighted_loss

TOKENS, D_IN, D_SAE = 6, 5, 9


def weights() -> list[torch.Tensor]:
    """W_enc, b_enc, W_dec, b_dec."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(D_IN, D_SAE), (D_SAE,), (D_SAE, D_IN), (D_IN,)]
    return [
        torch.randn(s, generator=generator, dtype=torch.float64, requires_grad=True) for s in shapes
    ]


def entries(which: str) -> Entries:
    """Ragged: token 0 has three entries, 1 none, 2 one, 5 two; latent 4 occurs twice."""
    tokens, latents = torch.tensor([[0, 0, 0, 2, 5, 5], [4, 1, 8, 4, 0, 3]])
    if which == "empty":
        tokens, latents = tokens[:0], latents[:0]
    return Entries.from_tokens(tokens, latents, TOKENS, D_SAE)


def activations() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(TOKENS, D_IN, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("ends", [(9,), (2, 4, 9)])
@pytest.mark.parametrize("which", ["ragged", "empty"])
@pytest.mark.parametrize("kind", KINDS)
def test_losses_match_finite_differences(kind: str, which: str, ends, monkeypatch) -> None:
    use(kind, monkeypatch)
    x, some, rest = activations(), entries(which), torch.ones(TOKENS, D_IN, dtype=torch.float64)
    crowd = torch.tensor([1, 4, 6])

    def loss(W_enc, b_enc, W_dec, b_dec):
        given, weight = (x - b_dec).detach(), torch.tensor(0.3, dtype=torch.float64)
        full = torch.addmm(b_enc, given, W_enc).detach()
        h = full[some.tokens, some.latents]
        main = reconstruct(given, W_dec, some, h, ends)
        others = [(reconstruct(rest, W_dec, some, h), weight)]
        others += [(reconstruct_crowded(rest, W_dec, crowd, full[:, crowd]), weight)]
        return weighted_loss(main, 0.7, others, given, W_enc, b_enc, W_dec, b_dec)

    assert torch.autograd.gradcheck(loss, weights())


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_left_of_the_target(kind: str, monkeypatch) -> None:
    use(kind, monkeypatch)
    W_dec, some = torch.eye(3), Entries.from_indices(torch.tensor([[0, 2]]), 3)
    found = reconstruct(torch.tensor([[1.0, 2.0, 3.0]]), W_dec, some, torch.tensor([0.5, -1.0]))
    assert found.residual.tolist() == [[0.5, 2.0, 3.0]]
    assert found.residuals.squares.tolist() == [0.25 + 4 + 9]
