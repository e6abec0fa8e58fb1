"""What PatchLens writes down beside weights: figures, results, recorded experiments, lists of images.

Knows how each is written and read, for `damage.py` to alter it in between. Knows nothing of damages.
"""

import shutil
from pathlib import Path

from sae.adaptation.files import RESULTS, accuracies, results
from sae.cards import SEALED
from sae.hub import BUNDLED
from sae.storage import read_sealed, write_sealed
from sae.ui.options import EXPERIMENTS
from training.data.record import Record, read_record, write_record
from training.leaderboard.kept import Kept

FIGURES = {"fvu": 0.21, "l0": 8.0, "evidence": {"fvu": {"data": "made up", "n_tokens": 54}}}


def figures(folder: Path) -> None:
    """The figures and the origin of an SAE."""
    folder.mkdir(exist_ok=True)
    write_sealed(folder / "metrics.json", FIGURES)
    write_sealed(folder / "training.json", {"dataset": "made up", "steps": 9, "seed": 3})


def read_figures(folder: Path) -> object:
    return [read_sealed(folder / name) for name in SEALED]


def heads(folder: Path) -> None:
    """What heads of a bundled task reached, and how they differ."""
    shutil.copytree(BUNDLED / "heads" / "fluent" / "vpt", folder / "fluent" / "vpt")
    shutil.copyfile(BUNDLED / "heads" / "fluent" / RESULTS, folder / "fluent" / RESULTS)


def read_heads(folder: Path) -> object:
    return [accuracies("fluent", "vpt", folder), results("fluent", folder)]


def experiments(folder: Path) -> None:
    """The recorded experiments of the Steer tab."""
    shutil.copyfile(EXPERIMENTS, folder / EXPERIMENTS.name)


def read_experiments(folder: Path) -> object:
    return read_sealed(folder / EXPERIMENTS.name)["presets"]


def row(folder: Path) -> None:
    """A row of the leaderboard."""
    Kept(folder, {"seed": 0, "sizes": [64, 128]}).row("topk", lambda: {"f1": 0.5, "auroc": 0.75})


def read_row(folder: Path) -> object:
    """A row that is missing is measured again: then it is as it was."""
    return Kept(folder, {"seed": 0, "sizes": [64, 128]}).row("topk", lambda: {"f1": -1.0})


def lists(folder: Path) -> None:
    """The images of a run."""
    folder.mkdir(exist_ok=True)
    images = {f"cat/{n}.png": f"{n}:5f0c:77ab{n}" for n in range(9)}
    write_record(folder, Record(images, {"dog/1.png": "7:aa:bb", "dog/2.png": "8:aa:cc"}))


def read_lists(folder: Path) -> object:
    found = read_record(folder)
    return found and [list(part.items()) for part in found]
