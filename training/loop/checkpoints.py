"""A run's state on disk: written whole, found again, never pickled.

    OUT/checkpoints/step_00000100/state.safetensors   weights, Adam's moments, counters
    OUT/checkpoints/step_00000100/state.json          step, scale, stream positions, config; sha256 of
                                                      the tensors and the seal of all this

Knows files and named tensors. Knows nothing of what they mean to the loop. There is no state of a
random generator: every random choice follows from the seed and the position.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sae.errors import ArtifactError
from sae.storage import check_seal, is_a, read_json, sealed, sha256, write_json
from sae.terminal import local_path
from training.data.stream import shards_for
from training.loop.config import NOT_THE_RUN, TrainConfig, flag

STATE, TENSORS = "state.json", "state.safetensors"
PATHS = ("backbone", "data")
"""Options that may be folders."""
_OLDER = "An older one is tried."
STATE_TYPES: dict[str, tuple[type, ...]] = {
    "step": (int,),
    "config": (dict,),
    "seconds": (int, float),
    "scale": (int, float),
    "n_processes": (int,),
    "streams": (list,),
}


class NotSaved(OSError):
    """Something could not be written; what was saved before is whole."""


class Checkpoint(NamedTuple):
    """What a checkpoint holds."""

    folder: Path
    state: dict[str, Any]
    """JSON values: step, positions and the like."""
    tensors: dict[str, Tensor]
    """Everything else, by name, on the CPU."""


def save(
    out: Path, step: int, config: TrainConfig, state: Mapping[str, Any], tensors: Mapping
) -> Path:
    """Write a checkpoint under another name, then rename it; returns its folder.

    A whole one of the same step stays: it says the same, and there is no moment without it.
    """
    folder = out / "checkpoints" / f"step_{step:08d}"
    if folder.is_dir() and _is_whole(folder):
        return folder
    unfinished = folder.with_name(f".{folder.name}")
    try:
        with writing(folder):
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            save_file(stored, unfinished / TENSORS)
            digest = sha256(unfinished / TENSORS)
            content = {**state, "step": step, "config": asdict(config)}
            write_json(unfinished / STATE, sealed({**content, "sha256": {TENSORS: digest}}))
            for name in (TENSORS, STATE, "."):
                _flush(unfinished / name)
            shutil.rmtree(folder, ignore_errors=True)
            unfinished.rename(folder)
            _flush(folder.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def prune(out: Path, keep: int) -> None:
    """Delete all checkpoints but the newest `keep`, and what a killed run left half-written."""
    left = (out / "checkpoints").glob(".step_*")
    for old in [*_folders(out)[: -max(1, keep)], *left]:
        shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def writing(what: Path) -> Iterator[None]:
    """Turns a failure to write `what` into NotSaved, which says what to do."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise NotSaved(
            f"could not write {what}: {error} What was saved before is whole. Is the disk full? "
            "Free space, then go on with the same command and --resume."
        ) from error


def newest(
    runs: Sequence[tuple[Path, TrainConfig]], world: int = 1
) -> tuple[list[Checkpoint], list[str]]:
    """The newest step at which every run (folder, config) has a whole checkpoint, for `world` processes.

    Returns their checkpoints, and what was wrong with newer ones. ValueError if there is none, or
    if one belongs to a run with other settings.
    """
    damaged: list[str] = []
    names = set.intersection(*({folder.name for folder in _folders(out)} for out, _ in runs))
    for name in sorted(names, reverse=True):
        try:
            saved = [_read(out / "checkpoints" / name) for out, _ in runs]
        except (OSError, ValueError, SafetensorError) as error:
            damaged.append(f"{name} is damaged and was left out: {error}")
            continue
        for checkpoint, (_, config) in zip(saved, runs, strict=True):
            _check_config(checkpoint, config, world)
        return saved, damaged
    reasons = " ".join(["", *damaged])
    raise ValueError(
        f"--resume: no checkpoint in {runs[0][0] / 'checkpoints'}.{reasons} Start without "
        "--resume, and with --checkpoint-every N."
    )


def shared_anew(out: Path, config: TrainConfig, world: int) -> TrainConfig:
    """`config` with the batch of each of `world` processes such that the run in `out` goes on exactly.

    What a step sees does not depend on how many processes deal it, as long as the batch of all together and
    the stream's shards stay. ValueError if they cannot.
    """
    folders, state = _folders(out), {}
    with contextlib.suppress(OSError, ValueError):  # a damaged one is left out when it is restored
        state = read_json(folders[-1] / STATE) if folders else {}
    then: Any = state.get("config")
    made_by: Any = state.get("n_processes")
    if not isinstance(then, dict) or not is_a(made_by, int) or made_by == world:
        given = state.get("given_batch_size") if isinstance(then, dict) else None
        return (
            replace(config, batch_size=then["batch_size"]) if given == config.batch_size else config
        )
    given = state.get("given_batch_size", then.get("batch_size"))
    if given != config.batch_size:
        return config  # other options: restoring says so
    whole = then["batch_size"] * made_by
    try:
        shards = [shards_for(whole, n, config.shards) for n in (made_by, world)]
    except ValueError:
        shards = [0, 1]
    if shards[0] != shards[1]:
        raise ValueError(
            f"--resume: {folders[-1]} was made by {made_by} processes with {whole} tokens a step, which "
            f"{world} cannot share alike; launch a number that divides {shards[0] or made_by}."
        )
    return replace(config, batch_size=whole // world)


def any_in(out: Path) -> bool:
    """Whether a run in `out`, or an SAE of its sweep, has saved anything yet."""
    return any(True for place in (out, *out.glob("*/")) for _ in _folders(place))


def _folders(out: Path) -> list[Path]:
    return sorted((out / "checkpoints").glob("step_*"))


def _flush(path: Path) -> None:
    """Wait until a file or folder is on the disk, so that a rename never comes before its bytes."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(folder: Path) -> Checkpoint:
    state = read_json(folder / STATE)
    for name, kinds in STATE_TYPES.items():
        if not is_a(state.get(name), *kinds):
            actual = f"{name} = {state.get(name)!r:.80}"
            raise ArtifactError(folder / STATE, actual, kinds[0].__name__, _OLDER)
    check_seal(folder / STATE, state, _OLDER)
    path = folder / TENSORS
    hashes = state.get("sha256")
    expected = hashes.get(TENSORS) if isinstance(hashes, dict) else None
    if (digest := sha256(path)) != expected:
        raise ArtifactError(path, f"sha256 {digest}", f"{expected}", _OLDER)
    return Checkpoint(folder, state, load_file(path))


def _is_whole(folder: Path) -> bool:
    try:
        _read(folder)
    except (OSError, ValueError, SafetensorError):
        return False
    return True


def _check_config(checkpoint: Checkpoint, config: TrainConfig, world: int) -> None:
    """The settings that shape a run must be those of the checkpoint; of the batch, that of all processes."""
    now = json.loads(json.dumps(asdict(config)))
    then = dict(checkpoint.state.get("config", {}))
    made_by = checkpoint.state["n_processes"]
    if made_by != world and then.get("batch_size", 0) * made_by == config.batch_size * world:
        then["batch_size"] = config.batch_size
    for name in sorted(now.keys() - NOT_THE_RUN):
        before = then.get(name)
        if name in PATHS and isinstance(before, str):  # older runs kept them as they were given
            before = local_path(before)
        if now[name] != before:
            raise ValueError(
                f"--resume: --{flag(name)} is {now[name]}, but {checkpoint.folder} was made with "
                f"{before}. Give the same options, or train into another --out."
            )
