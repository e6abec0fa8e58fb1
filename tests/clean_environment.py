"""An environment of its own: what is installed there, and programs started there.

`make space-check` and `make wheel-check` name a folder in PATCHLENS_CLEAN; the second finds there what the
first has installed. Knows pip and processes; nothing of what is tested.
"""

import os
import socket
import subprocess
import time
import urllib.request
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from gradio_client import Client, handle_file
from PIL import Image

CLEAN = os.environ.get("PATCHLENS_CLEAN")
needs_clean = pytest.mark.skipif(not CLEAN, reason="installs 6 GB: make space-check wheel-check")


def clean_python(*wanted: str) -> str:
    """The Python of the clean environment, with what pip's words `wanted` install in it."""
    folder = Path(CLEAN or "").resolve()
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, *wanted], check=True)
    return str(python)


def bare(home: Path, **more: str) -> dict[str, str]:
    """This process's variables without those that point anywhere; the Hub is offline."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PATCHLENS", "HF_"))}
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home), "PYTHONNOUSERSITE": "1"}
    return kept | offline | {"GRADIO_ANALYTICS_ENABLED": "False"} | more


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def started(command: Sequence[str], home: Path, **more: str) -> Iterator[tuple[str, int]]:
    """A page as a process of its own in `home`; yields its address and the process's number."""
    port = free_port()
    environment = bare(home, PATCHLENS_PORT=str(port), **more)
    with (home / "log").open("w+") as log:
        process = subprocess.Popen(command, env=environment, cwd=home, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            while not answers(url):
                if process.poll() is not None:
                    raise AssertionError((home / "log").read_text()[-3000:])
                time.sleep(0.1)
            yield url, process.pid
        finally:
            process.terminate()
            process.wait()


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=60).close()
    except OSError:
        return False
    return True


def ask(url: str, folder: Path) -> list[dict]:
    """The concepts that a page finds in a green picture."""
    Image.new("RGB", (96, 96), "seagreen").save(folder / "picture.png")
    patient = {"timeout": None}  # a slow machine is no failure
    client = Client(url, verbose=False, analytics_enabled=False, httpx_kwargs=patient)
    found = client.predict(handle_file(folder / "picture.png"), api_name="/concepts")
    client.close()
    return found
