"""Edits and truncated reads on a plain stack of layers."""

import asyncio
import contextvars
import gc
import weakref

import pytest
import torch
from torch import Tensor, nn

from sae.backbones.interception import editing, output_of


class Stack(nn.Module):
    """Layers that add 1; the tuple form answers (hidden, extra), as older transformers do."""

    def __init__(self, *, tuples: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_AddOne(tuples=tuples) for _ in range(3))

    def forward(self, hidden: Tensor) -> Tensor:
        for layer in self.layers:
            hidden = layer(hidden)
            hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        return hidden


class _AddOne(nn.Module):
    def __init__(self, *, tuples: bool) -> None:
        super().__init__()
        self.tuples = tuples

    def forward(self, hidden: Tensor) -> Tensor | tuple[Tensor, str]:
        return (hidden + 1, "extra") if self.tuples else hidden + 1


@pytest.fixture(params=[False, True], ids=["tensors", "tuples"])
def stack(request: pytest.FixtureRequest) -> Stack:
    return Stack(tuples=request.param)


def test_edits_of_one_layer_apply_in_order(stack: Stack) -> None:
    x = torch.zeros(1, 2, 3)
    with editing(stack.layers[0], lambda h: h * 10), editing(stack.layers[0], lambda h: h + 2):
        assert stack(x).unique().item() == 1 * 10 + 2 + 2
        with editing(stack.layers[1], lambda h: h * 0):
            assert stack(x).unique().item() == 1
            assert output_of(stack.layers[0], lambda: stack(x)).unique().item() == 12
    assert stack(x).unique().item() == 3


def test_an_edit_may_read_another_layer(stack: Stack) -> None:
    x = torch.zeros(1, 2, 3)
    with editing(stack.layers[2], lambda h: h + output_of(stack.layers[1], lambda: stack(x))):
        assert stack(x).unique().item() == 5
        assert output_of(stack.layers[2], lambda: stack(x)).unique().item() == 5


def test_edits_closed_in_another_context_leave_no_hook(stack: Stack) -> None:
    """As happens to generators that are resumed in copies of a context."""
    opened = editing(stack.layers[0], lambda h: h * 0)
    contextvars.copy_context().run(opened.__enter__)
    contextvars.copy_context().run(opened.__exit__, None, None, None)
    assert not any(layer._forward_hooks for layer in stack.layers)


def test_tasks_of_one_thread_do_not_share_edits(stack: Stack) -> None:
    async def edited() -> float:
        with editing(stack.layers[0], lambda h: h * 100):
            await asyncio.sleep(0.01)
            return stack(torch.zeros(1)).item()

    async def plain() -> float:
        await asyncio.sleep(0.005)
        return stack(torch.zeros(1)).item()

    async def both() -> list[float]:
        return await asyncio.gather(edited(), plain())

    assert asyncio.run(both()) == [102, 3]


def test_a_truncated_forward_frees_its_tensors(stack: Stack) -> None:
    """Without the garbage collector: frames kept by the exception would hold every layer."""
    held: list[weakref.ref[Tensor]] = []
    handle = stack.layers[0].register_forward_hook(
        lambda _m, _a, out: held.append(weakref.ref(out[0] if isinstance(out, tuple) else out))
    )
    gc.disable()
    try:
        kept = output_of(stack.layers[1], lambda: stack(torch.zeros(1, 2, 3)))
        assert held[0]() is None
        assert kept.unique().item() == 2
    finally:
        gc.enable()
        handle.remove()


def test_a_layer_that_never_runs_is_an_error(stack: Stack) -> None:
    with pytest.raises(RuntimeError, match="without running its layer"):
        output_of(stack.layers[0], lambda: None)
    with pytest.raises(KeyError):
        output_of(stack.layers[0], lambda: {}["missing"])
    assert not stack.layers[0]._forward_hooks
