"""Sheets of exemplars to look at: what do the latents of an index show?

    python training/grids.py --index DIR --out DIR --n 20

One PNG a latent, drawn by `training.indexing.sheets`: its strongest images, where it fires in them, and one
image a decile of activation. Knows the options.
"""

import argparse
import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    __import__("training")  # a Ctrl-C from here on ends in a sentence

from sae.concepts.index import ConceptIndex
from sae.terminal import command, described
from training.indexing.sheets import sheet, spread_over_frequency


@command
def main(argv: list[str]) -> None:
    """Write OUT/<number>-<latent>.png."""
    parser = argparse.ArgumentParser(description=described(__doc__.split("\n\n")[0], "grids"))
    parser.add_argument("--index", default="bundled", help="'bundled', a folder or a Hub id")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--n", type=int, default=20, help="latents, at most")
    options = parser.parse_args(argv)
    index = ConceptIndex.from_pretrained(options.index)
    options.out.mkdir(parents=True, exist_ok=True)
    for number, latent in enumerate(spread_over_frequency(index, options.n)):
        sheet(index, latent).save(options.out / f"{number:02}-{latent}.png")


if __name__ == "__main__":
    sys.exit(main())
