"""Measures how well each latent steers CLIP and stores it in the artifact's concept index.

    python training/steerability.py --sae runs/mine --data path/to/images

Steerability and power of Joseph et al. (2025), see `sae.steering.steerability`; they become the
statistics "steerability" and "steering_power" of the index. Knows data and files; the measure itself
is in sae.
"""

import argparse
import json
import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from PIL import Image
from tqdm import tqdm

from sae.backbones import Backbone
from sae.concepts.index import ConceptIndex
from sae.model import SparseAutoencoder
from sae.steering import ClipSteerer
from sae.steering.steerability import Steerability, steerability
from training.launch import command

BUNDLED = Path(__file__).resolve().parents[1] / "sae" / "bundled" / "sae"
WORDS = (BUNDLED.parent / "words.txt", Path(__file__).parent / "steering" / "more_words.txt")
"""The shipped vocabulary: over 5,000 words, as many as the paper's."""
STEERABLE = 0.1
"""S above which Joseph et al. call a latent steerable."""


def world_words() -> list[str]:
    """The emoji world's nouns: kinds, groups, realms and backgrounds, all that its CLIP knows."""
    from sae.world.backgrounds import BACKGROUNDS
    from training.world.words import nouns

    return sorted({*nouns(), *BACKGROUNDS})


def read_words(path: Path) -> list[str]:
    """One word a line; empty lines and lines that begin with # are left out."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    words = list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    if not words:
        raise ValueError(f"{path} has no words; expected one a line")
    return words


def pictures(data: str, n: int) -> list[Image.Image]:
    """`n` held-out images of `data`, as training/train.py takes it."""
    if data == "world":
        from training.world.generator import HELD_OUT_SEED, images

        return [Image.fromarray(picture) for picture in images(HELD_OUT_SEED + 8800, n)[0]]
    from training.data.sources import open_source

    _, source = open_source(data, seed=0, n_eval=n)
    return [source.load(source.at(place, 0)) for place in range(min(n, len(source.numbers)))]


def summary(measured: Steerability, words: list[str]) -> dict[str, object]:
    """What is printed: the distribution, as the paper's notebooks give it."""
    s = measured.steerability[~np.isnan(measured.steerability)]
    power = measured.power[~np.isnan(measured.power)]
    best = np.argsort(-np.nan_to_num(measured.steerability, nan=-1.0))[:5]
    return {
        "n_latents": len(s),
        "n_images": measured.n_images,
        "n_words": measured.n_words,
        "steerability_mean": round(float(s.mean()), 4),
        "steerability_median": round(float(np.median(s)), 4),
        f"share_above_{STEERABLE}": round(float((s > STEERABLE).mean()), 4),
        "power_mean": round(float(power.mean()), 4),
        "coverage": round(measured.coverage, 4),
        "words_covered": len(np.unique(measured.word[measured.word >= 0])),
        "best": {int(latent): words[measured.word[latent]] for latent in best},
    }


@command
def main(argv: list[str]) -> None:
    """Measure, store and print one JSON object; see `--help`."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--sae", default="bundled", help="artifact folder with its concept index")
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
    sae = SparseAutoencoder.from_pretrained(args.sae, device=args.device)
    index = ConceptIndex.from_pretrained(args.sae)
    ref = sae.cfg.backbone
    backbone = Backbone.from_pretrained(args.backbone or ref.id, device=args.device)
    words = (
        read_words(args.words)
        if args.words
        else world_words()
        if args.data == "world"
        else list(dict.fromkeys(word for path in WORDS for word in read_words(path)))
    )
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
    if not args.no_save:
        values = {"steerability": measured.steerability, "steering_power": measured.power}
        folder = BUNDLED if args.sae == "bundled" else Path(args.sae)
        fresh = ConceptIndex.from_pretrained(
            args.sae
        )  # as it is now, should another have added to it
        fresh.with_statistics(values).save_pretrained(folder)
    print(json.dumps(summary(measured, words), indent=1))  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
