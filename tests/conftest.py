"""What every test may use."""

import inspect
from collections.abc import Iterator

import pytest

from tests import shape_checks  # where `--jaxtyping-packages` finds it


@pytest.fixture
def wrong_shapes() -> Iterator[None]:
    """No shapes are checked: the test is about what the library itself says of wrong ones."""
    with shape_checks.unchecked():
        yield


@pytest.fixture
def plain_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loaders of SAEs without the checks around them, so that a warning's place is as for people."""
    from sae import model

    for name in ("from_pretrained", "from_other"):
        loader = inspect.unwrap(getattr(model.SparseAutoencoder, name).__func__)
        monkeypatch.setattr(model.SparseAutoencoder, name, classmethod(loader))
    monkeypatch.setattr(model, "_warn", inspect.unwrap(model._warn))
