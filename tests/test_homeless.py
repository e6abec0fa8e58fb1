"""Commands and the app where there is no home and no cache can be written."""

import os
import subprocess
import sys
from pathlib import Path

import numba
import pytest
from numba.core import caching

from sae.model import SparseAutoencoder
from training.kernels import loops

ROOT = Path(__file__).resolve().parents[1]
NOWHERE = "/dev/null/nowhere"
"""No folder can be made there, whoever asks."""
TRAIN = "--backbone bundled --data world --d-sae 32 --k 4 --batch-size 256 --buffer 2 --steps 2"


def homeless(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Python on these words, with every cache that it may choose at a place where none can be."""
    caches = (
        "HOME",
        "XDG_CACHE_HOME",
        "XDG_CONFIG_HOME",
        "HF_HOME",
        "MPLCONFIGDIR",
        "NUMBA_CACHE_DIR",
    )
    kept = {name: os.environ[name] for name in ("PATH", "OMP_NUM_THREADS") if name in os.environ}
    return subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env={**kept, **dict.fromkeys(caches, NOWHERE), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_a_run_is_trained_and_measured(tmp_path: Path) -> None:
    words = f"{TRAIN} --eval-images 4 --threads 1 --out {tmp_path / 'run'}".split()
    ended = homeless(tmp_path, "training/train.py", *words)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert "Traceback" not in ended.stderr
    assert SparseAutoencoder.from_pretrained(tmp_path / "run").cfg.d_sae == 32


@pytest.mark.slow
def test_the_app_is_built(tmp_path: Path) -> None:
    ended = homeless(tmp_path, "-c", "import app; print(type(app.demo).__name__)")
    assert ended.stdout.strip() == "Blocks", ended.stderr[-2000:]


def test_a_hub_id_ends_in_a_sentence_that_names_the_cache(tmp_path: Path) -> None:
    code = "from sae.terminal import command\nfrom sae import SparseAutoencoder\n"
    code += "command(lambda argv: SparseAutoencoder.from_pretrained('user/name') and None)([])"
    ended = homeless(tmp_path, "-c", code)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert ended.stderr.strip().splitlines()[-1].startswith("error: user/name")


def test_loops_are_compiled_where_none_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching.FunctionCache._impl_class, "_locator_classes", [])
    with pytest.raises(RuntimeError, match="cannot cache function"):
        numba.njit(cache=True)(_twice)
    assert loops.compiled(_twice)(4) == 8


def _twice(x):
    return 2 * x
