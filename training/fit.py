"""Measures how well an SAE's concepts fit pictures of its own kind, so that the page can tell foreign ones.

    python training/fit.py --sae DIR --data DIR --held-out DIR

Knows the options; the measure is `sae.concepts.fit`. Writes fit.json into the SAE's folder.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    __import__("training")  # a Ctrl-C from here on ends in a sentence

from PIL import Image

from sae.backbones import Backbone
from sae.concepts.fit import Fit, always_on_of, fit_of, looks
from sae.concepts.index import ConceptIndex
from sae.hub import local_folder
from sae.model import SparseAutoencoder
from sae.storage import check_writable
from sae.terminal import command, described
from training.indexing.labelled import Labelled, World, open_labelled

HELD_OUT_SEED = 779
"""Scenes that no training, index or evaluation has seen."""


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=described(__doc__.split("\n\n")[0], "fit"),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--sae", default="bundled", help="artifact: 'bundled', 'photos' or a folder")
    add("--data", default="world", help="pictures of the index: as for index.py")
    add("--held-out", default="world", help="pictures of the same kind that no training saw")
    add("--n-images", type=int, default=6000, help="pictures of each, at most")
    add("--out", help="folder to write fit.json into (default: the folder of --sae)")
    return parser.parse_args(arguments)


@command
def main(argv: list[str]) -> None:
    """Measure and save; prints one JSON object."""
    options = parse(argv)
    folder = local_folder(options.sae, files=["config.json"])
    out = Path(options.out) if options.out else folder
    check_writable(out)
    sae = SparseAutoencoder.from_pretrained(options.sae)
    backbone = Backbone.of(sae.cfg.backbone)
    always_on = always_on_of(ConceptIndex.beside(options.sae), sae.cfg.d_sae)
    own = open_labelled(options.data, options.n_images)
    held_out = (
        World(options.n_images, HELD_OUT_SEED)
        if options.held_out == "world"
        else (open_labelled(options.held_out, options.n_images))
    )
    found = [looks(pictures(one), backbone, sae, always_on) for one in (own, held_out)]
    fit = fit_of(*found)
    fit.save(out)
    print(json.dumps(told(fit, found[1])))  # noqa: T201


def pictures(data: "World | Labelled") -> Iterator[Image.Image]:
    """Every picture that opens."""
    for number in range(len(data)):
        yield data[number].image


def told(fit: Fit, held_out: list) -> dict[str, object]:
    """What was measured, in short."""
    low, high = fit.usual()
    outside = sum(map(fit.is_outside, held_out)) / len(held_out)
    return {
        "n_images": fit.n_images,
        "n_held_out": fit.n_held_out,
        "explains_usually": [round(low, 4), round(high, 4)],
        "most_unexplained": round(fit.most_unexplained, 4),
        "least_strongest": round(fit.least_strongest, 4),
        "held_out_outside": round(outside, 4),
    }


if __name__ == "__main__":
    sys.exit(main())
