"""Where a task's labelled pictures come from: a bundled task, or a folder with one folder a class.

Knows files and few-shot sampling; knows nothing of models. Classes are split as in CoOp and MaPLe:
the first half is base (seen in training), the rest novel.
"""

import hashlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image

from sae.adaptation.classifier import checked_classes
from sae.errors import ImageError
from sae.images import open_image
from sae.storage import read_lines
from sae.world.tasks import Task, task
from training.data.sources.folder import ImageFiles, is_hidden, list_pictures, printable

MAX_PER_CLASS = 100_000
VALIDATION = 7_000
"""The held-out stream of a bundled task's validation pictures; reported figures are of stream 0."""


class Labelled:
    """Pictures opened when asked for, and their labels int64 (n,)."""

    def __init__(
        self,
        sources: Sequence[UInt8[np.ndarray, "_ _ 3"] | Path],
        labels: Int64[np.ndarray, " images"],
    ) -> None:
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
    def validation(self, split: str, each: int, seed: int, shots: int) -> Labelled:
        """`each` pictures of every class to choose by, which few_shot(split, shots, seed) does not give."""

    @abstractmethod
    def test(
        self, split: str, n: int, seed: int, shots: int, spent: Labelled | None = None
    ) -> Labelled:
        """At most `n` pictures that few_shot(split, shots, seed) does not give, none of `spent`."""

    def content(self, pictures: Sequence[Labelled]) -> str:  # noqa: ARG002
        """A hash of the files behind these pictures; "" where there are none."""
        return ""


class WorldTask(TaskData):
    """A bundled task: its pictures are composed when asked for."""

    def __init__(self, source: Task) -> None:
        self.source, self.name = source, source.name
        self.base, self.novel, self.templates = source.base, source.novel, source.templates
        self.start, self.lead, self.tail = source.start, source.lead, ""

    def few_shot(self, split: str, shots: int, seed: int) -> Labelled:
        pictures = self.source.few_shot(split, shots, seed)
        return Labelled(list(pictures.images), pictures.labels)

    def validation(self, split: str, each: int, seed: int, shots: int) -> Labelled:  # noqa: ARG002
        n = each * len(self.classes(split))
        pictures = self.source.test(split, n, seed=VALIDATION)
        return Labelled(list(pictures.images), pictures.labels)

    def test(
        self,
        split: str,
        n: int,
        seed: int,  # noqa: ARG002
        shots: int,  # noqa: ARG002
        spent: Labelled | None = None,  # noqa: ARG002
    ) -> Labelled:
        pictures = self.source.test(split, n)
        return Labelled(list(pictures.images), pictures.labels)


class FolderTask(TaskData):
    """FOLDER/class/…/picture, or FOLDER/train/class/picture beside FOLDER/test/class/picture.

    Of two classes both are base and none is novel. A picture that cannot be read is left out, said once,
    and another one of its class takes its place.
    """

    start, lead, tail = "a photo of a", "of a", "."

    def __init__(self, folder: Path, name: str, templates: Sequence[str]) -> None:
        self.name, self.templates = name, tuple(templates)
        apart = (folder / "train").is_dir() and (folder / "test").is_dir()
        self._train = _by_class(folder / "train" if apart else folder)
        self._test = _by_class(folder / "test") if apart else None
        names = checked_classes([printable(name).replace("_", " ") for name in self._train])
        self._folder = dict(zip(names, self._train, strict=True))
        missing = [name for name in names if apart and self._folder[name] not in (self._test or {})]
        if missing:
            raise ValueError(
                f"{folder / 'train' / self._folder[missing[0]]}: class {missing[0]!r} has a folder in "
                "train but none in test; give it one, or take it out of train."
            )
        half = (len(names) + 1) // 2 if len(names) > 2 else 2
        self.base, self.novel = names[:half], names[half:]
        self._readable: dict[Path, bool] = {}

    def few_shot(self, split: str, shots: int, seed: int) -> Labelled:
        return _joined([self._shots(name, shots, seed)[0] for name in self.classes(split)])

    def validation(self, split: str, each: int, seed: int, shots: int) -> Labelled:
        names = self.classes(split)
        return _joined([self._shots(name, shots + each, seed)[0][shots:] for name in names])

    def test(
        self, split: str, n: int, seed: int, shots: int, spent: Labelled | None = None
    ) -> Labelled:
        names = self.classes(split)
        each = max(1, n // max(1, len(names)))
        gone = (
            set() if spent is None else {file for file in spent.sources if isinstance(file, Path)}
        )
        chosen = []
        for name in names:
            rest = (
                self._shots(name, shots, seed)[1]
                if self._test is None
                else iter(self._test[self._folder[name]])
            )
            left = (file for file in rest if file not in gone)
            pictures = list(islice(filter(self._opens, left), each))
            if not pictures:
                raise ValueError(f"class {name!r} has no picture left to test on; give it more.")
            chosen.append(pictures)
        return _joined(chosen)

    def content(self, pictures: Sequence[Labelled]) -> str:
        files = [source for part in pictures for source in part.sources if isinstance(source, Path)]
        images, digest = ImageFiles(Path(), tuple(files), ()), hashlib.sha256()
        for number, file in enumerate(files):
            digest.update(f"{printable(file.name)} {images.content(number)}\n".encode())
        return digest.hexdigest()

    def _shots(self, name: str, shots: int, seed: int) -> tuple[list[Path], Iterator[Path]]:
        """The first readable `shots` of a class, and an iterator over the pictures after them."""
        files = iter(self._shuffled(name, seed))
        chosen = list(islice(filter(self._opens, files), shots))
        rest = list(files)
        spare = 0 if self._test else 1
        if len(chosen) < shots or (spare and not rest):
            raise ValueError(
                f"--shots {shots} is more than class {name!r} has: {len(self._train[self._folder[name]])} "
                f"pictures{', one of which is kept for the test' if spare else ''}; lower --shots"
            )
        return chosen, iter(rest)

    def _opens(self, path: Path) -> bool:
        if path not in self._readable:
            self._readable[path] = True
            try:
                open_image(path)
            except ImageError as error:
                sys.stderr.write(f"warning: {path} is left out: {error}\n")
                self._readable[path] = False
        return self._readable[path]

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
    return tuple(line.strip() for line in read_lines(path) if line.strip())


def _by_class(folder: Path) -> dict[str, list[Path]]:
    by_class: dict[str, list[Path]] = {}
    for inner in sorted(p for p in folder.iterdir() if p.is_dir() and not is_hidden(p.name)):
        if files := list_pictures(inner):
            by_class[inner.name] = files[:MAX_PER_CLASS]
    if not by_class:
        raise ValueError(
            f"{folder} has no folders with pictures; expected one folder for each class"
        )
    return by_class


def _joined(by_class: Sequence[Sequence[Path]]) -> Labelled:
    labels = np.repeat(np.arange(len(by_class)), [len(files) for files in by_class])
    return Labelled([file for files in by_class for file in files], labels)
