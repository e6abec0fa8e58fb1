"""Losses and their gradients against a dense reference, and the choice of latents."""

import math

import pytest
import torch
from torch import Tensor

from training.loop.objectives import BANDWIDTH, THRESHOLD_GAIN, ghost_errors, objective_for
from training.loop.selection import largest_of_batch
from training.loop.weights import TrainableSAE

D_IN, D_SAE, N, K = 8, 24, 30, 3
GROUPS = (3, 8, 13)


def weights(architecture: str) -> TrainableSAE:
    made = TrainableSAE(architecture, D_IN, D_SAE, seed=0).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(noise, alpha=0.1)
    return made


def activations() -> Tensor:
    return torch.randn(N, D_IN, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def dead_latents(n: int) -> Tensor:
    dead = torch.zeros(D_SAE, dtype=torch.bool)
    dead[torch.randperm(D_SAE, generator=torch.Generator().manual_seed(3))[:n]] = True
    return dead


def dense_loss(w: TrainableSAE, architecture: str, x: Tensor, dead: Tensor, aux: float) -> Tensor:
    """The same losses, written with dense arrays and plain autograd."""
    h = (x - w.b_dec) @ w.W_enc + w.b_enc
    bar = h.flatten().topk(K * N).values[-1]
    if architecture == "topk":
        bar = h.topk(K, dim=1).values[:, -1:]
    latents = h.relu() * (h >= bar)
    if architecture == "matryoshka":
        ends = torch.tensor(GROUPS).cumsum(0).tolist()
        levels = [latents[:, :end] @ w.W_dec[:end] + w.b_dec for end in ends]
        loss = sum((x - level).square().sum(1).mean() for level in levels) / len(GROUPS) ** 2
    else:
        levels = [latents @ w.W_dec + w.b_dec]
        loss = (x - levels[0]).square().sum(1).mean()
    n = min(D_IN // 2, int(dead.sum()))
    if n:
        hidden = h.masked_fill(~dead, -torch.inf)
        revived = hidden.relu() * (hidden >= hidden.topk(n, dim=1).values[:, -1:])
        rest = (x - levels[-1]).detach()
        missed = (revived @ w.W_dec - rest).square().sum(1).mean()
        loss = loss + aux * missed / (rest - rest.mean(0)).square().sum(1).mean()
    return loss


@pytest.mark.parametrize("n_dead", [0, 2, 9])
@pytest.mark.parametrize("architecture", ["topk", "batch_topk", "matryoshka"])
def test_sparse_losses_and_gradients_equal_the_dense_ones(architecture: str, n_dead: int) -> None:
    w, x, dead = weights(architecture), activations(), dead_latents(n_dead)
    groups = GROUPS if architecture == "matryoshka" else None
    out = objective_for(w, architecture, k=K, aux=0.3, groups=groups)(x, dead)
    out.loss.backward()
    found = {name: p.grad.clone() for name, p in w.named_parameters()}
    w.zero_grad()
    expected = dense_loss(w, architecture, x, dead, 0.3)
    expected.backward()
    torch.testing.assert_close(out.loss, expected)
    for name, parameter in w.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, msg=name)


def test_what_a_step_reports() -> None:
    w, x = weights("batch_topk"), activations()
    out = objective_for(w, "batch_topk", k=K)(x, dead_latents(0))
    h = ((x - w.b_dec) @ w.W_enc + w.b_enc).detach()
    kept = h.flatten().topk(K * N).values
    assert int(out.n_active) == K * N
    assert float(out.smallest) == pytest.approx(float(kept[-1]), rel=1e-12)
    bar = kept[-1] * (1 - 1e-12)  # sums may be formed in another order
    assert torch.equal(out.fired, (h >= bar).any(0))
    latents = h * (h >= bar)
    error = (x - latents @ w.W_dec - w.b_dec).square().sum()
    assert float(out.squared_error) == pytest.approx(float(error.detach()))


def test_relu_pays_for_the_sum_of_its_latents() -> None:
    w, x = weights("relu"), activations()
    out = objective_for(w, "relu", k=K, l1=0.5)(x, dead_latents(0))
    with torch.no_grad():
        latents = ((x - w.b_dec) @ w.W_enc + w.b_enc).relu()
        error = (x - latents @ w.W_dec - w.b_dec).square().sum(1).mean()
        expected = error + 0.5 * latents.sum(1).mean()
    torch.testing.assert_close(out.loss.detach(), expected)


def test_jumprelu_thresholds_learn_through_the_window() -> None:
    w, x = weights("jumprelu"), activations()
    with torch.no_grad():
        w.log_threshold.fill_(-2.0)
    theta = float(w.log_threshold.detach().exp()[0])
    out = objective_for(w, "jumprelu", k=K)(x, dead_latents(0))
    out.loss.backward()
    with torch.no_grad():
        h = (x - w.b_dec) @ w.W_enc + w.b_enc
        miss = (h * (h > theta)) @ w.W_dec + w.b_dec - x
    torch.testing.assert_close(out.loss.detach(), miss.square().sum(1).mean())
    near = (h - theta).abs() < BANDWIDTH / 2
    by_error = (2 / N * miss @ w.W_dec.T * -(theta / BANDWIDTH) * near).sum(0)
    assert near.any()
    torch.testing.assert_close(w.log_threshold.grad, (by_error * theta).detach())


def test_jumprelu_thresholds_move_together_towards_k() -> None:
    w, x = weights("jumprelu"), activations()
    objective = objective_for(w, "jumprelu", k=K)
    out, before = objective(x, dead_latents(0)), w.log_threshold.detach().clone()
    objective.after_update(out, N)
    l0 = float(out.n_active) / N
    moved = torch.full_like(before, THRESHOLD_GAIN * math.log(l0 / K))
    torch.testing.assert_close(w.log_threshold.detach() - before, moved)
    with torch.no_grad():
        w.log_threshold.fill_(9.0)
    objective.after_update(objective(x, dead_latents(0)), N)
    assert bool((w.log_threshold < 9.0).all()), "thresholds that nothing reaches must come down"


@pytest.mark.parametrize("n", [1, 17, 300])
@pytest.mark.parametrize("offset", [0.0, -2.5, 3.0])
def test_the_largest_of_a_batch_are_exact(n: int, offset: float) -> None:
    h = torch.randn(50, 40, generator=torch.Generator().manual_seed(n)) + offset
    values, entries = largest_of_batch(h, n)
    assert torch.equal(values, h[entries.tokens, entries.latents])
    kept = torch.zeros_like(h, dtype=torch.bool)
    kept[entries.tokens, entries.latents] = True
    expected = (h >= h.flatten().topk(n).values[-1]) & (h > 0)
    assert torch.equal(kept, expected)
    assert bool((entries.tokens.diff() >= 0).all())


def test_uneven_batches_are_exact_too() -> None:
    h = torch.rand(64, 40, generator=torch.Generator().manual_seed(0)) * 0.01
    h[33] = torch.arange(40) + 1.0
    _, entries = largest_of_batch(h, 20)
    assert set(entries.tokens.tolist()) == {33}
    assert sorted(entries.latents.tolist()) == list(range(20, 40))


def test_nothing_positive_gives_no_entries_and_still_trains() -> None:
    assert largest_of_batch(-torch.ones(4, 5), 3)[0].numel() == 0
    w = weights("batch_topk")
    with torch.no_grad():
        w.b_enc.fill_(-100.0)
    out = objective_for(w, "batch_topk", k=K)(activations(), dead_latents(0))
    out.loss.backward()
    assert int(out.n_active) == 0
    assert not out.fired.any()
    assert w.b_dec.grad.abs().sum() > 0


def test_jumprelu_revives_dead_latents_as_auxk_does() -> None:
    w, x, dead = weights("jumprelu"), activations(), dead_latents(9)
    with torch.no_grad():
        w.log_threshold.fill_(-2.0)
    out = objective_for(w, "jumprelu", k=K, aux=0.3)(x, dead)
    out.loss.backward()
    plain = objective_for(w, "jumprelu", k=K)(x, dead)
    h = ((x - w.b_dec) @ w.W_enc + w.b_enc).detach()
    x_hat = (h * (h > w.log_threshold.exp()).detach()) @ w.W_dec + w.b_dec
    rest = (x - x_hat).detach()
    hidden = h.masked_fill(~dead, -torch.inf)
    revived = hidden.relu() * (hidden >= hidden.topk(D_IN // 2, dim=1).values[:, -1:])
    missed = (revived @ w.W_dec - rest).square().sum(1).mean()
    expected = 0.3 * missed / (rest - rest.mean(0)).square().sum(1).mean()
    torch.testing.assert_close((out.loss - plain.loss).detach(), expected.detach())
    assert bool((w.W_enc.grad[:, dead].abs().sum(0) > 0).all())


def test_ghosts_do_not_inherit_the_weight_of_cls_tokens() -> None:
    w, x, dead = weights("relu"), activations(), dead_latents(9)
    cls = torch.arange(N) % 3 == 0
    terms = {"k": K, "by_norm": True, "mse_cls": 5.0}
    plain = objective_for(w, "relu", **terms)(x, dead, cls)
    haunted = objective_for(w, "relu", **terms, ghost=True)(x, dead, cls)
    with torch.no_grad():
        h = (x - w.b_dec) @ w.W_enc + w.b_enc
        left = x - h.relu() @ w.W_dec - w.b_dec
        unweighted = left.square() / x.norm(dim=1, keepdim=True)
        ghosts = ghost_errors(left, h[:, dead], w.W_dec[dead], unweighted)
    torch.testing.assert_close((haunted.loss - plain.loss).detach(), ghosts.mean())
