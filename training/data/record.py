"""Which images a run trains on and which it holds out, by name and content, kept with the run.

    OUT/held_out.jsonl          ["cat/12.png", "48211:5f0c…:9a2e…"] a line, in their order
    OUT/training_images.jsonl   the same of the training images; never pushed
The first line of each is its seal, {"content_sha256": …}: the hash of the lines after it.

So held-out images are found again by name when others come or go, and a run whose images changed is not taken
up without a word. Knows names, contents and files. Knows nothing of backbones or the loop.
"""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from sae.errors import ArtifactError
from sae.storage import SEAL, replacing, sealed, sha256, warn_of_age
from training.data.sources import ImageSource
from training.data.sources.identity import same
from training.data.store import StoredHeldOut, StoredRows
from training.data.store.manifest import MANIFEST

HELD_OUT, TRAINED_ON = "held_out.jsonl", "training_images.jsonl"
READERS = 8
"""Threads that read files."""
Images = Mapping[str, str]
"""Content by name, in the order of the images."""


class Record(NamedTuple):
    """The images of a run."""

    training: Images
    held_out: Images


def record_of(source: Any, held_out: Any) -> Record:
    """The images of a run's data as they are now; empty where they have no names (the emoji world)."""
    if isinstance(source, StoredRows):
        try:
            kept = read(source.folder / HELD_OUT)
        except FileNotFoundError:  # a store from before lists were kept
            kept = {}
        n = held_out.n if isinstance(held_out, StoredHeldOut) else len(kept)
        first = dict(list(kept.items())[:n])
        return Record({MANIFEST: sha256(source.folder / MANIFEST)}, first)
    return Record(images_of(source), images_of(held_out))


def images_of(source: Any) -> dict[str, str]:
    """Name and content of every image of a source; {} where they have none."""
    if not isinstance(source, ImageSource) or source.image_name is None or source.content is None:
        return {}
    with ThreadPoolExecutor(READERS) as threads:
        contents = threads.map(source.content, source.all)
        return dict(zip(map(source.image_name, source.all), contents, strict=True))


def write(path: Path, images: Images) -> None:
    """Write a list of images, whole or not at all."""
    lines = [json.dumps(image) for image in images.items()]
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in [json.dumps(_seal_of(lines)), *lines])


def read(path: Path) -> dict[str, str]:
    """A list of images; FileNotFoundError if there is none, ArtifactError if it is damaged."""
    images: dict[str, str] = {}
    lines = path.read_bytes().decode("utf-8", "replace").splitlines()
    if not lines:
        raise ArtifactError(path, "nothing", "a list of images", "Put it back from a copy.")
    seal = lines.pop(0) if lines[0].startswith("{") else "{}"
    for number, line in enumerate(lines, 1):
        try:
            name, content = json.loads(line)
            images[str(name)] = str(content)
        except (ValueError, TypeError) as error:
            raise ArtifactError(
                path, f"{line[:40]!r} in line {number}", '["name", "content"]'
            ) from error
    if seal == "{}":
        warn_of_age(path)
    elif seal != json.dumps(_seal_of(lines)):
        raise ArtifactError(
            path, "other lines than were written", "those of its seal", "Put it back from a copy."
        )
    return images


def _seal_of(lines: list[str]) -> dict[str, str]:
    return {SEAL: sealed({"lines": lines})[SEAL]}


def read_record(folder: Path) -> Record | None:
    """What a run recorded of its images; None if it is from before records were kept."""
    try:
        return Record(read(folder / TRAINED_ON), read(folder / HELD_OUT))
    except FileNotFoundError:
        return None


def write_record(folder: Path, record: Record) -> None:
    """Keep the images of a run."""
    write(folder / TRAINED_ON, record.training)
    write(folder / HELD_OUT, record.held_out)


def _names(images: Record) -> list[list[str]]:
    return [list(part) for part in images]


def changes(before: Record, now: Record) -> str:
    """What became of the images, in words; "" if they are the same in the same order."""
    told = []
    for what, then, here in (
        ("training images", before.training, now.training),
        ("held-out images", before.held_out, now.held_out),
    ):
        gone, new = [n for n in then if n not in here], [n for n in here if n not in then]
        other = [name for name in then if name in here and not same(then[name], here[name])]
        for names, became in ((gone, "gone"), (new, "new"), (other, "replaced")):
            if names:
                told.append(f"{len(names)} of the {what} {became} ({names[0]!r} …)")
        if not (gone or new or other) and list(then) != list(here):
            told.append(f"the {what} in another order")
    return "; ".join(told)


def keep(
    folder: Path, before: Record | None, now: Record, *, accept: bool, by_number: bool = False
) -> str:
    """Record the images of a run that begins, or goes on from one that recorded them `before`.

    Returns what there is to say. ValueError if they are other ones and that is not `accept`ed, or cannot
    be: what is done `by_number` of the images goes on only if they have the same names in the same order.
    """
    if not now.training and not now.held_out:
        return ""
    changed = changes(before, now) if before else ""
    possible = not by_number or before is None or _names(before) == _names(now)
    if changed and not (accept and possible):
        go_on = "give --accept-changed-data to go on with what is there, " if possible else ""
        raise ValueError(
            f"the images are not those that {folder} began with: {changed}. Put them back, {go_on}or "
            "start in another --out."
        )
    write_record(folder, now)
    return f"going on with changed images: {changed}" if changed else ""
