"""README, docs and the notebook, run as they stand, and what they name is there.

Every python and sh block of the README and of docs/library.md is run in its order, and so are the first
commands of docs/training.md's stores: python in this process, sh in a shell, all against the bundled models
and a Hub on this machine.
"""

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from sae.world.scenes import Scene, SceneObject, compose, kind_names
from tests.interop.published import PUBLISHED
from tests.local_hub import TOKEN, LocalHub, using
from training.world.words import noun_phrase

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
PAGES += [ROOT / "sae" / "bundled" / "README.md"]
STORES = "## Sources, stores, stopping, measuring\n"
pytestmark = [pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")]


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and code of every fenced block."""
    return re.findall(r"```(python|sh)\n(.*?)```", text, re.DOTALL)


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the snippets speak of: the repository's programs, a photo, photos."""
    for name in ("training", "sae", "hub_cards", "patchlens", "app.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    kinds = kind_names()
    scenes = [Scene("sand", (SceneObject(kinds[n], x=20 + n),)) for n in range(48)]
    (tmp_path / "photos").mkdir()
    for number, scene in enumerate(scenes):
        Image.fromarray(compose(scene).image).save(tmp_path / "photos" / f"{number}.png")
    Image.fromarray(compose(scenes[0]).image).save(tmp_path / "photo.jpg")
    (tmp_path / "theirs").mkdir()
    shutil.move(PUBLISHED["patchsae"][1](tmp_path / "theirs").source, tmp_path / "photos-sae.pt")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_shell(code: str, hub: LocalHub, desk: Path) -> str:
    binaries = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": binaries, "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN}
    environment |= {"HF_HOME": str(desk / "home"), "HF_HUB_DISABLE_XET": "1"}
    environment |= {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-e", "-c", code], cwd=desk, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{code}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.mark.slow
def test_the_quick_starts_run_word_for_word(desk: Path) -> None:
    names: dict[str, Any] = {}
    said = io.StringIO()
    with LocalHub() as hub, using(hub, desk / "cache"):
        hub_user(hub)
        for language, code in blocks(page("README.md")) + blocks(page("docs/library.md")):
            if language == "sh":
                said.write(run_shell(code, hub, desk))
            else:
                with contextlib.redirect_stdout(said):
                    exec(compile(code, "README.md", "exec"), names)
        assert {"user/photos-sae", "user/copy"} <= set(hub.repos)
        assert hub.repos["user/copy"].private
    assert (desk / "runs" / "converted" / "config.json").is_file()
    assert (desk / "runs" / "photos" / "concepts" / "index.json").is_file()
    assert "self-check  passed" in said.getvalue()
    assert "steered     " in said.getvalue()


@pytest.mark.slow
def test_a_store_is_written_trained_from_resumed_and_measured(desk: Path) -> None:
    section = page("docs/training.md").split(STORES)[1].split("\n## ")[0]
    with LocalHub() as hub:
        said = [
            run_shell(code, hub, desk) for language, code in blocks(section) if language == "sh"
        ]
    assert (desk / "runs" / "stored" / "curves.png").is_file()
    assert 0 < json.loads(said[-1])["fvu"] < 1


def hub_user(hub: LocalHub) -> None:
    """The snippets write to user/…; on this Hub that is the tester's own."""
    hub.user = "user"


def test_the_readme_is_short_and_its_snippets_are_ten_lines() -> None:
    text = page("README.md")
    assert len(text.splitlines()) <= 150
    assert [language for language, _ in blocks(text)] == ["python", "sh"]
    for _, code in blocks(text):
        assert len([line for line in code.splitlines() if line.strip()]) <= 10


def test_the_readme_says_what_could_not_be_tried() -> None:
    text = " ".join(page("README.md").split())
    assert "the real downloads could not be tried" in text.replace("**", "")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_page_names_is_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert not [link for link in links if not (path.parent / link).exists()]
    files = set(
        re.findall(r"\b(?:training|sae|tests|hub_cards)/[\w/]+\.(?:py|sh|json|webp)\b", text)
    )
    assert not [name for name in files if not (ROOT / name).exists()]
    for language, code in blocks(text):
        if language == "python":
            compile(code, path.name, "exec")


def test_every_page_is_linked_from_the_list_of_pages() -> None:
    listed = page("docs/README.md")
    assert not [
        path
        for path in (ROOT / "docs").glob("*.md")
        if f"({path.name})" not in listed and path.name != "README.md"
    ]


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = json.loads((ROOT / "notebooks" / "quickstart.ipynb").read_text(encoding="utf-8"))
    assert content["nbformat"] == 4
    assert all(not cell.get("outputs") for cell in content["cells"])
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    said = io.StringIO()
    with contextlib.redirect_stdout(said), torch.no_grad():
        for cell in content["cells"]:
            if cell["cell_type"] == "code":
                exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    kind = names["scene"].objects[0].kind  # what is off at the end
    assert re.search(rf"^ *\d+ +[\d.]+ {kind}$", said.getvalue(), re.MULTILINE)
    shares = re.search(rf"{noun_phrase(kind)} +(0\.\d\d) -> (0\.\d\d)", said.getvalue())
    assert shares
    assert float(shares[2]) < float(shares[1]) / 2
