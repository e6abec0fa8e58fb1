"""Trains and measures everything in sae/bundled/heads, in order: python training/tasks/make.py

Knows the plan's commands; each goes on where it was stopped, so running this again is safe.
`--only NAME …` takes some of the tasks, or `copy`, or `compare`. Heads of all seeds are trained under
`--into`; the first seed's, with the figures of all, are copied to `--bundle` and compared there.
"""

import argparse
import shutil
import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __import__("training")  # a Ctrl-C from here on ends in a sentence

from sae.adaptation.files import CONFIG, METRICS, WEIGHTS
from sae.terminal import command
from training.world.make import ROOT, run_steps

SEEDS = ("0", "1", "2")
OPTIONS: dict[str, dict[str, list[str]]] = {
    "fluent": {
        "coop": ["--epochs", "50"],
        "vpt": ["--epochs", "12", "--lr", "0.01"],
        "maple": ["--epochs", "12", "--lr", "0.005"],
    },
    "texture": {
        "coop": ["--epochs", "50"],
        "vpt": ["--epochs", "12", "--lr", "0.01"],
        "maple": ["--epochs", "12", "--lr", "0.005"],
    },
    "wider": {
        "coop": ["--epochs", "50"],
        "vpt": ["--epochs", "16", "--lr", "0.02"],
        "maple": ["--epochs", "16", "--lr", "0.01"],
    },
}
"""What each head is trained with, beside 16 pictures a class."""


def steps(args: argparse.Namespace) -> list[tuple[str, list[str]]]:
    """(name, command) of every step."""
    into, bundle = shown(args.into), Path(shown(args.bundle))
    other = args.backbone != "bundled"
    launch = [sys.executable, "-m", "accelerate.commands.launch", "training/prompts.py"]
    common = ["--backbone", args.backbone] if other else []
    common += ["--threads", args.threads] if args.threads else []
    common += ["--out", into, "--n-test", "600", "--half", "--seeds"]
    commands = []
    for task, by_method in OPTIONS.items():
        for method, options in {"zero_shot": [], **by_method}.items():
            seeds = SEEDS[:1] if method == "zero_shot" else SEEDS
            words = ["--method", method, "--task", task, *common, *seeds, *options]
            commands.append((task, [*launch, *words]))
    here = [sys.executable, "training/tasks/make.py", "--into", into]
    commands.append(("copy", [*here, "--copy-to", str(bundle)]))
    compare = [sys.executable, "training/compare.py", "--task", "all", "--ship", "--heads"]
    compare += ["zero_shot", "coop", "vpt", "maple", "--out", "runs/compare"]
    compare += ["--backbone", args.backbone, "--sae", str(bundle / "sae")] if other else []
    commands.append(("compare", [*compare, "--heads-root", str(bundle / "heads")]))
    return commands


def shown(path: Path) -> str:
    """The path from the repository's root, where it lies in there: it ends up in metrics.json."""
    path = path.resolve()
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def copy(into: Path, bundle: Path) -> None:
    """Copy the first seed's heads, and what was measured of all, from `into` to `bundle`."""
    for config in sorted(into.glob("heads/*/*/config.json")):
        target = bundle / config.parent.relative_to(into)
        target.mkdir(parents=True, exist_ok=True)
        for name in (WEIGHTS, CONFIG, METRICS):
            shutil.copyfile(config.parent / name, target / name)


@command
def main(argv: list[str]) -> None:
    """Run the plan; see `--help`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, default=ROOT / "runs" / "bundled")
    parser.add_argument("--bundle", type=Path, default=ROOT / "sae" / "bundled")
    parser.add_argument("--copy-to", type=Path, help=argparse.SUPPRESS)
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help=f"{' '.join(OPTIONS)} copy compare"
    )
    parser.add_argument("--backbone", default="bundled", help="the CLIP of another --bundle")
    parser.add_argument("--threads", help="of each training (default: one a core)")
    args = parser.parse_args(argv)
    if args.copy_to:
        copy(args.into, args.copy_to)
        return
    run_steps("heads", steps(args), args.only)


if __name__ == "__main__":
    sys.exit(main())
