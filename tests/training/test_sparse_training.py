"""Whole training curves of the top-k family against a dense autograd reference."""

import copy
import tracemalloc

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from tests.training.kernel_kinds import KINDS, use
from training.loop import objectives
from training.loop.objectives import Objective, objective_for
from training.loop.weights import TrainableSAE, Update

D_IN, D_SAE, N, K, STEPS = 8, 24, 30, 3, 25
GROUPS = (3, 8, 13)


def weights(dtype: torch.dtype = torch.float64) -> TrainableSAE:
    return TrainableSAE("topk", D_IN, D_SAE, seed=0).to(dtype)


def batch(step: int) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(N, D_IN, generator=generator, dtype=torch.float64) + 0.3


def dead_latents() -> Tensor:
    return torch.arange(D_SAE) % 4 == 1


def dense_loss(w: TrainableSAE, architecture: str, x: Tensor, dead: Tensor, aux: float) -> Tensor:
    """The losses, written with dense arrays and plain autograd."""
    h = (x - w.b_dec) @ w.W_enc + w.b_enc
    per_token = architecture == "topk"
    bar = h.topk(K, dim=1).values[:, -1:] if per_token else h.flatten().topk(K * N).values[-1]
    latents = h.relu() * (h >= bar)
    ends = torch.tensor(GROUPS).cumsum(0).tolist() if architecture == "matryoshka" else [D_SAE]
    levels = [latents[:, :end] @ w.W_dec[:end] + w.b_dec for end in ends]
    loss = sum((x - level).square().sum(1).mean() for level in levels) / len(ends) ** 2
    n = min(D_IN // 2, int(dead.sum()))
    hidden = h.masked_fill(~dead, -torch.inf)
    revived = hidden.relu() * (hidden >= hidden.topk(n, dim=1).values[:, -1:])
    rest = (x - levels[-1]).detach()
    missed = (revived @ w.W_dec - rest).square().sum(1).mean()
    return loss + aux * missed / (rest - rest.mean(0)).square().sum(1).mean()


def dense_curve(w: TrainableSAE, architecture: str, n_steps: int) -> list[float]:
    adam, losses = torch.optim.Adam(w.parameters(), lr=0.01), []
    for step in range(n_steps):
        x = batch(step).to(w.W_dec.dtype)
        loss = dense_loss(w, architecture, x, dead_latents(), 0.3)
        adam.zero_grad()
        loss.backward()
        w.remove_parallel_gradient()
        torch.nn.utils.clip_grad_norm_(w.parameters(), 1.0)
        adam.step()
        w.normalise_decoder()
        losses.append(float(loss.detach()))
    return losses


def objective_of(w: TrainableSAE, architecture: str, **options: object) -> Objective:
    groups = GROUPS if architecture == "matryoshka" else None
    return objective_for(w, architecture, k=K, groups=groups, **options)


def check_curves(
    architecture: str, *, screen: bool, n_steps: int, dtype: torch.dtype, tolerance: float
) -> None:
    """Losses and final weights of a run with AuxK at work, against dense arrays and autograd."""
    w = weights(dtype)
    expected_w = copy.deepcopy(w)
    expected = dense_curve(expected_w, architecture, n_steps)
    objective, update, losses = objective_of(w, architecture, aux=0.3, screen=screen), Update(w), []
    for step in range(n_steps):
        out = objective(batch(step).to(dtype), dead_latents())
        out.loss.backward()
        update.step(0.01)
        losses.append(float(out.loss.detach()))
    assert losses == pytest.approx(expected, rel=tolerance)
    for (name, p), q in zip(w.named_parameters(), expected_w.named_parameters(), strict=True):
        torch.testing.assert_close(p, q[1], rtol=10 * tolerance, atol=tolerance, msg=name)
    assert n_steps < STEPS or losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("architecture", ["topk", "batch_topk", "matryoshka"])
@pytest.mark.parametrize(
    ("kind", "screen"), [("plain", False), ("plain", True), ("compiled", False), ("compiled", True)]
)
@pytest.mark.parametrize("crowded", [0, 10])
def test_curves_equal_dense_autograd(
    kind: str, screen: bool, architecture: str, crowded: int, monkeypatch
) -> None:
    use(kind, monkeypatch)
    monkeypatch.setattr(objectives, "CROWDED", crowded)
    check_curves(architecture, screen=screen, n_steps=STEPS, dtype=torch.float64, tolerance=1e-9)


@pytest.mark.parametrize("crowded", [0, 10])
@pytest.mark.parametrize("architecture", ["topk", "batch_topk", "matryoshka"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_dense_product_and_no_large_array(
    kind: str, architecture: str, crowded: int, monkeypatch
) -> None:
    use(kind, monkeypatch)
    monkeypatch.setattr(objectives, "CROWDED", crowded)
    tokens, d_in, d_sae, k = 256, 32, 512, 24
    w = TrainableSAE("topk", d_in, d_sae, seed=0)
    groups = (64, 128, 320) if architecture == "matryoshka" else None
    x, dead = torch.randn(tokens, d_in), torch.zeros(d_sae, dtype=torch.bool)
    objective = objective_for(w, architecture, k=k, aux=0.3, groups=groups)
    encoder = 2 * tokens * d_in * d_sae
    for n_dead in (0, d_in // 4):
        dead[:n_dead] = True
        objective(x, dead).loss.backward()  # loops are compiled, buffers made
        made = LargestArray()
        tracemalloc.start()
        with made, FlopCounterMode(display=False) as forward:
            loss = objective(x, dead).loss
        with made, FlopCounterMode(display=False) as backward:
            loss.backward()
        _, by_numpy = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        crowd = 2 * tokens * d_in * n_dead
        # the dead latents' part is dense only where they are few
        assert encoder <= forward.get_total_flops() <= encoder + 2 * crowd
        assert backward.get_total_flops() <= 3 * crowd
        assert made.n < tokens * k * d_in
        assert by_numpy < 4 * tokens * k * d_in


class LargestArray(TorchDispatchMode):
    """Counts the numbers of the largest tensor that any operation gives."""

    n = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        stored = [t.untyped_storage().nbytes() // t.element_size() for t in tensors]
        self.n = max([self.n, *stored])
        return out


@pytest.mark.parametrize("architecture", ["topk", "batch_topk", "matryoshka"])
@pytest.mark.parametrize("kind", KINDS)
def test_objectives_match_finite_differences(kind: str, architecture: str, monkeypatch) -> None:
    use(kind, monkeypatch)
    w = weights()
    objective = objective_of(w, architecture, screen=kind == "compiled")
    names = [name for name, _ in w.named_parameters()]

    def loss(*values: Tensor) -> Tensor:
        given = {f"weights.{name}": value for name, value in zip(names, values, strict=True)}
        arguments = batch(0)[:6], torch.zeros(D_SAE, dtype=torch.bool)
        return torch.func.functional_call(objective, given, arguments).loss

    assert torch.autograd.gradcheck(loss, [p.detach().requires_grad_() for p in w.parameters()])


def test_bfloat16_selection_says_how_often_it_differs() -> None:
    objective = objective_for(weights().float(), "topk", k=K, select_dtype=torch.bfloat16)
    assert objective.differing is None
    out = objective(batch(0).float(), dead_latents())
    out.loss.backward()
    assert 0 <= objective.differing < 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_the_same_bits_again(kind: str, monkeypatch) -> None:
    use(kind, monkeypatch)

    def two_steps(threads: int) -> list[Tensor]:
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        w = weights().float()
        objective, update = objective_for(w, "batch_topk", k=K, aux=0.3), Update(w)
        for step in range(2):
            objective(batch(step).float(), dead_latents()).loss.backward()
            update.step(0.01)
        return [p.detach().clone() for p in w.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(two_steps(1), two_steps(2), strict=True))
