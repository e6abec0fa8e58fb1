"""Does a score tell a trained SAE from dictionaries that nobody trained? Printed as one table.

    python training/bench/untrained.py --out runs/untrained                   # the bundled SAE
    python training/bench/untrained.py --style fluent --out runs/fluent    # in a drawing style never seen
    python training/bench/untrained.py --layer 1 --out runs/layer1         # a small SAE is trained for it
    python training/bench/untrained.py --embedder bundled runs/efficientnet-lite0 --out runs/untrained

Beside the SAE stand raw neurons (signed means, as papers take them), neurons above thresholds at which they
fire as often as its latents, the k largest products with random directions and with random tokens of other
scenes, and chance. MonoSemanticity by each --embedder, mean over units, ± 1.96 standard deviations of a
bootstrap over scenes and units. left: FVU of the best linear decoder of each code, fitted on other scenes.
lift: (MS - chance) / (1 - chance), weighted by the variance that each unit explains. held-out: correlation of
a unit with the likeness of other scenes to its 16 strongest. Against the truth, a unit chosen on one half of
the scenes and scored on the other: image-level AUROC 0.9 of how many kinds, patch-level F1, share of all
factors with a unit at 0.9, IoU with the mask. What is done is kept in --out.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __import__("training")  # a Ctrl-C from here on ends in a sentence

import numpy as np
import torch
from jaxtyping import Float, Float32
from PIL import Image
from scipy import sparse
from torch import Tensor

from sae.backbones import Backbone
from sae.backbones.image_encoder import image_encoder
from sae.metrics.baselines import neurons
from sae.metrics.decoding import best_linear_fvu
from sae.metrics.untrained import CHANCE, untrained
from sae.model import SparseAutoencoder
from sae.terminal import command
from sae.world.scenes import TRAINING_STYLES, compose
from sae.world.tasks import HELD_OUT_SEED
from training.evaluation.likeness import chance, held_out_likeness, lift, likeness
from training.leaderboard.board import reference, train_small
from training.leaderboard.kept import Kept, Row
from training.leaderboard.scenes import Half, activations_of, two_halves
from training.leaderboard.score import Encode, Linear, SparseUnits, score_units
from training.world.generator import scenes

DECODED = 30_000
"""Held-out tokens that the best linear decoder is measured on."""
TRUTH = {
    "image kinds at 0.9": "kinds ≥ 0.9",
    "patch f1": "F1",
    "patch completeness": "complete",
    "iou": "IoU",
}


class Dictionary(NamedTuple):
    """Units of one kind."""

    encode: Encode | None
    """None for raw neurons, which are dense and have two signs."""
    n_units: int


@command
def main(argv: list[str]) -> None:
    """See `--help`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--sae", default="bundled", help="folder, Hub id or 'bundled'")
    add("--backbone", help="the SAE's own unless given")
    add(
        "--layer",
        type=int,
        help="instead of --sae: a small SAE of this layer, trained on the fit scenes",
    )
    add(
        "--style",
        help="a drawing style, such as fluent, which no training saw; default: both it saw",
    )
    add(
        "--embedder",
        nargs="*",
        default=["bundled"],
        help="image encoders; none: no MonoSemanticity",
    )
    add("--n-scenes", type=int, default=1500, help="to measure on")
    add(
        "--fit-scenes",
        type=int,
        default=400,
        help="others, of the styles of training, for thresholds, tokens and decoders",
    )
    add("--seed", type=int, default=HELD_OUT_SEED + 700, help="of the scenes to measure on")
    add("--seeds", type=int, nargs="+", default=[0], help="of the untrained dictionaries")
    add("--draws", type=int, default=40, help="of the bootstrap")
    add("--only", nargs="+", help="these rows alone, such as SAE 'random tokens'")
    add("--no-truth", action="store_true", help="leave out what the masks say")
    add("--out", required=True)
    args = parser.parse_args(argv)
    text = table(rows_of(args), args.embedder, not args.no_truth)
    Path(args.out).with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


def rows_of(args: argparse.Namespace) -> dict[str, Row]:
    """The figures of every dictionary."""
    about = {
        k: v
        for k, v in vars(args).items()
        if k not in ("embedder", "seeds", "out", "no_truth", "only")
    }
    kept = Kept(Path(args.out), json.loads(json.dumps(about)))
    given = None if args.layer is not None else SparseAutoencoder.from_pretrained(args.sae)
    if given is None:
        backbone = Backbone.from_pretrained(args.backbone or "bundled")
    else:
        backbone = Backbone.of(given.cfg.backbone, args.backbone)
    layer, n = (
        backbone.resolve_layer(given.cfg.backbone.layer if given else args.layer),
        args.n_scenes,
    )
    styles = (args.style,) if args.style else TRAINING_STYLES
    fit = kept.tensor(
        "scenes to fit on", lambda: activations_of(backbone, layer, 0, args.fit_scenes, "to fit on")
    )
    sae = given or kept.sae("small SAE", lambda: small(backbone, layer, fit))
    fit = fit.flatten(0, 1)
    halves = two_halves(backbone, layer, args.seed, n, kept, styles=styles)
    vectors = {
        name: kept.tensor(
            f"vectors {Path(name).name}",
            lambda n=name: embedded(n, args.seed, args.n_scenes, styles),
        ).squeeze(1)
        for name in args.embedder
    }
    return {
        label: kept.row(
            f"{label} {'truth' * (not args.no_truth)} {' '.join(Path(v).name for v in vectors)}",
            lambda d=one: figures(d, fit, halves, vectors, args),
        )
        for label, one in dictionaries(sae, fit, args.seeds).items()
        if not args.only or label in args.only
    } | {CHANCE: {f"MS {name}": chance(e) for name, e in vectors.items()}}


