"""Where a task's labelled pictures come from: a bundled task, or a folder with one folder a class.

Knows files and few-shot sampling; knows nothing of models. Classes are split as in CoOp and MaPLe:
the first half is base (seen in training), the rest novel.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from sae.adaptation.classifier import checked_classes
from sae.images import open_image
from sae.world.tasks import Task, task

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
MAX_PER_CLASS = 100_000


class Labelled:
    """Pictures opened when asked for, and their labels int64 (n,)."""

    def __init__(self, sources: Sequence[np.ndarray | Path], labels: np.ndarray) -> None:
        self.sources, self.labels = sources, labels

    def __len__(self) -> int:
        return len(self.sources)

    def pictures(self, numbers: Sequence[int]) -> list[Image.Image]:
        """The pictures of these numbers."""
        chosen = [self.sources[number] for number in numbers]
        return [open_image(s) if isinstance(s, Path) else Image.fromarray(s) for s in chosen]


class TaskData(ABC):
    """A task as the trainer and the comparison need it."""

    name: str
    base: tuple[str, ...]
    novel: tuple[str, ...]
    templates: tuple[str, ...]
    start: str
    lead: str
    tail: str

    def classes(self, split: str) -> tuple[str, ...]:
        """Class names of "base" or "novel"."""
        return self.base if split == "base" else self.novel

    @abstractmethod
    def few_shot(self, split: str, shots: int, seed: int) -> Labelled:
        """`shots` pictures of each class; ValueError if a class has not as many."""

    @abstractmethod
    def test(self, split: str, n: int, seed: int, shots: int) -> Labelled:
        """At most `n` pictures that few_shot(split, shots, seed) does not give."""


class WorldTask(TaskData):
    """A bundled task: its pictures are composed when asked for."""

    def __init__(self, source: Task) -> None:
        self.source, self.name = source, source.name
        self.base, self.novel, self.templates = source.base, source.novel, source.templates
        self.start, self.lead, self.tail = source.start, source.lead, ""

    def few_shot(self, split: str, shots: int, seed: int) -> Labelled:
        pictures = self.source.few_shot(split, shots, seed)
        return Labelled(list(pictures.images), pictures.labels)

    def test(self, split: str, n: int, seed: int, shots: int) -> Labelled:  # noqa: ARG002
        pictures = self.source.test(split, n)
        return Labelled(list(pictures.images), pictures.labels)


class FolderTask(TaskData):
    """FOLDER/class/picture, or FOLDER/train/class/picture beside FOLDER/test/class/picture."""

    start, lead, tail = "a photo of a", "of a", "."

    def __init__(self, folder: Path, name: str, templates: Sequence[str]) -> None:
        self.name, self.templates = name, tuple(templates)
        apart = (folder / "train").is_dir() and (folder / "test").is_dir()
        self._train = _by_class(folder / "train" if apart else folder)
        self._test = _by_class(folder / "test") if apart else None
        names = checked_classes([name.replace("_", " ") for name in self._train])
        self._folder = dict(zip(names, self._train, strict=True))
        half = (len(names) + 1) // 2
        self.base, self.novel = names[:half], names[half:]

    def few_shot(self, split: str, shots: int, seed: int) -> Labelled:
        chosen = [self._shuffled(name, seed)[:shots] for name in self.classes(split)]
        for name in self.classes(split):
            spare = 0 if self._test else 1
            there = len(self._train[self._folder[name]])
            if there < shots + spare:
                raise ValueError(
                    f"--shots {shots} is more than class {name!r} has: {there} pictures"
                    f"{', one of which is kept for the test' if spare else ''}; lower --shots"
                )
        return _joined(chosen)

    def test(self, split: str, n: int, seed: int, shots: int) -> Labelled:
        names = self.classes(split)
        each = max(1, n // max(1, len(names)))
        if self._test is not None:
            missing = [name for name in names if self._folder[name] not in self._test]
            if missing:
                raise ValueError(f"class {missing[0]!r} has a folder in train but none in test")
            return _joined([self._test[self._folder[name]][:each] for name in names])
        return _joined([self._shuffled(name, seed)[shots : shots + each] for name in names])

    def _shuffled(self, name: str, seed: int) -> list[Path]:
        files = self._train[self._folder[name]]
        order = np.random.Generator(np.random.PCG64([seed, *name.encode()])).permutation(len(files))
        return [files[number] for number in order]


def open_task(name: str, folder: str | None = None, templates: Sequence[str] = ()) -> TaskData:
    """The bundled task `name`, or a folder's pictures under that name."""
    if folder is None:
        return WorldTask(task(name))
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise ValueError(f"--data {folder} is no folder; expected one with a folder for each class")
    if not templates:
        from sae.backbones.text import openai_templates

        templates = openai_templates()
    return FolderTask(path, name, templates)


def read_templates(path: Path | None) -> tuple[str, ...]:
    """The lines of a template file."""
    if path is None:
        return ()
    return tuple(line.strip() for line in path.read_text("utf-8").splitlines() if line.strip())


def _by_class(folder: Path) -> dict[str, list[Path]]:
    by_class = {}
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        files = sorted(f for f in inner.iterdir() if f.suffix.lower() in PICTURES)
        if files:
            by_class[inner.name] = files[:MAX_PER_CLASS]
    if not by_class:
        raise ValueError(
            f"{folder} has no folders with pictures; expected one folder for each class"
        )
    return by_class


def _joined(by_class: Sequence[Sequence[Path]]) -> Labelled:
    labels = np.repeat(np.arange(len(by_class)), [len(files) for files in by_class])
    return Labelled([file for files in by_class for file in files], labels)
