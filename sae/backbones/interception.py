"""Reading and changing what a layer gives, by forward hooks that leave no trace.

Knows torch modules; knows nothing of images or families. A model is often shared between threads
(a web server) while hooks belong to the model, so every hook here asks a context variable whether
the running forward is one of its own: an edit or a truncated read is seen only by the thread (or
asyncio task) that opened it. Two consequences: open `editing` inside the thread that runs the
forward, and keep it open within one call (a generator handed from thread to thread loses it).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

EditFn = Callable[[Float[Tensor, "images tokens d"]], Float[Tensor, "images tokens d"]]


@dataclass(eq=False)
class _Edit:
    layer: nn.Module
    fn: EditFn


class _LayerReachedError(Exception):
    """Carries a layer's output out of the forward that is being cut short."""

    hidden: Tensor | None = None


_edits: ContextVar[tuple[_Edit, ...]] = ContextVar("patchlens_edits", default=())
_awaited: ContextVar[_LayerReachedError | None] = ContextVar("patchlens_awaited", default=None)


@contextmanager
def editing(layer: nn.Module, fn: EditFn) -> Iterator[None]:
    """Replace the layer's output h (B, tokens, d) by fn(h) within this context.

    Edits of one layer apply in the order in which they were opened. The hook goes before all
    others, so what other hooks record (transformers' hidden_states, which LLaVA reads) is edited.
    """
    edit = _Edit(layer, fn)

    def hook(module: nn.Module, _args: Any, output: Any) -> Any:
        active = [other for other in _edits.get() if other.layer is module]
        if not active or active[-1] is not edit:
            return None
        hidden = hidden_of(output)
        for each in active:
            hidden = same_shape(each.fn(hidden), hidden)
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = layer.register_forward_hook(hook, prepend=True)
    _edits.set((*_edits.get(), edit))
    try:
        yield
    finally:
        handle.remove()
        _edits.set(tuple(other for other in _edits.get() if other is not edit))


def output_of(layer: nn.Module, forward: Callable[[], object]) -> Float[Tensor, "*images tokens d"]:
    """The output (B, tokens, d) of `layer` in `forward()`, which stops there.

    Nothing after the layer is computed. Edits that are open in this context are included.
    """
    reached = _LayerReachedError()

    def hook(_module: nn.Module, _args: Any, output: Any) -> None:
        if _awaited.get() is reached:
            reached.hidden = hidden_of(output)
            raise reached

    handle = layer.register_forward_hook(hook)
    before = _awaited.set(reached)
    try:
        forward()
    except _LayerReachedError as stop:
        # The traceback holds every frame of the forward and so all its tensors: let them go now.
        stop.__traceback__ = None
        if stop is not reached:
            raise
    finally:
        _awaited.reset(before)
        handle.remove()
    if reached.hidden is None:
        raise RuntimeError(f"the forward ended without running its layer {type(layer).__name__}")
    return reached.hidden


def hidden_of(output: Any) -> Float[Tensor, "..."]:
    """A layer's hidden state; layers give a tensor or a tuple that begins with it."""
    return output[0] if isinstance(output, tuple) else output


def same_shape(edited: Any, hidden: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """What an edit returned for `hidden`, in its dtype; ValueError if the shape is another."""
    if not isinstance(edited, torch.Tensor) or edited.shape != hidden.shape:
        got = tuple(edited.shape) if isinstance(edited, torch.Tensor) else type(edited).__name__
        raise ValueError(
            f"the edit returned {got}, expected a tensor of shape {tuple(hidden.shape)}; "
            "return the whole hidden state (batch, tokens, d_model)"
        )
    return edited.to(hidden.dtype)
