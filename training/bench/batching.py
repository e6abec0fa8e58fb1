"""Whether pictures of several visitors should share a forward: python training/bench/batching.py

Times what the page does with a picture (backbone to the SAE's layer, encoding) for 1, 2, 4 and 8 pictures at
once, in turns within one run, and compares the answers. Prints milliseconds a picture and their ratio to one
alone; below 1 a shared forward would serve a full house faster. Knows the library alone.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __import__("training")  # a Ctrl-C from here on ends in a sentence

import numpy as np
import torch
from PIL import Image

from sae.backbones import Backbone
from sae.model import SparseAutoencoder
from sae.terminal import command, described

SIZES = (1, 2, 4, 8)


def answers(
    backbone: Backbone, sae: SparseAutoencoder, pixels: list[dict[str, torch.Tensor]]
) -> list[torch.Tensor]:
    """The latents (tokens, d_sae) of each of the pictures, by one forward."""
    joined = {name: torch.cat([one[name] for one in pixels]) for name in pixels[0]}
    x = backbone.activations(joined, sae.cfg.backbone.layer)
    return list(sae.encode(x))


@command
def main(argv: list[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=described(__doc__.split("\n\n")[0], "bench"))
    parser.add_argument("--sae", default="bundled")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's)")
    options = parser.parse_args(argv)
    if options.threads:
        torch.set_num_threads(options.threads)
    sae = SparseAutoencoder.from_pretrained(options.sae)
    backbone = Backbone.of(sae.cfg.backbone)
    rng = np.random.default_rng(0)
    pictures = [
        Image.fromarray(rng.integers(0, 256, (300, 400, 3), dtype=np.uint8))
        for _ in range(max(SIZES))
    ]
    pixels = [backbone.preprocess([picture]) for picture in pictures]
    taken: dict[int, list[float]] = {n: [] for n in SIZES}
    with torch.inference_mode():
        alone = [answers(backbone, sae, [one])[0] for one in pixels]
        together = answers(backbone, sae, pixels)
        differ = max(float((a - b).abs().max()) for a, b in zip(alone, together, strict=True))
        for _ in range(options.rounds):
            for n in SIZES:
                start = time.perf_counter()
                answers(backbone, sae, pixels[:n])
                taken[n].append((time.perf_counter() - start) / n)
    base = statistics.median(taken[1])
    print(f"{torch.get_num_threads()} threads; answers differ by {differ:.1e} at most")  # noqa: T201
    for n, times in taken.items():
        each = statistics.median(times)
        print(f"{n} at once: {1000 * each:6.1f} ms a picture, {each / base:.2f} of one alone")  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
