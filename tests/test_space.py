"""The Space's folder: complete, pinned, and it starts from there without network and answers."""

import re
import sys
import types
from pathlib import Path

import pytest
import yaml
from PIL import Image

from tests.clean_environment import ask, clean_python, needs_clean, started
from training import publish

MEMORY = 16 << 30
"""Bytes that the hardware "CPU basic" has."""
GUARD = """
import runpy, socket, sys
def to_this_machine(real):
    def connect(self, address, *more):
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"network is off: {address}")
        return real(self, address, *more)
    return connect
socket.socket.connect = to_this_machine(socket.socket.connect)
socket.socket.connect_ex = to_this_machine(socket.socket.connect_ex)
here = sys.argv[1]
others = [p for p in sys.path[1:] if p.endswith("packages") or "/lib/python" in p or p.endswith(".zip")]
sys.path[:] = [here, *others]
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in repr(f).lower()]
sys.argv = [here + "/app.py"]
import sae
assert sae.__file__.startswith(here), sae.__file__
runpy.run_path(here + "/app.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("space")
    publish.space(out)
    return out


def test_the_folder_is_what_a_space_accepts(space: Path) -> None:
    names = {path.name for path in space.iterdir()}
    assert names == {
        "README.md",
        "requirements.txt",
        "app.py",
        "sae",
        "LICENSE",
        "NOTICE",
    }
    front = yaml.safe_load((space / "README.md").read_text().split("---\n")[1])
    assert front["sdk"] == "gradio"
    assert front["app_file"] == "app.py"
    assert front["colorFrom"] in (
        "red",
        "yellow",
        "green",
        "blue",
        "indigo",
        "purple",
        "pink",
        "gray",
    )
    assert len(front["short_description"]) <= 60
    lines = (space / "requirements.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[\w.\-]+==[\w.]+", line) for line in lines)
    assert f"gradio=={front['sdk_version']}" in lines
    assert not any(line.startswith(("accelerate", "datasets", "numba")) for line in lines)
    assert not list(space.rglob("__pycache__"))
    assert (space / "sae" / "bundled" / "sae" / "sae_weights.safetensors").is_file()
    assert sum(p.stat().st_size for p in space.rglob("*") if p.is_file()) < 60 << 20


def test_a_folder_in_use(space: Path, tmp_path: Path) -> None:
    publish.space(space)
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(ValueError, match="not empty and no Space"):
        publish.space(tmp_path)


def test_zero_gpu_runs_what_computes(space: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    from sae.ui.analysis import Analyst

    sent: list[tuple] = []

    def gpu(duration: int) -> object:
        def decorate(run: object) -> object:
            def decorated(*words: object) -> object:
                sent.append(pickle.loads(pickle.dumps(words)))
                return pickle.loads(pickle.dumps(run(*words)))

            return decorated

        assert duration <= 60
        return decorate

    monkeypatch.setitem(sys.modules, "spaces", types.SimpleNamespace(GPU=gpu))
    monkeypatch.setattr("sae.ui.__main__.build", lambda _: None)
    monkeypatch.setattr(Analyst, "analyse", Analyst.analyse)
    exec(compile((space / "app.py").read_text(), "app.py", "exec"), {"__name__": "space"})
    from sae import Backbone, SparseAutoencoder

    analyst = Analyst(
        Backbone.from_pretrained("bundled"), SparseAutoencoder.from_pretrained("bundled")
    )
    found = analyst.analyse(Image.new("RGB", (96, 96), "green"))
    assert len(sent) == 1
    assert found.error.shape == found.total.shape


def starting(space: Path, python: str) -> list[str]:
    """The command that starts the Space from its own folder, without network."""
    return [python, "-c", GUARD, str(space)]


def peak_memory(process: int) -> int | None:
    """Most bytes that a process ever had in memory; None where /proc does not say."""
    status = Path(f"/proc/{process}/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) * 1024 if found else None


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_it_starts_from_its_folder_without_network_and_answers(space: Path, tmp_path: Path) -> None:
    with started(starting(space, sys.executable), tmp_path) as (url, number):
        found = ask(url, tmp_path)
        memory = peak_memory(number)
    assert found
    if memory is not None:
        assert memory < MEMORY / 4, "a quarter of what CPU basic has"
    assert set(found[0]) == {"latent", "name", "activation", "mean", "frequency"}


@needs_clean
def test_it_starts_in_an_environment_of_its_own(space: Path, tmp_path: Path) -> None:
    python = clean_python("-r", str(space / "requirements.txt"))
    with started(starting(space, python), tmp_path) as (url, _):
        assert ask(url, tmp_path)
