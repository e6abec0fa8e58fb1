"""What a command line asks for: TrainConfig's fields as options, a paper's recipe, several SAEs at once.

    --recipe NAME                          everything that a paper fixes; what is given explicitly wins
    --sweep "d_sae=1024,2048;k=8,16"       several SAEs from one stream: every combination
    --sweep FILE.json or FILE.toml         {"d_sae": [1024, 2048], "k": [8, 16]}: the same
                                           {"runs": [{"d_sae": 1024, "k": 8}, …]}: these alone

Knows argparse, configs and both papers' numbers. Knows nothing of data, models or the loop.

PatchSAE (Lim et al., ICLR 2025, section 3 and appendix A): ReLU and L1 on all tokens of the layer
before the last, 64 times as many latents, each token's squared error divided by its norm, ghost
gradients, no scaling of the activations. Its code gives the decoder rows norm 1 before every
forward; here they get it after every step, which is the same training and saves unit rows.

Pach et al. (NeurIPS 2025, section 3 and appendix F): Matryoshka BatchTopK on CLS tokens that are
divided by their root mean square norm, AuxK, and one threshold averaged over the batches. The
learning rate is 0.0256 / sqrt(d_sae), as in its code (the paper prints five times as much).
"""

import argparse
import dataclasses
import itertools
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sae.terminal import described
from training.loop.config import TrainConfig, flag

DESCRIPTION = """Train a sparse autoencoder on the activations of a vision transformer.

  accelerate launch training/train.py --backbone bundled --data world --layer -2 \\
      --arch topk --d-sae 1024 --k 16 --steps 100 --out runs/first

The run's folder is an artifact that SparseAutoencoder.from_pretrained opens, from the first
checkpoint on. Ctrl-C saves a checkpoint; the same command with --resume goes on from it."""
SWEEPABLE = (
    *("arch", "d_sae", "expansion", "k", "groups", "l1", "loss", "mse_cls", "ghost", "init"),
    *("b_dec", "scale", "lr", "warmup", "decay", "aux", "dead_after", "dead_steps", "clip"),
    *("threshold_start", "threshold_decay", "seed"),
)
"""Options that belong to an SAE alone; all others belong to the stream that the SAEs share."""
MOST = 64
"""SAEs of a sweep at most."""
RECIPES: dict[str, dict[str, Any]] = {
    "patchsae": {
        "arch": "relu",
        "expansion": 64,
        "layer": -2,
        "tokens": "all",
        "loss": "patchsae",
        "l1": 8e-5,
        "mse_cls": 1.0,
        "ghost": True,
        "dead_steps": 64,
        "init": "independent",
        "b_dec": "image_median",
        "scale": "none",
        "batch_size": 128 * 197,
        "steps": 20_480,
        "lr": 4e-4,
        "warmup": 500,
        "decay": 0.0,
        "clip": 0.0,
        "checkpoint_every": 2048,
        "seed": 42,
    },
    "pach": {
        "arch": "matryoshka",
        "expansion": 64,
        "k": 20,
        "groups": (0.0625, 0.125, 0.25, 0.5625),
        "layer": -2,
        "tokens": "cls",
        "aux": 0.03,
        "dead_after": 10_000_000,
        "init": "uniform",
        "b_dec": "batch_median",
        "scale": "norm",
        "batch_size": 4096,
        "steps": 100_000,
        "warmup": 1000,
        "decay": 0.0,
        "clip": 1.0,
        "threshold_start": 1000,
        "threshold_decay": 0.999,
        "checkpoint_every": 20_000,
    },
}


