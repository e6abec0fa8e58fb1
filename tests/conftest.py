"""What every test may use."""

import inspect
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import shape_checks  # where `--jaxtyping-packages` finds it

SLOW = (
    *(
        "test_bench_gpu.py",
        "test_hub_push.py",
        "test_public_api.py",
        "test_space.py",
        "test_wheel.py",
    ),
    *("adaptation/test_bundled_heads.py", "adaptation/test_published.py"),
    *(
        "interop/test_strict_loading.py",
        "steering/test_experiments.py",
        "steering/test_measuring.py",
    ),
    *("training/test_cli.py", "training/test_comparing.py", "training/test_distributed.py"),
    *("training/test_evaluate.py", "training/test_extract.py", "training/test_index_cli.py"),
    *("training/test_index_embedder.py", "training/test_killed.py", "training/test_launch.py"),
    *(
        "training/test_leaderboard.py",
        "training/test_monitor.py",
        "training/test_prompts_command.py",
    ),
    *("training/test_run.py", "training/test_steerability_command.py", "training/test_sweep.py"),
    "world/test_models.py",
)
"""Files that start processes or take seconds of CPU time; the browser's are slow as well. A single slow
test elsewhere is marked in its place."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the slow ones, which `make test-fast` leaves out."""
    here = Path(__file__).parent
    for item in items:
        path = item.path.relative_to(here).as_posix() if item.path.is_relative_to(here) else ""
        if path in SLOW or path.startswith("browser/"):
            item.add_marker(pytest.mark.slow)


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


# A shell that starts the tests in the background has them ignore Ctrl-C, and so all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
