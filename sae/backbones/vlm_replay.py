"""Running a transformer from the middle: the layers before a kept activation are not computed.

Knows torch modules; knows nothing of images, families or SAEs. Editing one layer of a vision tower
again and again needs the layers before it once. `capture` keeps what they gave; within `replaying`
the tower's own forward runs as always, only that its first layers hand their input on, the edited
layer gives the activations it is told to, and layers that nobody reads afterwards hand on as well.

As with edits, a model is shared between threads: every shortcut asks a context variable whether the
running forward is one of its own, and is gone when the last of them closes.
"""

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sae.backbones.interception import hidden_of, output_of


@dataclass(frozen=True)
class Capture:
    """What the tower gave up to one layer, for one picture."""

    hidden: Float[Tensor, "*rows tokens d"]
    """The layer's output: (rows, tokens, d), or (tokens, d) for towers that pack all tokens."""
    earlier: dict[int, Float[Tensor, "*rows tokens d"]]
    """Outputs of those earlier layers that the model reads besides."""
    is_tuple: bool
    """Whether layers answer (hidden, …) instead of hidden."""


def capture(
    layers: Sequence[nn.Module],
    layer: int,
    forward: Callable[[], object],
    also: Collection[int] = (),
) -> Capture:
    """Run `forward()` up to `layers[layer]` and keep what that layer and those in `also` gave."""
    outputs: dict[int, Any] = {}

    def keep(number: int, _module: nn.Module, _args: Any, output: Any) -> None:
        if threading.get_ident() == thread:
            outputs[number] = output

    thread = threading.get_ident()
    wanted = {number for number in also if number < layer} | {layer}
    handles = [layers[n].register_forward_hook(partial(keep, n)) for n in wanted]
    try:
        hidden = output_of(layers[layer], forward)
    finally:
        for handle in handles:
            handle.remove()
    earlier = {number: hidden_of(outputs[number]) for number in wanted if number != layer}
    return Capture(hidden, earlier, isinstance(outputs[layer], tuple))


@dataclass(frozen=True, eq=False)
class _Replay:
    given: dict[nn.Module, Tensor | None]
    """What a layer answers; None for its own input."""
    is_tuple: bool


_replay: ContextVar[_Replay | None] = ContextVar("patchlens_replay", default=None)
_lock = threading.Lock()
_shortcuts: dict[nn.Module, tuple[int, Any]] = {}
"""By layer: how many replays are open, and the `forward` its instance had before, if any."""


@contextmanager
def replaying(
    layers: Sequence[nn.Module],
    layer: int,
    kept: Capture,
    hidden: Float[Tensor, "*copies tokens d"],
    *,
    last: int | None = None,
) -> Iterator[None]:
    """Within this context, in this thread, `layers[layer]` answers `hidden`; earlier ones are free.

    `hidden` may hold the rows of several copies of the input one after another. Layers after
    `last` (by default none) are not computed either: their output is what the tower was given.
    """
    copies = hidden.shape[0] // kept.hidden.shape[0]
    given: dict[nn.Module, Tensor | None] = {layers[n]: None for n in range(layer)}
    for number, before in kept.earlier.items():
        given[layers[number]] = before.repeat(copies, *[1] * (before.dim() - 1))
    given[layers[layer]] = hidden
    if last is not None:
        given |= {later: None for later in layers[max(last, layer) + 1 :]}
    for module in given:
        _install(module)
    token = _replay.set(_Replay(given, kept.is_tuple))
    try:
        yield
    finally:
        _replay.reset(token)
        for module in given:
            _uninstall(module)


def _install(module: nn.Module) -> None:
    with _lock:
        count, before = _shortcuts.get(module, (0, module.__dict__.get("forward")))
        if count == 0:
            module.forward = partial(_forward, module, before)
        _shortcuts[module] = (count + 1, before)


def _uninstall(module: nn.Module) -> None:
    with _lock:
        count, before = _shortcuts.pop(module)
        if count > 1:
            _shortcuts[module] = (count - 1, before)
        elif before is None:
            del module.forward
        else:
            module.forward = before


def _forward(module: nn.Module, before: Any, *args: Any, **kwargs: Any) -> Any:
    replay = _replay.get()
    if replay is None or module not in replay.given:
        return before(*args, **kwargs) if before else type(module).forward(module, *args, **kwargs)
    hidden = replay.given[module]
    if hidden is None:
        hidden = args[0] if args else kwargs["hidden_states"]
    elif torch.is_inference(hidden) and not torch.is_inference_mode_enabled():
        hidden = hidden.clone()
    return (hidden,) if replay.is_tuple else hidden
