"""All rows of a leaderboard: SAEs that are given, linear baselines, small SAEs trained here, as one table.

Knows `training.loop.trainer`, what is kept already and how rows become Markdown. Knows nothing of how units
are scored (`training.leaderboard.score`). Small SAEs are trained on activations held in memory, also with a
random decoder that stays as it is: architectures, sizes and seeds differ in nothing else.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from sae.backbones import Backbone
from sae.config import BackboneRef, SAEConfig
from sae.metrics.baselines import LinearUnits, ica, neurons, pca
from sae.metrics.reconstruction import ReconstructionMeter
from sae.metrics.stability import stability
from sae.model import SparseAutoencoder
from training.leaderboard.kept import Kept, OutOfTime, Row
from training.leaderboard.scenes import FAMILIES, Half, activations_of, two_halves
from training.leaderboard.score import Latents, Linear, depth_of, score_units
from training.loop.config import TrainConfig
from training.loop.trainer import Trainer

FROZEN = "frozen"
"""In front of an architecture's name: its decoder stays random, only the rest learns."""
ICA_TOKENS = 30_000
COLUMNS = {
    "units": "units",
    "fvu": "FVU",
    "l0": "L0",
    "patch auroc": "AUROC",
    "patch f1": "F1",
    "patch completeness": "complete",
    "patch redundancy": "redundancy",
    "top patch hit": "top patch",
    "pointing game": "pointing",
    "iou": "IoU",
    "image auroc": "image AUROC",
    "image f1": "image F1",
    "image completeness": "image complete",
    "probe 1": "probe of 1",
    "probe 5": "probe of 5",
    "same directions in another seed": "seeds agree",
    "… in random dictionaries": "… at random",
}


def check_places(names: list[str], configs: list[SAEConfig]) -> None:
    """All SAEs must read the same layer of the same backbone: there is one table."""
    first = configs[0].backbone
    for name, cfg in zip(names, configs, strict=True):
        if (cfg.backbone.id, cfg.backbone.layer) != (first.id, first.layer):
            raise ValueError(
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
        return Backbone.of(self.ref, self.args.backbone)

    @cached_property
    def halves(self) -> tuple[Half, Half]:
        """Scenes to choose units on, and to score them on."""
        args = self.args
        return two_halves(self.backbone, self.ref.layer, args.seed, args.n_scenes, self.kept)

    @cached_property
    def to_train_on(self) -> Float[Tensor, "scenes tokens d_in"]:
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
            row = self.kept.row(f"{name} {label}", partial(self._of_sae, sae))
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
            row = self.kept.row(name, partial(self._of_linear, make))
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
                    row = self.kept.row(one, partial(self._of_sae, sae))
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
        figures = {**reconstruction_of(sae, half), **depth_of(sae, half)}
        return figures | score_units(Latents(sae), self.halves)


def _some(tokens: Tensor, n: int) -> Tensor:
    return tokens[torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))[:n]]


def measured(board: Board) -> dict:
    """All rows with means and spreads; OutOfTime if not even the baselines could be had."""
    given, baselines = board.given(), board.baselines()
    small, saes = board.small()
    merged = merge(given | baselines | small)
    for label, figures in agreement(saes).items():
        merged[label] |= figures
    return merged


def train_small(
    name: str,
    tokens: Float[Tensor, "tokens d_in"],
    where: BackboneRef,
    *,
    d_sae: int,
    k: int,
    steps: int,
    batch: int,
    seed: int,
    tokens_per_image: int,
) -> SparseAutoencoder:
    """An SAE of an architecture (or "frozen <architecture>") after `steps` on `tokens (n, d)`.

    Every seed walks the same tokens in another order. Recipe: the training command's own defaults.
    """
    arch = name.removeprefix(FROZEN).strip()
    config = TrainConfig(
        where.id, "world", "unused", arch=arch, d_sae=d_sae, k=k, steps=steps, batch_size=batch,
        seed=seed, aux=1 / 8,
    )  # fmt: skip
    trainer = Trainer(config, tokens.shape[1], Accelerator(cpu=True))
    trainer.start(tokens[: 16 * batch], tokens_per_image)
    if name.startswith(FROZEN):
        trainer.weights.W_dec.requires_grad_(False)
    trainer.prepare()
    generator = torch.Generator().manual_seed(seed)
    order, place = torch.randperm(len(tokens), generator=generator), 0
    for number in tqdm(range(steps), desc=f"{name} {d_sae} seed {seed}", unit="step"):
        if place + batch > len(order):
            order, place = torch.randperm(len(tokens), generator=generator), 0
        trainer.step(tokens[order[place : place + batch]], number)
        place += batch
    return trainer.to_sae(where)


