"""Which kernels a test runs on: torch's own operations, or those compiled by numba."""

import pytest

from training import kernels

KINDS = ("plain", "compiled")


def use(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `training.kernels.chosen` give this kind on the CPU."""
    if kind == "plain":
        monkeypatch.setenv(kernels.VARIABLE, "plain")
    else:
        monkeypatch.delenv(kernels.VARIABLE, raising=False)
        pytest.importorskip("numba")
