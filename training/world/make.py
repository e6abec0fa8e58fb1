"""Trains everything that `sae/bundled/` ships, in order: `make world`.

Knows the plan's commands; each is resumable, so running this again goes on where it stopped.
`--only NAME …` runs some of the steps; `--into DIR` writes elsewhere than sae/bundled.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __import__("training")  # a Ctrl-C from here on ends in a sentence

from sae.terminal import command

ROOT = Path(__file__).resolve().parents[2]
BUNDLED = ROOT / "sae" / "bundled"


def steps(into: Path, runs: Path, device: str) -> dict[str, list[str]]:
    """The commands of the plan by name."""
    python = sys.executable
    backbone = "bundled" if into == BUNDLED else str(into / "clip")
    launch = [python, "-m", "accelerate.commands.launch"]
    sae, clip = runs / "sae", str(into / "clip")
    again = ["--resume"] if (sae / "checkpoints").is_dir() else ["--overwrite"]
    return {
        "clip": [
            python, "training/world/clip.py", "--out", str(runs / "clip"), "--device", device,
            "--export", clip,
        ],
        "llava": [
            python, "training/world/llava.py", "--clip", clip, "--device", device,
            "--out", str(runs / "llava"), "--export", str(into / "llava"),
        ],
        "sae": [
            *launch, "training/train.py", "--backbone", backbone, "--data", "world",
            *SAE_OPTIONS, *again, "--out", str(sae),
        ],
        "copy": [
            python, str(Path(__file__).resolve()), "--copy-sae", str(sae), "--into", str(into)
        ],
        "index": [
            python, "training/index.py", "--sae", str(into / "sae"), "--backbone", backbone,
            "--data", "world", "--device", device, "--embedder", backbone,
        ],
        "steerability": [
            python, "training/steerability.py", "--sae", str(into / "sae"), "--backbone", backbone,
            "--device", device,
        ],
        "experiments": [python, "training/steering/experiments.py", "--into", str(into)],
        "concepts": [
            python, "training/bench/concepts.py", "--sae", str(into / "sae"), "--backbone", backbone
        ],
        "heads": [
            python, "training/tasks/make.py", "--into", str(runs / "bundled"), "--bundle", str(into),
            "--backbone", backbone,
        ],
    }  # fmt: skip


SAE_OPTIONS = [
    "--layer", "-2", "--tokens", "all", "--arch", "batch_topk", "--d-sae", "2048", "--k", "8",
    "--steps", "1600", "--aux", "0.125", "--dead-after", "200000", "--eval-images", "2000",
    "--checkpoint-every", "400",
]  # fmt: skip
"""How the bundled SAE is trained."""


def copy_artifact(source: Path, into: Path) -> None:
    """Copy an artifact without its checkpoints to `into`/sae."""
    from sae.model import SparseAutoencoder

    SparseAutoencoder.from_pretrained(source)  # refuses a damaged one
    target = into / "sae"
    target.mkdir(parents=True, exist_ok=True)
    for file in sorted(source.iterdir()):
        if file.is_file() and file.suffix != ".jsonl" and not file.name.startswith("."):
            (target / file.name).write_bytes(file.read_bytes())


def run_steps(
    plan: str, steps: Iterable[tuple[str, list[str]]], only: Sequence[str] | None
) -> None:
    """Run the commands of a plan by (name, command), those of `only` if it is given, and say each."""
    for name, words in steps:
        if not only or name in only:
            print(f"[{plan}] {name}: {shlex.join(words)}", flush=True)  # noqa: T201
            subprocess.run(words, cwd=ROOT, check=True)


@command
def main(argv: list[str]) -> None:
    """Run the plan; see `--help`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, default=BUNDLED)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", help="checkpoints and curves")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        help="clip llava sae copy index steerability experiments concepts",
    )
    parser.add_argument("--copy-sae", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.copy_sae:
        copy_artifact(args.copy_sae, args.into)
        return
    commands = steps(args.into.resolve(), args.runs.resolve(), args.device)
    run_steps("world", commands.items(), args.only)


if __name__ == "__main__":
    sys.exit(main())