def reference(backbone: Backbone, layer: int) -> BackboneRef:
    """Where the small SAEs' activations come from."""
    return BackboneRef(
        backbone.id, backbone.resolve_layer(layer), "all", backbone.revision, backbone.family
    )


def reconstruction_of(sae: SparseAutoencoder, half: Half) -> dict[str, float]:
    """FVU, L0 and dead share on a half's activations of the tokens the SAE was made for."""
    meter = ReconstructionMeter(sae)
    for part in half.view(sae.cfg.backbone.tokens).read(half.x).split(64):
        meter.update(part)
    whole = meter.result()
    return {"fvu": whole.fvu, "l0": whole.l0, "dead": whole.dead_fraction}


def agreement(saes: Mapping[str, Sequence[SparseAutoencoder]]) -> dict[str, dict[str, Any]]:
    """Mean cosine of matched decoder rows (centred) between seeds, beside random dictionaries with
    the same covariance, for every name with two SAEs or more."""
    by_name = {}
    for name, seeds in saes.items():
        pairs = [stability(a.W_dec, b.W_dec, match=True) for a, b in combinations(seeds, 2)]
        if pairs:
            same = [pair.found.matched for pair in pairs]
            chance = [pair.null_covariance.matched for pair in pairs]
            by_name[name] = {
                key: {"mean": float(np.mean(values)), "std": None, "n": len(pairs)}
                for key, values in (
                    ("same directions in another seed", same),
                    ("… in random dictionaries", chance),
                )
            }
    return by_name


def merge(rows: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, Any]]:
    """Mean, standard deviation over seeds (of a sample; None for one seed) and n of each figure."""
    merged: dict[str, dict[str, Any]] = {}
    for name, seeds in rows.items():
        merged[name] = {}
        for figure in seeds[0]:
            values = np.array([row[figure] for row in seeds])
            spread = float(values.std(ddof=1)) if len(values) > 1 else None
            merged[name][figure] = {"mean": float(values.mean()), "std": spread, "n": len(values)}
    return merged


def markdown(merged: Mapping[str, Mapping[str, Any]]) -> str:
    """The leaderboard, then patch F1 and image AUROC by family of factors, then depths."""
    parts = [_table(merged, COLUMNS)]
    for level, figure in (("patch", "f1"), ("image", "auroc")):
        columns = {f"{level} {figure} {family}": family for family in FAMILIES}
        parts.append(f"{level.capitalize()}-level {figure.upper()} by family of factors:\n")
        parts.append(_table(merged, columns))
    groups = {key: key for row in merged.values() for key in row if key.startswith("depth")}
    deep = {name: row for name, row in merged.items() if "depth" in row}
    if deep:
        parts.append("Levels of the taxonomy that the 16 top scenes of a latent share (of 3):\n")
        parts.append(_table(deep, groups))
    return "\n".join(parts)


def _table(merged: Mapping[str, Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    lines = ["| | " + " | ".join(columns.values()) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, figures in merged.items():
        cells = [_cell(key, figures.get(key)) for key in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(key: str, figure: Mapping[str, Any] | None) -> str:
    if figure is None or np.isnan(figure["mean"]):
        return "–"
    places = {"units": 0, "l0": 1, "patch redundancy": 1}.get(key, 3)
    spread = "" if figure["std"] is None or key == "units" else f" ± {figure['std']:.{places}f}"
    return f"{figure['mean']:.{places}f}{spread}"
