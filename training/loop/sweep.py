"""Several SAEs from one stream of activations: which options they differ in, and their folders.

    --sweep "d_sae=1024,2048;k=8,16"       every combination
    --sweep FILE.json or FILE.toml         {"d_sae": [1024, 2048], "k": [8, 16]}: the same
                                           {"runs": [{"d_sae": 1024, "k": 8}, …]}: these alone

Knows configs. Knows nothing of training.
"""

import dataclasses
import itertools
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.loop.config import TrainConfig

SWEEPABLE = ("arch", "d_sae", "expansion", "k", "groups", "l1", "loss", "mse_cls", "ghost", "init")
SWEEPABLE += ("b_dec", "scale", "lr", "warmup", "decay", "aux", "dead_after", "dead_steps", "clip")
SWEEPABLE += ("threshold_start", "threshold_decay", "seed")
"""Options that belong to an SAE alone; all others belong to the stream that the SAEs share."""
MOST = 64
"""SAEs of a sweep at most."""


def members(config: TrainConfig, d_model: int) -> list[TrainConfig]:
    """The configs of the SAEs that a run trains: its own, or those of its sweep.

    A member's folder, and the repository it is pushed to, is named after what it differs in.
    ValueError if the sweep names an option that is not an SAE's own, or a value that cannot work.
    """
    if config.sweep is None:
        return [config.for_width(d_model)]
    runs = [_whole(changes) for changes in _read(config.sweep)]
    if not 1 <= len(runs) <= MOST or not all(runs):
        n = len(runs) if all(runs) else 0
        raise ValueError(f"--sweep {config.sweep!r} asks for {n} SAEs; give 1 to {MOST}.")
    found = [_member(config, changes, d_model) for changes in runs]
    if len({member.out for member in found}) < len(found):
        raise ValueError(f"--sweep {config.sweep} asks for the same SAE twice.")
    return found


def _read(sweep: str) -> list[dict[str, Any]]:
    path = Path(sweep)
    if path.suffix not in (".json", ".toml"):
        return _combinations(dict(_option(part) for part in sweep.split(";") if part.strip()))
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise ValueError(f"--sweep {path} cannot be read: {error}") from error
    runs = content.get("runs") if isinstance(content, dict) else content
    if isinstance(runs, list) and all(isinstance(run, dict) for run in runs):
        return runs
    if isinstance(content, dict) and all(isinstance(values, list) for values in content.values()):
        return _combinations(content)
    raise ValueError(
        f'--sweep {path} must hold lists of values by option, or {{"runs": [options, …]}}.'
    )


def _option(part: str) -> tuple[str, list[Any]]:
    name, is_there, values = part.partition("=")
    if not is_there:
        raise ValueError(f"--sweep: {part!r} is not NAME=VALUE,VALUE,…")
    return name.strip(), [_value(value.strip()) for value in values.split(",")]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _combinations(lists: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(lists, one, strict=True)) for one in itertools.product(*lists.values())]


def _whole(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changes as TrainConfig's fields, each with a value of its kind."""
    fields = {field.name: field.type for field in dataclasses.fields(TrainConfig)}
    found = {}
    for name, value in changes.items():
        name = name.replace("-", "_")
        if name not in SWEEPABLE:
            raise ValueError(
                f"--sweep: {name!r} cannot differ between SAEs of one stream; these can: "
                f"{', '.join(SWEEPABLE)}."
            )
        kinds = {int: (int,), int | None: (int,), bool: (bool,), str: (str,)}
        wanted = kinds.get(fields[name], (int, float))
        if fields[name] == tuple[float, ...]:
            value, wanted = tuple(value) if isinstance(value, list) else value, (tuple,)
        if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
            raise ValueError(f"--sweep: {name} = {value!r} is not {wanted[-1].__name__}.")
        found[name] = value
    return found


def _member(config: TrainConfig, changes: dict[str, Any], d_model: int) -> TrainConfig:
    if "d_sae" in changes:
        config = dataclasses.replace(config, expansion=None)
    name = "_".join(f"{key}-{_word(value)}" for key, value in changes.items())
    push_to = f"{config.push_to}-{name}" if config.push_to else None
    own = {"out": str(Path(config.out) / name), "push_to": push_to, "sweep": None}
    return dataclasses.replace(config, **changes, **own).for_width(d_model)


def _word(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, tuple) else str(value)
