"""Pictures of a finished run: loss, FVU, L0 and dead latents over the steps, as PNG.

Knows progress.jsonl's lines and matplotlib. Knows nothing of training.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PANELS = (
    ("loss", "loss", "log"),
    ("fvu", "variance left unexplained", "log"),
    ("l0", "active latents per token", "linear"),
    ("dead_fraction", "share of dead latents", "linear"),
)
FILE = "curves.png"


def draw(curves: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Write a PNG of four panels; `curves`: lines of progress.jsonl by the name of their SAE."""
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(10, 6))
    figure.subplots_adjust(0.07, 0.08, 0.98, 0.95, wspace=0.18, hspace=0.32)
    for axes, (key, label, scale) in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
        for name, lines in curves.items():
            values = [line[key] for line in lines]
            axes.plot([line["step"] for line in lines], values, linewidth=1.2, label=name)
        if scale == "log" and all(line[key] > 0 for lines in curves.values() for line in lines):
            axes.set_yscale("log")
        axes.set_title(label, fontsize=10)
        axes.set_xlabel("step", fontsize=9)
        axes.grid(alpha=0.3)
    if len(curves) > 1:
        figure.axes[0].legend(fontsize=7)
    figure.savefig(path, dpi=110)
