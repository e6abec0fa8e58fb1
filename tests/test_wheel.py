"""The wheel: what it holds, and that it works where nothing else of PatchLens is.

`make wheel-check` runs this. The install is used from another folder, without HOME, and nothing may be
written into it.
"""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from sae.world.scenes import Scene, SceneObject, compose
from tests.clean_environment import ask, bare, clean_python, needs_clean, started
from training.world.words import description

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ("sae", "training", "hub_cards", "patchlens", "pyproject.toml", "requirements.txt")
SOURCE += ("README.md", "LICENSE", "NOTICE")
NOT_SHIPPED = ("training/bench/", "training/leaderboard/")
LARGEST = 24 << 20
"""Bytes, packed, of all but the lens on photographs, which has a limit of its own."""
PHOTOS, LARGEST_PHOTOS = "sae/bundled/photos/", 35_000_000
SCENE = Scene("sand", (SceneObject("tiger", x=40),))
USE = """
import sys
import torch
from pathlib import Path
from PIL import Image
import sae
assert "site-packages" in sae.__file__
from sae import Backbone, ConceptIndex, SparseAutoencoder
backbone = Backbone.from_pretrained("bundled")
autoencoder = SparseAutoencoder.from_pretrained("bundled")
index = ConceptIndex.from_pretrained("bundled")
x = backbone.activations([Image.open("photo.png")], layer=autoencoder.cfg.backbone.layer)
with torch.no_grad():
    latents = autoencoder.encode(x)
names = [index.names[latent] for latent in latents[0].amax(0).topk(5).indices.tolist()]
assert sys.argv[1] in names, names
for name in ("numba", "accelerate", "datasets", "matplotlib"):
    try:
        __import__(name)
    except ImportError:
        continue
    raise AssertionError(f"{name} is in a plain install")
"""
pytestmark = needs_clean


def shipped() -> set[str]:
    """Files of the repository that a wheel must hold."""
    listed = subprocess.run(
        ["git", "ls-files", "sae", "training", "hub_cards", "patchlens"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    return {name for name in listed if not name.startswith(NOT_SHIPPED)}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that no earlier build is in it."""
    here = tmp_path_factory.mktemp("wheel")
    (here / "source").mkdir()
    for name in SOURCE:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, here / "source" / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-deps", "-q"]
    subprocess.run([*pip, "-w", str(here), str(here / "source")], check=True)
    (built,) = here.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path) -> str:
    """A Python with the wheel and what it says it needs, and nothing that an earlier check left there."""
    extra = ["accelerate", "datasets", "matplotlib", "numba"]
    subprocess.run([clean_python("pip"), "-m", "pip", "uninstall", "-q", "-y", *extra], check=True)
    clean_python("--force-reinstall", "--no-deps", str(wheel))
    return clean_python(str(wheel))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.fromarray(compose(SCENE).image).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def call(python: str, words: list[str], folder: Path, status: int = 0) -> str:
    """What a command of the clean environment says, started in `folder` without HOME."""
    environment = bare(folder / "hub")
    environment.pop("HOME", None)
    program = [python] if words[0].startswith("-") else [str(Path(python).with_name(words[0]))]
    words = words if words[0].startswith("-") else words[1:]
    done = subprocess.run(
        [*program, *words], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == status, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout + done.stderr


def test_it_holds_the_library_the_commands_and_their_data_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        packed = {one.filename: one.compress_size for one in archive.infolist()}
    photos = sum(size for name, size in packed.items() if name.startswith(PHOTOS))
    assert 0 < photos < LARGEST_PHOTOS
    assert wheel.stat().st_size - photos < LARGEST
    assert names == shipped()


def test_the_library_works_from_elsewhere(python: str, photo: Path) -> None:
    call(python, ["-c", USE, SCENE.objects[0].kind], photo.parent)


def test_the_commands_answer(python: str, photo: Path) -> None:
    folder = photo.parent
    assert "commands:" in call(python, ["patchlens", "--help"], folder)
    assert "--port" in call(python, ["patchlens", "demo", "--help"], folder)
    assert "formats:" in call(python, ["patchlens", "convert", "--list"], folder)
    said = call(python, ["patchlens", "steer", "photo.png", "--edit", "12=2"], folder)
    assert f"as it is    {description(SCENE)}" in said
    said = call(python, ["patchlens", "train", "--help"], folder, status=1)
    assert "'patchlens[train] @ file://" in said


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_page_starts_and_answers(python: str, tmp_path: Path) -> None:
    command = str(Path(python).with_name("patchlens"))
    with started([command, "demo"], tmp_path) as (url, _):
        assert ask(url, tmp_path)


def test_with_its_extra_it_trains_and_publishes(wheel: Path, python: str, tmp_path: Path) -> None:
    clean_python(f"{wheel}[train]")
    small = ["--backbone", "bundled", "--data", "world", "--layer", "-2", "--d-sae", "256"]
    small += ["--k", "8", "--batch-size", "256", "--steps", "2", "--eval-images", "64"]
    call(python, ["patchlens", "train", *small, "--out", "first"], tmp_path)
    launched = ["accelerate", "launch", "-m", "training.train", *small, "--out", "second"]
    call(python, launched, tmp_path)
    for run in ("first", "second"):
        assert (tmp_path / run / "sae_weights.safetensors").is_file()
    call(python, ["patchlens", "publish", "space", "space", "--sae", "first"], tmp_path)
    assert "MIT" in (tmp_path / "space" / "LICENSE").read_text()
    assert "gradio==" in (tmp_path / "space" / "requirements.txt").read_text()


def test_nothing_was_written_into_the_install(wheel: Path, python: str) -> None:
    """Comes last: every file is still the wheel's, so that a read-only install would do. Gradio writes
    a .pyi beside each component where it can, and goes on where it cannot."""
    where = Path(call(python, ["-c", "import sae; print(sae.__path__[0])"], wheel.parent).strip())
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.startswith("patchlens-")}
        for top in ("sae", "training", "hub_cards", "patchlens"):
            there = {p for p in (where.parent / top).rglob("*") if p.is_file()}
            kept = {p for p in there if "__pycache__" not in p.parts and p.suffix != ".pyi"}
            assert {str(p.relative_to(where.parent)) for p in kept} <= names
        assert all((where.parent / name).read_bytes() == archive.read(name) for name in names)
