"""Measure a sparse autoencoder on held-out images, and print the figures as JSON.

    python training/evaluate.py --sae runs/first --data world
    python training/evaluate.py --sae user/name --data path/to/images --n-images 500

fvu is the share of variance (around the mean) left unexplained, for all tokens and by kind; l0 the
active latents per token; dead, rare (under 1 in 10,000 tokens) and dense (over 1 in 10) latents are
shares of all. Baselines with as many numbers per token as the SAE has active latents: the largest raw
neurons, and principal components. Zero-shot accuracy, where the backbone has text and the images have
labels, with activations as they are, reconstructed, and with CLS alone reconstructed.

Knows what is held out and what is printed. The passes are in `training.held_out`.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a bare clone

import numpy as np
import torch
from torch import Tensor

from sae.backbones import Backbone
from sae.hub import local_folder
from sae.metrics.baselines import LinearUnits, pca
from sae.model import SparseAutoencoder
from sae.storage import read_json
from training.held_out import figures, measure
from training.sources import ImageSource, open_source, open_whole
from training.store import is_store, open_store
from training.streams import held_out_activations
from training.zero_shot import zero_shot

FIT_IMAGES = 400
"""Training images that the baselines are fitted on."""
FIT_TOKENS = 200_000


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    options = _parse(argv)
    try:
        print(json.dumps(evaluate(**vars(options)), indent=2, ensure_ascii=False))  # noqa: T201
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def evaluate(
    sae: str, data: str, n_images: int = 512, image_batch: int = 32, backbone: str | None = None
) -> dict[str, Any]:
    """All figures of the SAE in `sae` (a folder or Hub id) on images of `data`, JSON values."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    trained = SparseAutoencoder.from_pretrained(sae).to(device)
    where = trained.cfg.backbone
    source, held_out, statement = what_is_held_out(sae, data, n_images)
    revision = where.revision if backbone is None else None
    model = Backbone.from_pretrained(backbone or where.id, revision=revision, device=device)
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
            trained, model, held_out, image_batch=image_batch, others=others
        )
    except ValueError as reason:
        found |= {"zero_shot": None, "zero_shot_missing_because": str(reason)}
    return found


def what_is_held_out(sae: str, data: str, n_images: int) -> tuple[Any, Any, str]:
    """Images to fit baselines on, held-out images, and a sentence on why they are held out.

    The data that the SAE was trained on gives its own held-out images. Other data is held out as a
    whole; a folder inside or around the training folder is refused, because it may share images.
    """
    trained_on, how = _training_data(sae)
    if data == "world" or _same(data, trained_on) or _same(_origin(data), trained_on):
        source, held_out = open_source(data, n_eval=n_images, **how)
        return source, held_out, f"{held_out.name}: never used in training"
    if _overlap(_origin(data), trained_on):
        raise ValueError(
            f"--data {data} and the training data {trained_on} lie within each other, so images may "
            f"be shared; give --data {trained_on} for its own held-out images, or another folder."
        )
    whole, n = open_whole(data)
    some = np.sort(np.random.default_rng(0).permutation(n)[:n_images])
    held_out = replace(whole, numbers=some, name=f"{data}, {len(some)} images")
    if not trained_on:
        why = "the SAE does not say what it was trained on, so take care that it never saw them"
        return held_out, held_out, f"{held_out.name}: {why}"
    try:
        source, _ = open_source(trained_on, n_eval=n_images, **how)
    except (ValueError, OSError):
        source = held_out
    return source, held_out, f"{held_out.name}: not what the SAE was trained on ({trained_on})"


def _training_data(sae: str) -> tuple[str, dict[str, Any]]:
    """What the SAE was trained on ("" if it does not say), and how open_source opens it."""
    try:
        record = read_json(local_folder(sae, files=("training.json",)) / "training.json")
    except (ValueError, OSError):
        return "", {"seed": 0}
    options = record.get("options")
    options = options if isinstance(options, dict) else {}
    how = {"seed": record.get("seed", 0), "streaming": bool(options.get("streaming"))}
    return _origin(str(options.get("data", ""))), how


def _origin(data: str) -> str:
    """The images that a store was made from; other data as it is."""
    if not is_store(data):
        return data
    return open_store(data).training.manifest.plan.data


def _same(data: str, other: str) -> bool:
    if other and Path(data).exists() and Path(other).exists():
        return Path(data).resolve() == Path(other).resolve()
    return data == other


def _overlap(data: str, other: str) -> bool:
    if not (other and Path(data).exists() and Path(other).exists()):
        return False
    one, two = Path(data).resolve(), Path(other).resolve()
    return one.is_relative_to(two) or two.is_relative_to(one)


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
        k = max(1, min(len(self._sum), round(l0)))
        spread = self._total - float(self._sum.square().sum()) / self._n
        kept = {"pca_fvu": self._components, "raw_neurons_fvu": self._neurons}
        return {"k": k} | {
            name: (self._total - float(parts[:k].sum())) / spread for name, parts in kept.items()
        }


def _fitting_activations(
    source: Any, held_out: Any, trained: SparseAutoencoder, backbone: Backbone, image_batch: int
) -> tuple[Tensor, str]:
    """Activations `(tokens, d_in)` that the baselines are fitted on, and whose they are.

    Those of up to FIT_IMAGES training images; where these are not at hand, the measured ones
    themselves, which is in the baselines' favour.
    """
    name = "the measured images themselves, in the baselines' favour"
    if isinstance(source, ImageSource) and source is not held_out:
        some = np.arange(FIT_IMAGES) if source.numbers is None else source.numbers[:FIT_IMAGES]
        held_out, name = replace(source, numbers=some), f"{len(some)} images of {source.name}"
    where, found, n = trained.cfg.backbone, [], 0
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
    main()
