"""The Space's folder: complete, pinned, and it starts from there without network and answers."""

import os
import re
import socket
import subprocess
import sys
import time
import types
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from gradio_client import Client, handle_file
from PIL import Image

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


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def started(space: Path, python: str, home: Path) -> Iterator[tuple[str, int]]:
    """The Space as a process of its own, without network; yields its address and its number."""
    port = free_port()
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PATCHLENS", "HF_"))}
    environment = {**kept, "HF_HUB_OFFLINE": "1", "HF_HOME": str(home), "PYTHONNOUSERSITE": "1"}
    environment |= {"PATCHLENS_PORT": str(port), "GRADIO_ANALYTICS_ENABLED": "False"}
    with (home / "log").open("w+") as log:
        process = subprocess.Popen(
            [python, "-c", GUARD, str(space)], env=environment, cwd=home, stdout=log, stderr=log
        )
        try:
            url = f"http://127.0.0.1:{port}"
            for _ in range(600):
                if process.poll() is not None:
                    raise AssertionError((home / "log").read_text()[-3000:])
                try:
                    urllib.request.urlopen(url, timeout=5).close()
                    break
                except OSError:
                    time.sleep(0.1)
            yield url, process.pid
        finally:
            process.terminate()
            process.wait(20)


def peak_memory(process: int) -> int | None:
    """Most bytes that a process ever had in memory; None where /proc does not say."""
    status = Path(f"/proc/{process}/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) * 1024 if found else None


def ask(url: str, folder: Path) -> list[dict]:
    Image.new("RGB", (96, 96), "seagreen").save(folder / "picture.png")
    client = Client(url, verbose=False, analytics_enabled=False)
    found = client.predict(handle_file(folder / "picture.png"), api_name="/concepts")
    client.close()
    return found


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_it_starts_from_its_folder_without_network_and_answers(space: Path, tmp_path: Path) -> None:
    with started(space, sys.executable, tmp_path) as (url, number):
        found = ask(url, tmp_path)
        memory = peak_memory(number)
    assert found
    if memory is not None:
        assert memory < MEMORY / 4, "a quarter of what CPU basic has"
    assert set(found[0]) == {"latent", "name", "activation", "mean", "frequency"}


@pytest.mark.skipif(
    not os.environ.get("PATCHLENS_CLEAN_SPACE"), reason="installs 6 GB: make space-check"
)
def test_it_starts_in_an_environment_of_its_own(space: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    wanted = ["-m", "pip", "install", "-q", "-r", str(space / "requirements.txt")]
    subprocess.run([python, *wanted], check=True)
    with started(space, python, tmp_path) as (url, _):
        assert ask(url, tmp_path)
