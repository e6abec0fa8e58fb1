"""Every kind of kernel against dense arrays, and the choice between the kinds."""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from training import kernels
from training.kernels import plain
from training.kernels.entries import Entries
from training.kernels.threads import share

TOKENS, D_IN, D_SAE = 6, 5, 9
TRITON = """
import torch
from training import kernels
from training.kernels import on_cuda
from tests.training import test_kernels, test_sparse_training, test_update
from training.loop import objectives

assert kernels.chosen(torch.zeros(1)) is on_cuda
on_cuda.SEGMENT = 2
for ends in test_kernels.ENDS:
    test_kernels.compare(on_cuda, test_kernels.ragged(), ends, torch.float32)
test_kernels.compare(on_cuda, test_kernels.empty(), (9,), torch.float32)
for max_norm in (1.0, 0.0):
    test_update.check_steps(max_norm, torch.float32, 1e-5)
how = {"screen": True, "n_steps": 2, "dtype": torch.float32, "tolerance": 1e-4}
objectives.CROWDED = 0  # AuxK by these kernels too
for architecture in ("topk", "batch_topk", "matryoshka"):
    test_sparse_training.check_curves(architecture, **how)
"""
ENDS = [(9,), (2, 4, 9)]


def ragged() -> Entries:
    """Token 0 has three entries, 1 none, 2 one, 5 two; latent 4 occurs three times."""
    tokens, latents = torch.tensor([0, 0, 0, 2, 3, 5, 5]), torch.tensor([4, 1, 8, 4, 4, 0, 3])
    return Entries.from_tokens(tokens, latents, TOKENS, D_SAE)


def empty() -> Entries:
    return Entries.from_tokens(*torch.zeros(2, 0, dtype=torch.long), TOKENS, D_SAE)


def compare(module: ModuleType, entries: Entries, ends: tuple[int, ...], dtype) -> None:
    """Every function of `module` against sums written with dense arrays."""
    generator = torch.Generator().manual_seed(0)
    n = len(entries.latents)
    shapes = [(TOKENS, D_IN), (D_SAE, D_IN), (TOKENS, D_IN), (n,), (n,)]
    target, rows, x, values, g = (torch.randn(s, generator=generator, dtype=dtype) for s in shapes)
    tokens, latents = entries.tokens, entries.latents
    torch.testing.assert_close(module.dots(x, rows, entries), (x[tokens] * rows[latents]).sum(1))

    code = torch.zeros(TOKENS, D_SAE, dtype=dtype).index_put((tokens, latents), values)
    left = torch.stack([target - code[:, :end] @ rows[:end] for end in ends])
    levels = left.flip(0).cumsum(0).flip(0)
    place = torch.bucketize(latents, torch.tensor(ends), right=True)
    along = (levels[place, tokens] * rows[latents]).sum(1)
    found = module.residuals(target, rows, entries, values, ends)
    for a, b in zip(found, (levels, along, left.square().sum((0, 2))), strict=True):
        torch.testing.assert_close(a, b)

    decoder = torch.zeros(D_SAE, D_IN, dtype=dtype)
    decoder.index_add_(0, latents, values[:, None] * levels[place, tokens])
    encoder = torch.zeros_like(decoder).index_add_(0, latents, g[:, None] * x[tokens])
    bias = torch.zeros(D_SAE, dtype=dtype).index_add_(0, latents, g)
    once = module.add_gradients(None, entries, values, g, levels, ends, x)
    for a, b in zip(once, (decoder, encoder, bias), strict=True):
        torch.testing.assert_close(a, b)
    twice = module.add_gradients(once, entries, values, g, levels, ends, x)
    for a, b in zip(twice, (decoder, encoder, bias), strict=True):
        torch.testing.assert_close(a, 2 * b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("entries", [ragged(), empty()], ids=["ragged", "empty"])
@pytest.mark.parametrize("kind", ["plain", "compiled"])
def test_cpu_kernels_equal_dense_sums(kind: str, entries: Entries, ends, dtype) -> None:
    module = plain
    if kind == "compiled":
        pytest.importorskip("numba")
        from training.kernels import compiled as module
    compare(module, entries, ends, dtype)


@pytest.mark.slow
def test_triton_kernels_train_as_dense_autograd_in_the_interpreter() -> None:
    pytest.importorskip("triton")
    environment = os.environ | {"TRITON_INTERPRET": "1", kernels.VARIABLE: "triton"}
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", TRITON], env=environment, cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_entries_of_topk_and_a_part_of_them() -> None:
    entries = Entries.from_indices(torch.tensor([[3, 1], [0, 3]]), 5)
    assert entries.tokens.tolist() == [0, 0, 1, 1]
    order, starts = entries.by_latent(plain.by_latent)
    assert entries.by_latent(plain.by_latent)[0] is order
    assert order.tolist() == [2, 1, 0, 3]
    assert starts.tolist() == [0, 1, 2, 2, 4, 4]
    assert Entries.from_indices(torch.tensor([[3, 1]]), 5).tokens.is_contiguous()
    part = entries.where(entries.latents == 3)
    assert part.tokens.tolist() == [0, 1]
    assert part.starts.tolist() == [0, 1, 2]


def test_which_kernels_serve_a_tensor(monkeypatch) -> None:
    pytest.importorskip("numba")
    assert kernels.chosen(torch.zeros(1)).__name__ == "training.kernels.compiled"
    assert kernels.chosen(torch.zeros(1, dtype=torch.bfloat16)) is plain
    monkeypatch.setenv(kernels.VARIABLE, "plain")
    assert kernels.chosen(torch.zeros(1)) is plain


def test_without_numba_torch_serves_and_it_is_said_once(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    for name in ("compiled", "loops", "screening"):
        monkeypatch.delitem(sys.modules, f"training.kernels.{name}", raising=False)
        monkeypatch.delattr(kernels, name, raising=False)
    kernels._compiled.cache_clear()
    try:
        with pytest.warns(UserWarning, match="pip install numba") as notes:
            served = [kernels.chosen(torch.zeros(1)) for _ in range(3)]
        assert served == [plain] * 3
        assert len(notes) == 1
    finally:
        kernels._compiled.cache_clear()


def test_loops_compile_where_nothing_can_be_kept(monkeypatch) -> None:
    numba = pytest.importorskip("numba")
    from training.kernels import loops

    compile_it = numba.njit

    def njit(*, cache: bool = False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return compile_it(**options)

    monkeypatch.setattr(numba, "njit", njit)
    assert loops.compiled(lambda number: number + 1)(2) == 3


@pytest.mark.parametrize("n_threads", [1, 3])
def test_threads_share_every_row_once(n_threads: int, monkeypatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: n_threads)
    seen = torch.zeros(101, dtype=torch.int64)

    def job(lo: int, hi: int, step: int) -> None:
        seen[lo:hi] += step

    share(job, len(seen), 2)
    assert (seen == 2).all()


def test_an_error_in_any_thread_is_raised(monkeypatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)

    def job(lo: int, hi: int) -> None:
        raise ValueError(f"broken at {lo} to {hi}")

    with pytest.raises(ValueError, match="broken"):
        share(job, 100)
