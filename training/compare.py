"""Compare two heads of a task, concept by concept, over a whole test set.

    python training/compare.py --heads zero_shot maple --task fluent --out runs/compare
    python training/compare.py --heads zero_shot coop vpt maple --task all --out runs/compare

Of more than two heads the first is compared with each other one. Writes OUT/TASK/A-B/: compare.json, a PNG a
panel and report.md; then OUT/table1.md. A pair that lies there already, made of the same weights and sizes,
is not measured again. Knows the options; the work is in `training.tasks.pairs`.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    __import__("training")  # a Ctrl-C from here on ends in a sentence

import torch

from sae.adaptation import files
from sae.storage import check_writable
from sae.terminal import command, described
from training.tasks.pairs import compare_all


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line; errors leave with status 2."""
    parser = argparse.ArgumentParser(
        description=described(__doc__, "compare"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--heads", required=True, nargs="+", help="bundled names, folders or Hub ids; two or more")
    add("--task", required=True, help="a bundled task, 'all', or the name for --data")
    add("--out", required=True, type=Path)
    add("--data", help="folder of pictures, as for patchlens prompts")
    add("--templates", type=Path, help="text file of prompt templates, one {} a line")
    add("--backbone", default="bundled")
    add("--sae", default="bundled")
    add("--heads-root", type=Path, default=files.ROOT, help="folder with TASK/HEAD folders")
    add("--n-test", type=int, default=400, help="test pictures a split")
    add("--n-masks", type=int, default=200, help="of these, for masking curves")
    add("--n-curves", type=int, default=60, help="of these, for deletion and insertion curves")
    add(
        "--n-chance",
        type=int,
        default=1200,
        help="test pictures for the control of existing concepts",
    )
    add(
        "--seeds-root",
        type=Path,
        help="folder with TASK/HEAD/seed-N of further seeds, for that control (default: --heads-root)",
    )
    add("--shots", type=int, default=16, help="training pictures a class that rank the concepts")
    add("--seed", type=int, default=0)
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--overwrite", action="store_true", help="measure again what is there")
    add("--ship", action="store_true", help="also write HEADS_ROOT/TASK/compare.json for the app")
    args = parser.parse_args(argv)
    if len(args.heads) < 2:
        parser.error("--heads needs two or more heads")
    if len(set(args.heads)) != len(args.heads):
        parser.error(f"--heads names one head twice: {' '.join(args.heads)}")
    if min(args.n_test, args.n_masks, args.n_curves, args.n_chance, args.shots) < 1:
        parser.error("--n-test, --n-masks, --n-curves, --n-chance and --shots must be at least 1")
    return args


@command
def main(argv: list[str]) -> None:
    """Compare what the command line says."""
    options = parse(argv)
    for folder in (options.out, *([options.heads_root] if options.ship else [])):
        check_writable(folder)
    text = compare_all(options, shlex.join(["python", "training/compare.py", *argv]))
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
