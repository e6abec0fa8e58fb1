"""Measure a sparse autoencoder on held-out images, and print the figures as JSON.

    python training/evaluate.py --sae runs/first --data world
    python training/evaluate.py --sae user/name --data path/to/images --n-images 500

fvu is the share of variance (around the mean) left unexplained, for all tokens and by kind; l0 the
active latents per token; dead, rare (under 1 in 10,000 tokens) and dense (over 1 in 10) latents are
shares of all. Baselines with as many numbers per token as the SAE has active latents: the largest raw
neurons, and principal components (of tokens that the SAE was trained on). Zero-shot accuracy, where the
backbone has text and the images have labels, with activations as they are, reconstructed, and with CLS
alone reconstructed, by the SAE and by the baselines.

Knows what is printed. `training.evaluation.holdout` decides what is held out, `baselines` what stands beside
the SAE; the passes are in `measure` and `zero_shot`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    __import__("training")  # a Ctrl-C from here on ends in a sentence

import torch

from sae.backbones import Backbone
from sae.model import SparseAutoencoder
from sae.terminal import command, described, print_json
from training.data.sources import ImageSource
from training.evaluation.baselines import Baselines, fitting_activations
from training.evaluation.holdout import what_is_held_out
from training.evaluation.measure import figures, measure, n_unreadable
from training.evaluation.zero_shot import zero_shot


@command
def main(argv: list[str]) -> None:
    """Run the command line."""
    print_json(evaluate(**vars(_parse(argv))))


def evaluate(
    sae: str, data: str, n_images: int = 512, image_batch: int = 32, backbone: str | None = None
) -> dict[str, Any]:
    """All figures of the SAE in `sae` (a folder or Hub id) on images of `data`, JSON values."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    trained = SparseAutoencoder.from_pretrained(sae).to(device)
    source, held_out, statement = what_is_held_out(sae, data, n_images)
    model = Backbone.of(trained.cfg.backbone, backbone, device=device)
    if model.d_model != trained.cfg.d_in:
        raise ValueError(
            f"{model.id} has activations of width {model.d_model}, the SAE in {sae} takes "
            f"{trained.cfg.d_in}; give its own --backbone."
        )
    fitting, fitted_on = fitting_activations(source, held_out, trained, model, image_batch)
    baselines = Baselines(fitting)
    (measured,) = measure(
        [trained], model, held_out, image_batch=image_batch, also=baselines.update
    )
    answer = {
        "sae": sae,
        "data": data,
        "held_out": statement,
        "n_images": measured.n_images,
        "n_unreadable": n_unreadable(held_out, measured),
        "n_tokens": measured.whole.n_tokens,
        **figures(measured),
        "baselines": {**baselines.at(measured.whole.l0), "fitted_on": fitted_on},
    }
    try:
        if not isinstance(held_out, ImageSource):
            raise ValueError(f"{data} is a store, which holds no images")
        others = source if isinstance(source, ImageSource) and source is not held_out else None
        answer["zero_shot"] = zero_shot(
            trained,
            model,
            held_out,
            image_batch=image_batch,
            others=others,
            baselines=baselines.reconstructions(measured.whole.l0),
        )
    except ValueError as reason:
        answer |= {"zero_shot": None, "zero_shot_missing_because": str(reason)}
    return answer


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=described(__doc__, "evaluate"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sae", required=True, help="folder or Hub id of the SAE, or 'bundled'")
    parser.add_argument("--data", required=True, help="images, as for patchlens train")
    parser.add_argument("--n-images", type=int, default=512, help="at most this many (512)")
    parser.add_argument("--image-batch", type=int, default=32, help="images per forward (32)")
    parser.add_argument("--backbone", help="where the SAE's backbone is, if not where it says")
    options = parser.parse_args(argv)
    if options.n_images < 1 or options.image_batch < 1:
        parser.error("--n-images and --image-batch must be at least 1")
    return options


if __name__ == "__main__":
    sys.exit(main())
