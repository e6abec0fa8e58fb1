"""What every maker needs: random weights, small arithmetic, JSON, other libraries' class names.

d_in 12, d_sae 40.
"""

import json
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import torch as safetensors_torch
from torch import Tensor

from sae.interop import Hints

D, N, K = 12, 40, 5
Weights = dict[str, Tensor]


@dataclass
class Published:
    """A source on disk, and what its own library computes from it."""

    source: Path
    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor, Tensor], Tensor]
    """Of latents and the activations they came from (which most formats do not look at)."""
    hints: Hints = field(default_factory=Hints)
    place: tuple[str, int, str] = ("some/backbone", 3, "all")


HERE = Hints(backbone="some/backbone", layer=3, tokens="all")


def weights(seed: int = 0, **shapes: tuple[int, ...]) -> Weights:
    """Random tensors of these shapes."""
    g = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=g) for name, shape in shapes.items()}


def square(seed: int = 0) -> Weights:
    return weights(seed, W_enc=(D, N), b_enc=(N,), W_dec=(N, D), b_dec=(D,))


def topk(h: Tensor, k: int = K) -> Tensor:
    """h where it is among the k largest of its row, 0 elsewhere."""
    kth = h.sort(dim=-1, descending=True).values[..., k - 1 : k]
    return torch.where(h >= kth, h, 0.0)


def as_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def config_class(module: str, name: str, base: type = object) -> type:
    """A class that pickles under another module's name, as that library's own would."""
    return named(module, type(name, (base,), {"__module__": module}))


def named(module: str, made: Any) -> Any:
    """`made`, a class or function, put into a made-up module."""
    parts = module.split(".")
    for n in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:n]), types.ModuleType(".".join(parts[:n])))
    made.__module__, made.__qualname__ = module, made.__name__
    setattr(sys.modules[module], made.__name__, made)
    return made


def forget(module: str) -> None:
    """Take the made-up modules away again, so that no reader could import them."""
    for name in [n for n in sys.modules if n.split(".")[0] == module.split(".")[0]]:
        del sys.modules[name]


def runner_config(module: str, name: str, **values: object) -> object:
    config = config_class(module, name)()
    config.__dict__.update(values)
    return config


def as_safetensors(tensors: Weights, path: Path) -> None:
    """Through the library's module, so that `mutations` can damage what is written."""
    safetensors_torch.save_file(tensors, path)
