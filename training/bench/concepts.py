"""The leaderboard: do units find what is really in the picture? Scored against the emoji world's truth.

    python training/bench/concepts.py                        # the bundled SAE and its baselines
    python training/bench/concepts.py --saes runs/a runs/b   # your own SAEs of the same backbone and layer
    python training/bench/concepts.py --train --archs topk batch_topk --sizes 512 2048 --seeds 0 1

Factors are object kind, wider group, realm, background, size and drawing style, per patch and per image.
For each factor the best unit, its sign and its threshold are chosen on one half of held-out scenes; all
figures are of the other half. Beside every SAE stand raw neurons, PCA, ICA (all with both signs) and an SAE
whose random decoder stayed frozen. Means are over factors of a family, then over the six families.
AUROC, F1: of the best unit. complete: share of all factors with a unit at AUROC 0.9. redundancy: units at
0.9 of a factor that has one. top patch, pointing, IoU: where the kind's unit lies, against the object's
mask. image: by the maximum over tokens; the JSON has PatchSAE's mean over tokens too. probe: AUROC of kinds
by logistic regression on one and on five units. seeds agree: mean cosine of matched decoder rows.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # works from a bare clone
from sae.backbones import Backbone
from sae.config import ARCHITECTURES, SAEConfig
from sae.metrics.baselines import ica, neurons, pca
from sae.model import SparseAutoencoder
from training.leaderboard.scenes import Half, activations_of, two_halves
from training.leaderboard.score import depth_of, score_units
from training.leaderboard.small_saes import (
    FROZEN,
    agreement,
    reconstruction_of,
    reference,
    train_small,
)
from training.leaderboard.table import Row, markdown, merge
from training.leaderboard.units import Latents, Linear
from training.world.generator import HELD_OUT_SEED

ICA_TOKENS = 30_000


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--saes", "--sae", nargs="+", default=["bundled"], help="folders, Hub ids or 'bundled'"
    )
    parser.add_argument("--backbone", help="the SAEs' own unless given")
    parser.add_argument("--n-scenes", type=int, default=2400, help="to choose and to score on")
    parser.add_argument("--seed", type=int, default=HELD_OUT_SEED + 500, help="of these scenes")
    parser.add_argument("--train", action="store_true", help="train small SAEs and score them")
    parser.add_argument("--archs", nargs="+", default=list(ARCHITECTURES), choices=ARCHITECTURES)
    parser.add_argument("--sizes", nargs="+", type=int, default=[512, 2048])
    parser.add_argument("--seeds", nargs="+", type=int, default=None)
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--batch", type=int, default=4096, help="tokens a step")
    parser.add_argument("--train-scenes", type=int, default=None)
    parser.add_argument("--out", help="write the table (.md) and all figures (.json) beside it")
    return parser.parse_args()


def baselines(tokens: torch.Tensor) -> dict[str, Linear]:
    """Raw neurons and components fitted on training tokens `(n, d)`."""
    few = tokens[torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))]
    independent = ica(few[:ICA_TOKENS])
    name = "ICA" if independent.converged else "ICA (stopped before it converged)"
    units = {"raw neurons": neurons(tokens.shape[1]), "PCA": pca(tokens), name: independent}
    return {name: Linear(made) for name, made in units.items()}


def score_sae(sae: SparseAutoencoder, halves: tuple[Half, Half]) -> Row:
    """All figures of an SAE."""
    found = {**reconstruction_of(sae, halves[1]), **depth_of(sae, halves[1])}
    return found | score_units(Latents(sae), halves)


def check_places(names: list[str], found: list[SAEConfig]) -> None:
    """All SAEs must read the same layer of the same backbone: there is one table."""
    first = found[0].backbone
    for name, cfg in zip(names, found, strict=True):
        if (cfg.backbone.id, cfg.backbone.layer) != (first.id, first.layer):
            raise SystemExit(
                f"{name} reads layer {cfg.backbone.layer} of {cfg.backbone.id}, but {names[0]} "
                f"layer {first.layer} of {first.id}; score them in two tables."
            )


def small_runs(args: argparse.Namespace, sae: SparseAutoencoder) -> list[tuple]:
    """(row, architecture, size, k) of what is to be trained."""
    frozen = f"{FROZEN} batch_topk"
    if not args.train:
        return [("frozen random decoder", frozen, sae.cfg.d_sae, sae.cfg.k or args.k)]
    names = [*args.archs, frozen]
    return [(f"{name} {size}", name, size, args.k) for size in args.sizes for name in names]


def main() -> None:
    """Print the table."""
    args, began = options(), time.monotonic()
    args.seeds = args.seeds or ([0, 1] if args.train else [0])
    args.steps = args.steps or 400
    args.train_scenes = args.train_scenes or (4000 if args.train else 1500)
    saes = [SparseAutoencoder.from_pretrained(name) for name in args.saes]
    check_places(args.saes, [sae.cfg for sae in saes])
    ref = saes[0].cfg.backbone
    revision = ref.revision if args.backbone in (None, ref.id) else None
    backbone = Backbone.from_pretrained(args.backbone or ref.id, revision=revision)
    halves = two_halves(backbone, ref.layer, args.seed, args.n_scenes)
    x, _ = activations_of(backbone, ref.layer, 0, args.train_scenes, "scenes to train on")
    tokens = x.flatten(0, 1)
    rows: dict[str, list[Row]] = {}
    for name, sae in zip(args.saes, saes, strict=True):
        label = f"{name}: {sae.cfg.architecture} {sae.cfg.d_sae}"
        rows.setdefault(label, []).append(score_sae(sae, halves))
    for name, units in baselines(tokens).items():
        rows[name] = [score_units(units, halves)]
    where = reference(backbone, ref.layer)
    shape = {"steps": args.steps, "batch": args.batch, "tokens_per_image": x.shape[1]}
    trained: dict[str, list[SparseAutoencoder]] = {}
    for label, name, size, k in small_runs(args, saes[0]):
        for seed in args.seeds:
            sae = train_small(name, tokens, where, d_sae=size, k=k, seed=seed, **shape)
            trained.setdefault(f"{label}, {args.steps} steps", []).append(sae)
    rows |= {label: [score_sae(sae, halves) for sae in found] for label, found in trained.items()}
    merged = merge(rows)
    for label, found in agreement(trained).items():
        merged[label] |= found
    report(args, merged, len(tokens), time.monotonic() - began)


def report(args: argparse.Namespace, merged: dict, n_tokens: int, seconds: float) -> None:
    """Print the table and what it rests on; write both files where asked."""
    said = (
        f"{args.n_scenes} held-out scenes (seed {args.seed}), one half to choose, one to score; "
        f"small SAEs: k = {args.k if args.train else 'as the first'}, {args.steps} steps of "
        f"{args.batch} of {n_tokens:,} tokens, seeds {args.seeds}. {seconds:.0f} s."
    )
    text = f"{markdown(merged)}\n{said}\n"
    print(text)
    if args.out:
        out = Path(args.out)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.with_suffix(".md").write_text(text, encoding="utf-8")
        content = {"options": vars(args), "seconds": round(seconds, 1), "rows": merged}
        out.with_suffix(".json").write_text(json.dumps(content, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
