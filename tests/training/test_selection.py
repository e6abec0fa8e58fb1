"""Latents found through bfloat16 against the largest of dense pre-activations in full precision."""

import pytest
import torch
from torch import Tensor

from tests.training.kernel_kinds import KINDS, use
from training.kernels.choosing import full_precision, largest_by_groups
from training.kernels.entries import Entries
from training.loop.selection import Encoder, Selection, largest_of_batch

TOKENS, D_IN, D_SAE = 40, 33, 200


def encoder(case: str, dtype: torch.dtype = torch.float64) -> Encoder:
    generator = torch.Generator().manual_seed(0)
    x, rows, bias = (
        torch.randn(s, generator=generator, dtype=torch.float64)
        for s in [(TOKENS, D_IN), (D_SAE, D_IN), (D_SAE,)]
    )
    if case == "near ties":  # pairs of latents which bfloat16 cannot tell apart
        rows[1::2] = rows[::2] + 3e-3 * torch.randn(D_SAE // 2, D_IN, generator=generator)
        bias[:] = 0
    elif case == "uneven":
        rows *= torch.logspace(-2, 2, D_SAE)[:, None]
        x *= torch.logspace(-2, 2, TOKENS)[:, None]
    elif case == "few positive":
        bias -= 14
    elif case == "massive":
        x[:, 3] += 300
    elif case == "zero":
        x[:] = 0
        bias[:] = 0
    return Encoder(x.to(dtype), rows.to(dtype), bias.to(dtype))


CASES = ["random", "near ties", "uneven", "few positive", "massive", "zero"]


def dense(given: Encoder) -> Tensor:
    return torch.addmm(given.bias, given.x, given.rows.t())


def as_dense(h: Tensor, entries: Entries) -> Tensor:
    """relu(h) at the entries, 0 elsewhere; every entry occurs once."""
    active = h > 0
    tokens, latents = entries.tokens[active], entries.latents[active]
    assert len(set(zip(tokens.tolist(), latents.tolist(), strict=True))) == len(tokens)
    code = torch.zeros(entries.n_tokens, entries.d_sae, dtype=h.dtype)
    return code.index_put((tokens, latents), h[active])


@pytest.mark.parametrize("k", [1, 5, 64])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_screened_topk_is_exact(kind: str, case: str, k: int, monkeypatch) -> None:
    use(kind, monkeypatch)
    given = encoder(case)
    h, entries = Selection(screen=True).of_tokens(given, k)
    full = dense(given)
    expected = full.relu() * (full >= full.topk(k, dim=1).values[:, -1:])
    torch.testing.assert_close(as_dense(h, entries), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("k", [1, 5, 64])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_screened_batch_topk_is_exact(kind: str, case: str, k: int, monkeypatch) -> None:
    use(kind, monkeypatch)
    given = encoder(case)
    h, entries = Selection(screen=True).of_batch(given, k)
    full = dense(given)
    expected = full.relu() * (full >= full.flatten().topk(k * TOKENS).values[-1])
    torch.testing.assert_close(as_dense(h, entries), expected, rtol=1e-12, atol=1e-12)
    assert (entries.tokens.diff() >= 0).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("choose", ["of_tokens", "of_batch"])
def test_bfloat16_chooses_by_rounded_values_and_computes_in_full(kind, choose, monkeypatch) -> None:
    use(kind, monkeypatch)
    given = encoder("random")
    h, entries = getattr(Selection(torch.bfloat16), choose)(given, 5)
    full = dense(given)
    torch.testing.assert_close(h, full[entries.tokens, entries.latents])
    bar = full.topk(5, dim=1).values[:, -1:] if choose == "of_tokens" else h.min()
    wrong = as_dense(h, entries).bool() != ((full >= bar) & (full > 0))
    assert wrong.float().mean() < 0.01
    assert len(h) == pytest.approx(5 * TOKENS, rel=0.05)


def test_bfloat16_differs_where_it_cannot_tell(monkeypatch) -> None:
    use("compiled", monkeypatch)
    given = encoder("near ties")
    exact = as_dense(*Selection(screen=True).of_tokens(given, 5)).bool()
    rounded = as_dense(*Selection(torch.bfloat16).of_tokens(given, 5)).bool()
    assert 0 < int((exact & ~rounded).sum()) < TOKENS


def test_nan_is_not_lost_and_does_not_crash(monkeypatch) -> None:
    use("compiled", monkeypatch)
    given = encoder("random")
    given.x[3, 3] = torch.nan
    h, entries = Selection(screen=True).of_tokens(given, 5)
    assert len(h) == 5 * TOKENS
    assert bool(((entries.latents >= 0) & (entries.latents < D_SAE)).all())
    Selection(screen=True).of_batch(given, 5)


def test_the_order_of_a_gpu_topk_in_groups_is_exact() -> None:
    h = torch.randn(7, 1024, generator=torch.Generator().manual_seed(0)).mul(4).round()
    values, latents = largest_by_groups(h, 5)
    assert torch.equal(values.sort(1).values, h.topk(5, dim=1).values.sort(1).values)
    assert torch.equal(h.gather(1, latents), values)
    assert all(len(set(row)) == 5 for row in latents.tolist())


def test_a_gpu_forgets_its_shortcuts_where_a_bound_counts_on_it() -> None:
    def flags() -> tuple[str, bool]:
        reduced = torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction
        return torch.get_float32_matmul_precision(), reduced

    before = flags()
    torch.set_float32_matmul_precision("high")
    try:
        with full_precision("cuda"):
            assert flags() == ("highest", False)
        assert flags() == ("high", before[1])
    finally:
        torch.set_float32_matmul_precision(before[0])


class TwoRanks:
    """Two processes in one: what the other one says is computed from its values here."""

    n = 2

    def __init__(self, other: Tensor) -> None:
        self.other = other

    def mean(self, value: Tensor) -> Tensor:
        return value

    def total(self, value: Tensor) -> Tensor:
        return value * 2

    def cutoff(self, values: Tensor, n: int) -> Tensor:
        return torch.cat([values, self.other]).topk(n).values[-1]


def test_ranks_share_one_cutoff() -> None:
    h = torch.rand(20, 30, generator=torch.Generator().manual_seed(0))
    mine, other = h[:10], h[10:]
    values, entries = largest_of_batch(mine, 40, TwoRanks(other.flatten()))
    bar = h.flatten().topk(80).values[-1]
    assert torch.equal(values, mine[entries.tokens, entries.latents])
    assert len(values) == int((mine >= bar).sum())
