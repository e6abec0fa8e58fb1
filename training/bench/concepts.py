"""The leaderboard: do units find what is really in the picture? Scored against the emoji world's truth.

    python training/bench/concepts.py                        # the bundled SAE and its baselines
    python training/bench/concepts.py --saes runs/a runs/b   # your own SAEs of the same backbone and layer
    python training/bench/concepts.py --train --sizes 512 2048 --seeds 0 1 --out runs/leaderboard --minutes 4

Factors are object kind, wider group, realm, background, size and drawing style, per patch and per image.
For each factor the best unit, its sign and its threshold are chosen on one half of held-out scenes; all
figures are of the other half. Beside every SAE stand raw neurons, PCA, ICA (all with both signs) and an SAE
whose random decoder stayed frozen, trained as long as the small SAE beside it. With --out a run keeps what it
has done, stops when its --minutes are over, and goes on when the same command is given again.
Means are over factors of a family, then over the six families.
AUROC, F1: of the best unit. complete: share of all factors with a unit at AUROC 0.9. redundancy: units at
0.9 of a factor that has one. top patch, pointing, IoU: where the kind's unit lies, against the object's
mask. image: by the maximum over tokens; the JSON has PatchSAE's mean over tokens too. probe: AUROC of kinds
by logistic regression on one and on five units. seeds agree: mean cosine of matched decoder rows.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # works from a bare clone
from sae.backbones import Backbone
from sae.config import ARCHITECTURES, SAEConfig
from sae.metrics.baselines import LinearUnits, ica, neurons, pca
from sae.model import SparseAutoencoder
from training.leaderboard.kept import Kept, OutOfTime
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
    add = parser.add_argument
    add("--saes", "--sae", nargs="+", default=["bundled"], help="folders, Hub ids or 'bundled'")
    add("--backbone", help="the SAEs' own unless given")
    add("--n-scenes", type=int, default=2000, help="to choose and to score on")
    add("--seed", type=int, default=HELD_OUT_SEED + 500, help="of these scenes")
    add("--train", action="store_true", help="train small SAEs of many kinds and score them")
    add("--archs", nargs="+", default=list(ARCHITECTURES), choices=ARCHITECTURES)
    add("--sizes", nargs="+", type=int, default=[512, 2048])
    add("--seeds", nargs="+", type=int, help="default: 0 1 with --train, else 0")
    add("--k", type=int, default=8)
    add("--steps", type=int, default=300, help="of every small SAE, frozen or not")
    add("--batch", type=int, default=4096, help="tokens a step")
    add("--train-scenes", type=int, help="default: 4000 with --train, else 1000")
    add("--out", help="write the table (.md), all figures (.json) and what is half done (.parts)")
    add("--minutes", type=float, help="stop before they are over; needs --out")
    args = parser.parse_args()
    if args.minutes is not None and not args.out:
        parser.error("--minutes needs --out, or what is done would be lost")
    args.seeds = args.seeds or ([0, 1] if args.train else [0])
    args.train_scenes = args.train_scenes or (4000 if args.train else 1000)
    return args


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
    """(row, architecture, size, k) of what is to be trained: never a frozen one alone."""
    frozen = f"{FROZEN} batch_topk"
    if not args.train:
        names, sizes, k = ["batch_topk", frozen], [sae.cfg.d_sae], sae.cfg.k or args.k
    else:
        names, sizes, k = [*args.archs, frozen], args.sizes, args.k
    return [
        (f"{name} {size}, {args.steps} steps", name, size, k) for size in sizes for name in names
    ]


class Board:
    """All rows of one run; what is kept already is not computed again, nor what it would need."""

    def __init__(self, args: argparse.Namespace, kept: Kept) -> None:
        self.args, self.kept, self.complete = args, kept, True
        self.saes = [SparseAutoencoder.from_pretrained(name) for name in args.saes]
        check_places(args.saes, [sae.cfg for sae in self.saes])
        self.ref = self.saes[0].cfg.backbone

    @cached_property
    def backbone(self) -> Backbone:
        """The SAEs' own unless another one is asked for."""
        revision = self.ref.revision if self.args.backbone in (None, self.ref.id) else None
        return Backbone.from_pretrained(self.args.backbone or self.ref.id, revision=revision)

    @cached_property
    def halves(self) -> tuple[Half, Half]:
        """Scenes to choose units on, and to score them on."""
        args = self.args
        return two_halves(self.backbone, self.ref.layer, args.seed, args.n_scenes, self.kept)

    @cached_property
    def to_train_on(self) -> Tensor:
        """Activations `(scenes, tokens, d)`."""
        what, n = "scenes to train on", self.args.train_scenes
        return self.kept.tensor(
            what, lambda: activations_of(self.backbone, self.ref.layer, 0, n, what)
        )

    def given(self) -> dict[str, list[Row]]:
        """The SAEs of the command line."""
        rows: dict[str, list[Row]] = {}
        for name, sae in zip(self.args.saes, self.saes, strict=True):
            label = f"{Path(name).name}: {sae.cfg.architecture} {sae.cfg.d_sae}"
            row = self.kept.row(f"{name} {label}", lambda sae=sae: self._of_sae(sae))
            rows.setdefault(label, []).append(row)
        return rows

    def baselines(self) -> dict[str, list[Row]]:
        """Raw neurons and components, fitted on training tokens."""
        makers = {
            "raw neurons": lambda tokens: neurons(tokens.shape[1]),
            "PCA": pca,
            "ICA": lambda tokens: ica(_some(tokens, ICA_TOKENS)),
        }
        rows = {}
        for name, make in makers.items():
            row = self.kept.row(name, lambda make=make: self._of_linear(make))
            rows[name if row["converged"] else f"{name} (stopped before it converged)"] = [row]
        return rows

    def small(self) -> tuple[dict[str, list[Row]], dict[str, list[SparseAutoencoder]]]:
        """Rows of the small SAEs, and the SAEs, by label; one a seed; fewer when time is over."""
        rows: dict[str, list[Row]] = {}
        saes: dict[str, list[SparseAutoencoder]] = {}
        for seed in self.args.seeds:
            for label, name, size, k in small_runs(self.args, self.saes[0]):
                one = f"{label} seed {seed}"
                make = partial(self._train, name, d_sae=size, k=k, seed=seed)
                try:
                    sae = self.kept.sae(one, make)
                    row = self.kept.row(one, lambda sae=sae: self._of_sae(sae))
                except OutOfTime:
                    self.complete = False
                    return rows, saes
                saes.setdefault(label, []).append(sae)
                rows.setdefault(label, []).append(row)
        return rows, saes

    def _train(self, name: str, **options: int) -> SparseAutoencoder:
        x, where = self.to_train_on, reference(self.backbone, self.ref.layer)
        shape = {"steps": self.args.steps, "batch": self.args.batch, "tokens_per_image": x.shape[1]}
        return train_small(name, x.flatten(0, 1), where, **options, **shape)

    def _of_linear(self, make: Callable[[Tensor], LinearUnits]) -> Row:
        units = make(self.to_train_on.flatten(0, 1))
        return score_units(Linear(units), self.halves) | {"converged": float(units.converged)}

    def _of_sae(self, sae: SparseAutoencoder) -> Row:
        half = self.halves[1]
        found = {**reconstruction_of(sae, half), **depth_of(sae, half)}
        return found | score_units(Latents(sae), self.halves)


