"""The command line of training: TrainConfig's fields as options, recipes filled in.

Knows argparse. Knows nothing of data, models or the loop.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

from training.loop.config import TrainConfig, flag
from training.loop.recipes import RECIPES, with_recipe

DESCRIPTION = """Train a sparse autoencoder on the activations of a vision transformer.

  accelerate launch training/train.py --backbone bundled --data world --layer -2 \\
      --arch topk --d-sae 1024 --k 16 --steps 100 --out runs/first

The run's folder is an artifact that SparseAutoencoder.from_pretrained opens, from the first
checkpoint on. Ctrl-C saves a checkpoint; the same command with --resume goes on from it."""


def parse_config(argv: Sequence[str] | None = None) -> TrainConfig:
    """The command line as a config; errors leave with argparse's message and status 2."""
    parser = argparse.ArgumentParser(
        prog="accelerate launch training/train.py",
        description=DESCRIPTION,
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
    kinds = {int: int, int | None: int, float: float, float | None: float}
    arguments["type"] = kinds.get(option.type, str)
    if "choices" not in arguments:
        arguments["metavar"] = {int: "N", float: "X"}.get(arguments["type"], "NAME")
    return arguments
