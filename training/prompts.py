"""Train class heads on a frozen CLIP with a few pictures of each class.

    accelerate launch training/prompts.py --method maple --task fluent --shots 16 --out runs

Knows the options; the work is in `training.tasks.seeds`. Heads land in OUT/heads/TASK/METHOD;
further seeds in a folder seed-N inside it, and metrics.json has the accuracies of all.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    __import__("training")  # a Ctrl-C from here on ends in a sentence

from sae.adaptation.heads import HEADS, POSITIONS, CoOpHead
from sae.terminal import INTERRUPTED, command, described, local_path
from training.launch import processes
from training.tasks.seeds import train_seeds


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line; errors leave with status 2."""
    parser = argparse.ArgumentParser(
        description=described(__doc__, "prompts"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    usual = ", ".join(f"{h.kind} {h.usual_n_ctx}" for h in HEADS.values() if h.usual_n_ctx)
    add("--method", required=True, choices=list(HEADS))
    add("--task", help="a bundled task (fluent, wider, texture), or what --data is called")
    add("--out", default="runs", type=Path, help="heads go to OUT/heads/TASK/METHOD")
    add("--data", help="folder with a folder for each class (or train/ and test/ with those)")
    add("--backbone", default="bundled", help="'bundled', a folder or a Hub id of a CLIP")
    add("--backbone-revision")
    add("--shots", type=int, default=16, help="pictures of each base class")
    add("--seed", "--seeds", dest="seeds", type=int, nargs="+", default=[0])
    add("--templates", type=Path, help="text file of prompt templates, one {} a line")
    add("--n-ctx", type=int, help=f"learned tokens (default: {usual})")
    add("--depth", type=int, help="blocks that are prompted (default: 9, at most layers - 1)")
    add("--class-specific", action="store_true", help=f"{CoOpHead.kind}: a context for each class")
    add("--position", default=POSITIONS[0], choices=POSITIONS, help=f"{CoOpHead.kind}: the name")
    add("--epochs", type=int, nargs="+", help="several are tried on validation pictures")
    add("--lr", type=float, nargs="+", help="likewise")
    add(
        "--validation",
        type=int,
        default=4,
        help="of them, for each base class, where something is tried",
    )
    add("--batch", type=int, default=32)
    add("--weight-decay", type=float, default=0.01)
    add("--n-test", type=int, default=1000, help="test pictures a split, at most")
    add("--half", action="store_true", help="store fp16 (measured after rounding)")
    add("--overwrite", action="store_true", help="train anew what is there; without it, go on")
    add(
        "--resume",
        action="store_true",
        help="go on; it does so anyway, and begins where nothing is",
    )
    add("--threads", type=int)
    args = parser.parse_args(argv)
    if args.task is None and args.data is None:
        parser.error("give --task, --data or both")
    if args.resume and args.overwrite:
        parser.error("--resume and --overwrite contradict each other; give one of them")
    args.task = args.task or Path(args.data).resolve().name
    args.backbone = local_path(args.backbone)
    for name in ("shots", "batch", "n_test", "n_ctx", "depth", "validation", "threads"):
        value = getattr(args, name)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    args.rates, args.lengths = args.lr or [], args.epochs or []
    for name, several, low in (("--lr", args.rates, 0), ("--epochs", args.lengths, 0)):
        if any(not value > low for value in several) or len(set(several)) != len(several):
            parser.error(f"{name} must be above 0, each value once, got {several}")
    if min(args.seeds) < 0 or len(set(args.seeds)) != len(args.seeds):
        parser.error(f"--seeds must be different and not negative, got {args.seeds}")
    return args


@command
def main(argv: list[str]) -> int:
    """Train what the command line says."""
    args = parse(argv)
    with processes(threads=args.threads) as accelerator:
        return 0 if train_seeds(args, accelerator, argv) else INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
