"""Measure a sparse autoencoder on held-out images, and print the figures as JSON.

    python training/evaluate.py --sae runs/first --data world
    python training/evaluate.py --sae user/name --data path/to/images --n-images 500

fvu is the share of variance (around the mean) left unexplained, for all tokens and by kind; l0 the
active latents per token; dead, rare (under 1 in 10,000 tokens) and dense (over 1 in 10) latents are
shares of all. Baselines with as many numbers per token as the SAE has active latents: the largest raw
neurons, and principal components (of tokens that the SAE was trained on). Zero-shot accuracy, where the
backbone has text and the images have labels, with activations as they are, reconstructed, and with CLS
alone reconstructed, by the SAE and by the baselines.

Knows what is printed and how baselines reconstruct. `training.evaluation.holdout` decides what is held out,
the passes are in `training.evaluation.measure` and `training.evaluation.zero_shot`.
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch
from torch import Tensor

from sae.backbones import Backbone
from sae.metrics.baselines import LinearUnits, pca
from sae.model import SparseAutoencoder
from training.data.feeds import held_out_activations
from training.data.sources import ImageSource
from training.data.store import StoredRows, check_fits
from training.evaluation.holdout import what_is_held_out
from training.evaluation.measure import figures, measure
from training.evaluation.zero_shot import zero_shot
from training.launch import command

FIT_IMAGES = 400
"""Training images that the baselines are fitted on."""
FIT_TOKENS = 200_000


@command
def main(argv: list[str]) -> None:
    """Run the command line."""
    figures_found = evaluate(**vars(_parse(argv)))
    print(json.dumps(figures_found, indent=2, ensure_ascii=False))  # noqa: T201


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
    fitting, fitted_on = _fitting_activations(source, held_out, trained, model, image_batch)
    baselines = Baselines(fitting)
    (measured,) = measure(
        [trained], model, held_out, image_batch=image_batch, also=baselines.update
    )
    found = {
        "sae": sae,
        "data": data,
        "held_out": statement,
        "n_images": measured.n_images,
        "n_tokens": measured.found.n_tokens,
        **figures(measured),
        "baselines": {**baselines.at(measured.found.l0), "fitted_on": fitted_on},
    }
    try:
        if not isinstance(held_out, ImageSource):
            raise ValueError(f"{data} is a store, which holds no images")
        others = source if isinstance(source, ImageSource) and source is not held_out else None
        found["zero_shot"] = zero_shot(
            trained,
            model,
            held_out,
            image_batch=image_batch,
            others=others,
            baselines=baselines.reconstructions(measured.found.l0),
        )
    except ValueError as reason:
        found |= {"zero_shot": None, "zero_shot_missing_because": str(reason)}
    return found


class Baselines:
    """FVU of keeping k numbers a token: the largest raw neurons, or the first k components."""

    def __init__(self, fitted_on: Tensor) -> None:
        self._units: LinearUnits = pca(fitted_on)
        d = fitted_on.shape[1]
        self._components, self._neurons = (torch.zeros(d, dtype=torch.float64) for _ in range(2))
        self._total, self._n = 0.0, 0
        self._sum, self._squares = torch.zeros(d, dtype=torch.float64), 0.0

    def update(self, activations: Tensor) -> None:
        """Add activations `(images, tokens, d_in)`."""
        x = activations.flatten(0, 1).float().cpu()
        away = x - self._units.centre
        self._components += self._units(x).double().square().sum(0)
        squares = away.double().square()
        self._neurons += squares.sort(dim=1, descending=True).values.sum(0)
        self._total += float(squares.sum())
        self._sum += away.double().sum(0)
        self._n += len(x)

    def at(self, l0: float) -> dict[str, Any]:
        """FVU at k = the SAE's L0, rounded."""
        k = self._k(l0)
        spread = self._total - float(self._sum.square().sum()) / self._n
        kept = {"pca_fvu": self._components, "raw_neurons_fvu": self._neurons}
        return {"k": k} | {
            name: (self._total - float(parts[:k].sum())) / spread for name, parts in kept.items()
        }

    def reconstructions(self, l0: float) -> dict[str, Callable[[Tensor], Tensor]]:
        """Activations `(*, d_in)` as each baseline keeps them, with k numbers a token."""
        k, centre, directions = self._k(l0), self._units.centre, self._units.directions

        def components(x: Tensor) -> Tensor:
            first = directions[:k].to(x.device)
            away = x.float() - centre.to(x.device)
            return centre.to(x.device) + away @ first.T @ first

        def neurons(x: Tensor) -> Tensor:
            away = x.float() - centre.to(x.device)
            kept = away.abs().topk(k, dim=-1).indices
            sparse = torch.zeros_like(away).scatter_(-1, kept, away.gather(-1, kept))
            return centre.to(x.device) + sparse

        return {"pca": components, "raw_neurons": neurons}

    def _k(self, l0: float) -> int:
        return max(1, min(len(self._sum), round(l0)))


def _fitting_activations(
    source: Any, held_out: Any, trained: SparseAutoencoder, backbone: Backbone, image_batch: int
) -> tuple[Tensor, str]:
    """Activations `(tokens, d_in)` that the baselines are fitted on, and whose they are.

    Those of up to FIT_IMAGES training images, or as many rows of a store; where these are not at
    hand, the measured ones themselves, which is in the baselines' favour.
    """
    where = trained.cfg.backbone
    if isinstance(source, StoredRows):
        plan = source.manifest.plan
        with contextlib.suppress(ValueError):  # a store of something else is of no use here
            check_fits(plan, source.folder, backbone, where.layer, plan.tokens)
            rows = source.some(FIT_TOKENS)
            return rows, f"{len(rows)} tokens of {source.name}"
    name = "the measured images themselves, in the baselines' favour"
    if isinstance(source, ImageSource) and source is not held_out:
        some = np.arange(FIT_IMAGES) if source.numbers is None else source.numbers[:FIT_IMAGES]
        held_out = replace(source, numbers=some)
        name = f"{len(some)} training images ({source.name})"
    found, n = [], 0
    for batch in held_out_activations(
        held_out, backbone, where.layer, where.tokens, image_batch=image_batch
    ):
        found.append(batch.flatten(0, 1).float().cpu())
        n += len(found[-1])
        if n >= FIT_TOKENS:
            break
    if not found:
        raise ValueError(f"not one image of {name} can be read; give other --data.")
    return torch.cat(found), name


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python training/evaluate.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sae", required=True, help="folder or Hub id of the SAE, or 'bundled'")
    parser.add_argument("--data", required=True, help="images, as for training/train.py")
    parser.add_argument("--n-images", type=int, default=512, help="at most this many (512)")
    parser.add_argument("--image-batch", type=int, default=32, help="images per forward (32)")
    parser.add_argument("--backbone", help="where the SAE's backbone is, if not where it says")
    options = parser.parse_args(argv)
    if options.n_images < 1 or options.image_batch < 1:
        parser.error("--n-images and --image-batch must be at least 1")
    return options


if __name__ == "__main__":
    sys.exit(main())
