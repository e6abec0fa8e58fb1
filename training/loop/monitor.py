"""What one sees of a run: the progress bar, progress.jsonl and its curves, TensorBoard and trackio.

Knows how figures are shown. Knows nothing of how they come about. Only the main process shows any.
"""

import importlib.util
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from training.loop.config import TrainConfig
from training.loop.run import Run
from training.loop.trainer import Progress

LOG, CURVES = "progress.jsonl", "curves.png"
PROJECT = "patchlens"
PANELS = (
    ("loss", "loss", "log"),
    ("fvu", "variance left unexplained", "log"),
    ("l0", "active latents per token", "linear"),
    ("dead_fraction", "share of dead latents", "linear"),
)


def trackers(config: TrainConfig) -> list[str]:
    """Names of the trackers asked for; ValueError if one is not installed."""
    wanted = [name for name in ("tensorboard", "trackio") if getattr(config, name)]
    for name in wanted:
        if importlib.util.find_spec(name) is None:
            raise ValueError(
                f"--{name} needs a package that is missing: pip install {name} "
                "(both trackers: pip install -e '.[track]')"
            )
    return wanted


class Monitor:
    """Shows a run from its step on; use it as a context."""

    def __init__(self, run: Run) -> None:
        self._run, config = run, run.config
        self._main = run.accelerator.is_main_process
        self._began, self._first = time.monotonic(), run.n_steps
        self._bar = tqdm(
            total=config.steps,
            initial=run.n_steps,
            unit="step",
            disable=not self._main,
            mininterval=0.5,
        )
        if self._main:
            for trainer in run.trainers:
                _forget_after(trainer.out / LOG, run.n_steps)
        if names := trackers(config):
            settings = {k: v for k, v in vars(config).items() if isinstance(v, int | float | str)}
            given: dict[str, Any] = {"trackio": {"name": Path(config.out).name}}
            kwargs = {name: given[name] for name in names if name in given}
            run.accelerator.init_trackers(PROJECT, settings, init_kwargs=kwargs)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def step(self) -> None:
        """One step was made."""
        self._bar.update()

    def say(self, text: str) -> None:
        """A line above the bar."""
        if self._main:
            self._bar.write(text)

    def show(self, of_each: Sequence[Progress]) -> None:
        """Figures of the step just made, one for each SAE."""
        run = self._run
        batch = run.config.batch_size * run.n_processes
        made = (run.n_steps - self._first) * batch
        speed = made / max(time.monotonic() - self._began, 1e-9)
        columns = zip(*(figures[:4] for figures in of_each), strict=True)
        mean = Progress(*(sum(column) / len(of_each) for column in columns))
        self._bar.set_postfix_str(
            f"{speed:,.0f} tokens/s, fvu {mean.fvu:.3f}, l0 {mean.l0:.1f}, "
            f"dead {mean.dead_fraction:.1%}"
        )
        if not self._main:
            return
        tracked: dict[str, float] = {"tokens_per_second": speed}
        for trainer, figures in zip(run.trainers, of_each, strict=True):
            line = {
                "step": run.n_steps,
                **_known(figures),
                "lr": trainer.config.learning_rate(run.n_steps - 1),
                "seconds": round(run.elapsed, 2),
                "tokens_per_second": round(speed),
            }
            with (trainer.out / LOG).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            prefix = f"{trainer.out.name}/" if len(of_each) > 1 else ""
            tracked |= {f"{prefix}{name}": value for name, value in _known(figures).items()}
        run.accelerator.log(tracked, step=run.n_steps)


def _known(figures: Progress) -> dict[str, float]:
    return {name: value for name, value in figures._asdict().items() if value is not None}


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a progress.jsonl; a last line that was cut off is left out."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


def _forget_after(path: Path, step: int) -> None:
    """Drop lines of steps that a resumed run makes again."""
    if path.is_file():
        kept = [line for line in read_log(path) if line["step"] <= step]
        path.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")


def draw_curves(curves: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
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
