"""What a leaderboard run has done already, on disk, so that a long one can be stopped and taken up again.

Knows files and time; knows nothing of what is measured. Rows are sealed JSON, SAEs are artifacts,
activations one safetensors file each; all are of one set of options, which is written beside them.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae.errors import ArtifactError
from sae.model import SparseAutoencoder
from sae.storage import read_arrays, read_sealed, write_arrays, write_sealed

OPTIONS = "options.json"
Row = dict[str, float]
"""Figures by name, of one family of units and one seed."""


class OutOfTime(Exception):
    """The minutes that were given are over; what is done is kept."""


class Kept:
    """Makes a thing, or reads what an earlier run with the same options made of it.

    `folder` None keeps nothing. After `minutes` (None: no limit), and when what took longest so far
    would no longer fit, the next thing to make raises OutOfTime.
    """

    def __init__(
        self, folder: Path | None, options: dict[str, object], minutes: float | None = None
    ) -> None:
        self._folder, self._began, self._longest = folder, time.monotonic(), 0.0
        self._limit = None if minutes is None else 60 * minutes
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / OPTIONS
        if path.is_file() and (before := read_sealed(path, f"Delete {folder}.")) != options:
            differ = sorted(k for k in {*before, *options} if before.get(k) != options.get(k))
            raise ArtifactError(
                path,
                f"a run with other {', '.join(differ)}",
                "the options of now",
                f"Give the same options, another --out, or delete {folder}.",
            )
        write_sealed(path, options)

    def row(self, label: str, make: Callable[[], Row]) -> Row:
        """The figures of one row."""
        path = self._path("rows", f"{label}.json")
        if path is not None and path.is_file():
            return read_sealed(path, f"Delete {path}; it is then measured anew.")
        row = self._timed(make)
        if path is not None:
            write_sealed(path, row)
        return row

    def sae(self, label: str, make: Callable[[], SparseAutoencoder]) -> SparseAutoencoder:
        """A trained SAE."""
        path = self._path("saes", label)
        if path is not None and (path / "config.json").is_file():
            return SparseAutoencoder.from_pretrained(path)
        sae = self._timed(make)
        if path is not None:
            sae.save_pretrained(path)
        return sae

    def tensor(
        self, label: str, make: Callable[[], Float[Tensor, "scenes tokens d_in"]]
    ) -> Float[Tensor, "scenes tokens d_in"]:
        """Activations."""
        path = self._path("activations", f"{label}.safetensors")
        if path is not None and path.is_file():
            again = f"Delete {path}; it is then made anew."
            return torch.from_numpy(read_arrays(path, again)[0]["x"])
        made = self._timed(make)
        if path is not None:
            write_arrays(path, {"x": made.numpy()}, {})
        return made

    def _path(self, kind: str, name: str) -> Path | None:
        if self._folder is None:
            return None
        path = self._folder / kind / "".join(c if c.isalnum() or c in "._-" else "_" for c in name)
        path.parent.mkdir(exist_ok=True)
        return path

    def _timed(self, make: Callable[[], Any]) -> Any:
        before = time.monotonic()
        if self._limit is not None and before - self._began + self._longest > self._limit:
            raise OutOfTime
        made = make()
        self._longest = max(self._longest, time.monotonic() - before)
        return made
