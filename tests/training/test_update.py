"""The optimiser's step against torch's own Adam, clipping and normalisation."""

import pytest
import torch

from tests.training.kernel_kinds import KINDS, use
from training.loop.weights import TrainableSAE, Update


def weights(dtype: torch.dtype = torch.float64) -> TrainableSAE:
    return TrainableSAE("jumprelu", 6, 10, seed=0).to(dtype)


def give_gradients(w: TrainableSAE, size: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for p in w.parameters():
        p.grad = torch.empty_like(p).copy_(torch.randn(p.shape, generator=generator) * size)


def reference(w: TrainableSAE, max_norm: float, sizes: list[float]) -> None:
    adam = torch.optim.Adam(w.parameters(), lr=0.01)
    for seed, size in enumerate(sizes):
        give_gradients(w, size, seed)
        rows, grad = w.W_dec.detach(), w.W_dec.grad
        grad -= (grad * rows).sum(1, keepdim=True) * rows
        if max_norm:
            torch.nn.utils.clip_grad_norm_(w.parameters(), max_norm)
        adam.step()
        with torch.no_grad():
            w.W_dec /= w.W_dec.norm(dim=1, keepdim=True)


def check_steps(max_norm: float, dtype: torch.dtype, tolerance: float) -> None:
    """Four steps of Update against torch's Adam on the same gradients."""
    sizes = [5.0, 0.001, 1.0, 0.01]
    w, expected = weights(dtype), weights(dtype)
    reference(expected, max_norm, sizes)
    update = Update(w, max_norm=max_norm)
    for seed, size in enumerate(sizes):
        give_gradients(w, size, seed)
        update.step(0.01)
        assert all(p.grad is None for p in w.parameters())
    for (name, p), q in zip(w.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize("max_norm", [1.0, 0.0])
@pytest.mark.parametrize("kind", KINDS)
def test_steps_equal_torch_adam(kind: str, max_norm: float, monkeypatch) -> None:
    use(kind, monkeypatch)
    check_steps(max_norm, torch.float64, 1e-12)


def test_state_moves_between_kernels_and_goes_on_alike(monkeypatch) -> None:
    use("compiled", monkeypatch)
    w, again = weights(), weights()
    update = Update(w)
    give_gradients(w, 1.0, 0)
    update.step(0.01)
    saved = {name: tensor.clone() for name, tensor in update.state().items()}
    again.load_state_dict(w.state_dict())
    use("plain", monkeypatch)
    resumed = Update(again)
    resumed.load(saved)
    give_gradients(again, 1.0, 1)
    resumed.step(0.01)
    use("compiled", monkeypatch)
    give_gradients(w, 1.0, 1)
    update.step(0.01)
    assert set(resumed.state()) == set(update.state())
    for p, q in zip(w.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_gradient_that_is_not_finite_reaches_the_weights(kind: str, monkeypatch) -> None:
    use(kind, monkeypatch)
    w = weights()
    give_gradients(w, 1.0, 0)
    w.b_enc.grad[0] = torch.nan
    Update(w).step(0.01)
    assert w.W_dec.isnan().all()
