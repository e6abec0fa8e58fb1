"""Measures how well each latent steers CLIP and stores it in the artifact's concept index.

    python training/steerability.py --sae runs/mine --data path/to/images
    python training/steerability.py --sae user/name --data path/to/images --out runs/theirs

Steerability and power of Joseph et al. (2025), see `sae.steering.clip`; they become the
statistics "steerability" and "steering_power" of the index. Knows the options and the order of things.
"""

import argparse
import json
import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    __import__("training")  # a Ctrl-C from here on ends in a sentence

from tqdm import tqdm

from sae.backbones import Backbone
from sae.model import SparseAutoencoder
from sae.steering import ClipSteerer
from sae.steering.clip import steerability
from sae.storage import check_writable
from sae.terminal import command, described
from training.indexing.index_pass import index_folder
from training.steering.steerability import index_of, pictures, summary, words_for


@command
def main(argv: list[str]) -> None:
    """Measure, store and print one JSON object; see `--help`."""
    parser = argparse.ArgumentParser(
        description=described(__doc__.split("\n\n")[0], "steerability"),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--sae", default="bundled", help="'bundled', a folder or a Hub id")
    parser.add_argument(
        "--out", help="folder whose concepts/ gets the statistics (default: the folder of --sae)"
    )
    parser.add_argument("--data", default="world", help="'world', a folder, or as for training")
    parser.add_argument("--backbone", help="the SAE's own unless given")
    parser.add_argument("--n-images", type=int, default=16)
    parser.add_argument("--strength", type=float, default=2.0, help="times each latent's maximum")
    parser.add_argument(
        "--words", type=Path, help="one word a line; the shipped lists unless given"
    )
    parser.add_argument("--batch", type=int, default=64, help="latents at once")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-save", action="store_true", help="print only")
    args = parser.parse_args(argv)
    folder = None if args.no_save else index_folder(args.sae, args.out)
    if folder is not None:
        check_writable(folder)
    sae = SparseAutoencoder.from_pretrained(args.sae, device=args.device)
    index = index_of(args.sae, folder)
    backbone = Backbone.of(sae.cfg.backbone, args.backbone, device=args.device)
    words = words_for(args.data, args.words)
    with tqdm(total=args.n_images, desc="images") as bar:
        measured = steerability(
            ClipSteerer(backbone, sae, index=index),
            pictures(args.data, args.n_images),
            words,
            strength=args.strength,
            prompt="{}" if args.data == "world" else "a photo of a {}",
            batch=args.batch,
            progress=lambda done, _total: bar.update(done - bar.n),
        )
    if folder is not None:
        values = {"steerability": measured.steerability, "steering_power": measured.power}
        now = index_of(args.sae, folder)  # another command may have added to it meanwhile
        now.with_statistics(values).save_pretrained(folder)
    print(json.dumps(summary(measured, words), indent=1))  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
