"""How fast scenes are composed on one core: `python training/bench/scenes.py`."""

import sys
import time
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __import__("training")  # a Ctrl-C from here on ends in a sentence

import numpy as np

from sae.terminal import command
from sae.world.scenes import compose
from training.world.generator import sample_scene


@command
def main(_argv: list[str]) -> None:
    """Print scenes a second, drawn alone and sampled and drawn; sprites are warmed up first."""
    n, rng = 3000, np.random.default_rng(0)
    for _ in range(4000):
        compose(sample_scene(rng))
    began = time.perf_counter()
    scenes = [sample_scene(rng) for _ in range(n)]
    sampled = time.perf_counter()
    for scene in scenes:
        compose(scene)
    done = time.perf_counter()
    print(f"compose alone: {n / (done - sampled):,.0f} scenes/s on one core")
    print(f"sample and compose: {n / (done - began):,.0f} scenes/s on one core")


if __name__ == "__main__":
    sys.exit(main())