def _some(tokens: Tensor, n: int) -> Tensor:
    return tokens[torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))[:n]]


def measured(board: Board) -> dict:
    """All rows with means and spreads; OutOfTime if not even the baselines could be had."""
    given, baselines = board.given(), board.baselines()
    small, saes = board.small()
    merged = merge(given | baselines | small)
    for label, found in agreement(saes).items():
        merged[label] |= found
    return merged


def main() -> None:
    """Print the table."""
    args, began = options(), time.monotonic()
    about = {k: v for k, v in vars(args).items() if k not in ("archs", "sizes", "seeds", "minutes")}
    folder = Path(args.out).with_suffix(".parts") if args.out else None
    board = Board(args, Kept(folder, about, args.minutes))
    try:
        report(args, measured(board), time.monotonic() - began)
    except OutOfTime:
        board.complete = False
    if not board.complete:
        print(f"{args.minutes:g} minutes are over; give the same command again to go on.")
        raise SystemExit(3)


def report(args: argparse.Namespace, merged: dict, seconds: float) -> None:
    """Print the table and what it rests on; write both files where asked."""
    said = (
        f"{args.n_scenes} held-out scenes (seed {args.seed}), one half to choose, one to score; "
        f"small SAEs: k = {args.k if args.train else 'as the first'}, {args.steps} steps of "
        f"{args.batch} tokens of {args.train_scenes} scenes, seeds {args.seeds}. {seconds:.0f} s."
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