def parse_config(argv: Sequence[str] | None = None) -> TrainConfig:
    """The command line as a config; errors leave with argparse's message and status 2."""
    parser = argparse.ArgumentParser(
        description=described(DESCRIPTION, "train"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    for option in dataclasses.fields(TrainConfig):
        parser.add_argument(f"--{flag(option.name)}", **_argument(option))
    given = vars(parser.parse_args(argv))
    if "groups" in given:
        given["groups"] = tuple(given["groups"])
    if {"d_sae", "expansion"} <= given.keys():
        parser.error("--d-sae and --expansion both set the number of latents; give one of them.")
    try:
        return TrainConfig(**(with_recipe(given["recipe"], given) if "recipe" in given else given))
    except ValueError as error:
        parser.error(str(error))


def _argument(option: dataclasses.Field) -> dict[str, Any]:
    """argparse's keywords for a field of TrainConfig."""
    arguments: dict[str, Any] = dict(option.metadata)
    if option.name == "recipe":
        arguments["choices"] = tuple(RECIPES)
    if option.type is bool:
        return {**arguments, "action": "store_true"}
    if option.default is dataclasses.MISSING:
        return {**arguments, "required": True, "metavar": option.name.upper()}
    if "nargs" in arguments:
        return {**arguments, "type": float, "metavar": "SHARE"}
    if option.default is not None:
        arguments["help"] += f" (default: {option.default})"
    kinds: dict[Any, type] = {int: int, int | None: int, float: float, float | None: float}
    arguments["type"] = kinds.get(option.type, str)
    if "choices" not in arguments:
        arguments["metavar"] = {int: "N", float: "X"}.get(arguments["type"], "NAME")
    return arguments


def with_recipe(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of recipe `name` under those that were `given` explicitly.

    In a run that is given fewer steps than the paper's, warm-up, the start of the threshold, the
    patience with dead latents and the time between checkpoints shrink to a tenth (the threshold's
    start: half; checkpoints: a fifth) of the run, so that each of them still happens.
    """
    recipe = dict(RECIPES[name])
    if "d_sae" in given:
        recipe.pop("expansion", None)
    options = {**recipe, **given, "recipe": name}
    steps = options["steps"]
    tokens = steps * options["batch_size"]
    limits = {
        "warmup": steps // 10,
        "threshold_start": steps // 2,
        "threshold_decay": 1 - 1 / max(1, steps // 10),
        "dead_steps": max(1, steps // 10),
        "dead_after": max(1, tokens // 10),
        "checkpoint_every": max(1, steps // 5),
    }
    for option, limit in limits.items():
        if option in recipe and option not in given:
            options[option] = min(recipe[option], limit)
    return options


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
    configs = [_member(config, changes, d_model) for changes in runs]
    if len({member.out for member in configs}) < len(configs):
        raise ValueError(f"--sweep {config.sweep} asks for the same SAE twice.")
    return configs


def _read(sweep: str) -> list[dict[str, Any]]:
    path = Path(sweep)
    if path.suffix not in (".json", ".toml"):
        return _combinations(dict(_one_option(part) for part in sweep.split(";") if part.strip()))
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


def _one_option(part: str) -> tuple[str, list[Any]]:
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
    whole = {}
    for name, value in changes.items():
        name = name.replace("-", "_")
        if name not in SWEEPABLE:
            raise ValueError(
                f"--sweep: {name!r} cannot differ between SAEs of one stream; these can: "
                f"{', '.join(SWEEPABLE)}."
            )
        kinds: dict[Any, tuple[type, ...]] = {int: (int,), bool: (bool,), str: (str,)}
        kinds[int | None] = (int,)
        wanted = kinds.get(fields[name], (int, float))
        if fields[name] == tuple[float, ...]:
            value, wanted = tuple(value) if isinstance(value, list) else value, (tuple,)
        if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
            raise ValueError(f"--sweep: {name} = {value!r} is not {wanted[-1].__name__}.")
        whole[name] = value
    return whole


def _member(config: TrainConfig, changes: dict[str, Any], d_model: int) -> TrainConfig:
    if "d_sae" in changes:
        config = dataclasses.replace(config, expansion=None)
    name = "_".join(f"{key}-{_word(value)}" for key, value in changes.items())
    push_to = f"{config.push_to}-{name}" if config.push_to else None
    own: dict[str, Any] = {"out": str(Path(config.out) / name), "push_to": push_to, "sweep": None}
    return dataclasses.replace(config, **changes, **own).for_width(d_model)


def _word(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, tuple) else str(value)
