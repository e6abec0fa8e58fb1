"""Rows of figures to mean and spread over seeds, as Markdown and JSON. Knows names and numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from training.world.factors import FAMILIES

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
Row = dict[str, float]


def merge(rows: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, Any]]:
    """Mean, standard deviation over seeds (of a sample; None for one seed) and n of each figure."""
    found: dict[str, dict[str, Any]] = {}
    for name, seeds in rows.items():
        found[name] = {}
        for figure in seeds[0]:
            values = np.array([row[figure] for row in seeds])
            spread = float(values.std(ddof=1)) if len(values) > 1 else None
            found[name][figure] = {"mean": float(values.mean()), "std": spread, "n": len(values)}
    return found


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