def small(
    backbone: Backbone, layer: int, fit: Float[Tensor, "scenes tokens d_in"]
) -> SparseAutoencoder:
    """An SAE of 1,024 latents after 200 steps."""
    shape = {"d_sae": 1024, "k": 8, "steps": 200, "batch": 2048, "seed": 0}
    where, flat = reference(backbone, layer), fit.flatten(0, 1)
    return train_small("batch_topk", flat, where, tokens_per_image=fit.shape[1], **shape)


def dictionaries(
    sae: SparseAutoencoder, fit: Float[Tensor, "tokens d_in"], seeds: list[int]
) -> dict[str, Dictionary]:
    """By name; those that nobody trained once a seed."""
    indices = [sae.encode_sparse(part) for part in fit.split(1 << 14)]
    fires = torch.zeros(sae.cfg.d_sae)
    for values, places in indices:
        fires += torch.bincount(places[values > 0], minlength=sae.cfg.d_sae)
    found = {
        "SAE": Dictionary(sae.encode_sparse, sae.cfg.d_sae),
        "raw neurons": Dictionary(None, fit.shape[1]),
    }
    for seed in seeds:
        for one in untrained(fit, fires / len(fit), seed=seed):
            name = one.name if seed == seeds[0] else f"{one.name}, seed {seed}"
            found[name] = Dictionary(one.encode_sparse, one.n_units)
    return found


def embedded(
    embedder: str, seed: int, n: int, styles: tuple[str, ...]
) -> Float32[Tensor, "scenes one d"]:
    """Unit vectors of the scenes to measure on."""
    encode, stream, parts = image_encoder(embedder), scenes(seed, styles=styles), []
    for start in range(0, n, 32):
        some = [Image.fromarray(compose(next(stream)).image) for _ in range(min(32, n - start))]
        parts.append(encode(some).float().cpu())
    return torch.cat(parts)[:, None].clone()


def figures(
    dictionary: Dictionary,
    fit: Float[Tensor, "tokens d_in"],
    halves: tuple[Half, Half],
    vectors: dict[str, Float[Tensor, "scenes d"]],
    args: argparse.Namespace,
) -> Row:
    """All figures of one dictionary."""
    encode, row = dictionary.encode, {"units": float(dictionary.n_units)}
    units: Any = Linear(neurons(fit.shape[1]))
    if encode is not None:
        units = SparseUnits(encode, dictionary.n_units, "all")
        held = torch.cat([half.x for half in halves]).flatten(0, 1)[:DECODED]
        held_code = matrix(encode, held, dictionary.n_units)
        code = matrix(encode, fit, dictionary.n_units)
        row |= {
            "l0": float(held_code.nnz / held_code.shape[0]),
            "left": best_linear_fvu(code, fit.numpy(), held_code, held.numpy()),
        }
    stacked = stack([units.values(half).mean for half in halves])
    for name, e in vectors.items():
        found = likeness(stacked, e, draws=args.draws)
        row |= {f"MS {name}": found.mean, f"MS {name} ±": 1.96 * found.spread}
        row[f"held-out {name}"] = held_out_likeness(stacked, e)
        if encode is not None:
            row[f"lift {name}"] = lift(found, code, fit)
    if not args.no_truth:
        truth = score_units(units, halves, probes=False)
        row |= {name: truth[name] for name in TRUTH}
    return row


def matrix(encode: Encode, x: Float[Tensor, "tokens d_in"], n_units: int) -> sparse.csr_array:
    """Codes `(tokens, n_units)` as a sparse array."""
    with torch.inference_mode():
        code = encode(x)
    row, place = (code.values > 0).nonzero(as_tuple=True)
    entries = code.values[row, place].numpy(), (row.numpy(), code.indices[row, place].numpy())
    return sparse.csr_array(entries, shape=(len(x), n_units))


def stack(parts: list[Any]) -> Any:
    """Both halves' images below one another."""
    if sparse.issparse(parts[0]):
        return sparse.csr_array(sparse.vstack(parts))
    return np.concatenate(parts)


def table(rows: dict[str, Row], embedders: list[str], truth: bool) -> str:
    """Markdown, a row a dictionary."""
    columns: dict[str, Callable[[Row], str]] = {}

    def add(label: str, key: str, places: int = 3) -> None:
        columns[label] = lambda row: f"{row[key]:.{places}f}" if key in row else "–"

    add("units", "units", 0)
    add("L0", "l0", 1)
    for name in embedders:
        short = Path(name).name
        columns[f"MS ({short})"] = lambda row, n=name: (
            f"{row[f'MS {n}']:.3f}" + (f" ± {row[f'MS {n} ±']:.3f}" if f"MS {n} ±" in row else "")
        )
        add(f"lift ({short})", f"lift {name}")
        add(f"held-out ({short})", f"held-out {name}")
    add("left", "left")
    for key, label in TRUTH.items() if truth else ():
        add(label, key)
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in rows.items():
        lines.append(f"| {name} | " + " | ".join(cell(row) for cell in columns.values()) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
