"""Commands on machines as they are: terminals, homes, quotas and proxies."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from sae import terminal

SAYS = "from sae.terminal import arguments; arguments([]); print('→ caf\\udce9 чайка')"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_any_name_can_be_printed_on_any_terminal(encoding: str) -> None:
    said = subprocess.run(
        [sys.executable, "-c", SAYS],
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
        capture_output=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    text = said.stdout.decode(encoding)
    assert "caf\\udce9" in text
    assert ("чайка" if encoding == "utf-8" else "\\u0447\\u0430") in text


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_is_json_on_any_terminal(encoding: str) -> None:
    says = (
        "from sae.terminal import arguments, print_json; arguments([]); print_json({'ü': 'чайка'})"
    )
    said = subprocess.run(
        [sys.executable, "-c", says],
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
        capture_output=True,
        check=True,
    )
    assert json.loads(said.stdout.decode(encoding)) == {"ü": "чайка"}
    assert ("чайка" in said.stdout.decode(encoding)) is (encoding == "utf-8")


def test_a_home_is_opened_wherever_shells_leave_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    words = ["train", "--data=~/photos", "~/x", "--name", "a~b", "--prompt=what ~ is"]
    expected = ["train", f"--data={tmp_path}/photos", f"{tmp_path}/x", *words[3:]]
    assert terminal.arguments(words) == expected


def test_folders_are_found_from_anywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("clip", "world", "bundled"):
        Path(name).mkdir()
    assert terminal.local_path("clip") == str(tmp_path / "clip")
    for name in ("world", "bundled", "user/model", "hf:user/data"):
        assert terminal.local_path(name) == name


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "10000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"cpu.max": "nonsense"}, 8),
    ],
)
def test_cores_are_those_that_may_be_used(
    files: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(terminal, "CGROUPS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)), raising=False)
    assert terminal.n_cores() == cores
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {3})
    assert terminal.n_cores() == 1


def test_no_proxy_stands_between_a_server_and_itself() -> None:
    proxies = {"HTTP_PROXY": "http://127.0.0.1:9", "all_proxy": "socks5://127.0.0.1:9"}
    environment = {**proxies, "HOME": "/x"}
    with terminal.no_proxies(environment):
        assert environment == {"HOME": "/x"}
    assert environment == {**proxies, "HOME": "/x"}


@pytest.mark.slow
def test_a_page_starts_whatever_proxies_are_set() -> None:
    code = """
import sys, sae.ui.__main__ as app
from sae.ui.options import Loaded
def build_demo(*loaded, **more):
    gradio = sys.modules["gradio"]
    gradio.Blocks.block_thread = lambda demo: demo.close()
    with gradio.Blocks() as page:
        return page
app.build_demo, app.launch_settings = build_demo, lambda _beside: {"quiet": True}
app.load = lambda options: type("Loaded", (), dict.fromkeys(Loaded.__annotations__))()
raise SystemExit(app.main(["--host", "127.0.0.1"]))
"""
    proxies = {"ALL_PROXY": "socks5://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **proxies, "GRADIO_ANALYTICS_ENABLED": "False"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "http://127.0.0.1:9"])
def test_a_hub_behind_a_proxy_that_does_not_work_is_one_sentence(proxy: str) -> None:
    code = "from sae.hub import commit_of; commit_of('user/name')"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ALL_PROXY": proxy, "HF_HUB_OFFLINE": "0", "HTTPS_PROXY": proxy},
        capture_output=True,
        text=True,
        check=False,
    )
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("sae.errors.HubUnreachable: user/name")
    if proxy.startswith("socks") and find_spec("socksio") is None:
        assert "httpx[socks]" in last
