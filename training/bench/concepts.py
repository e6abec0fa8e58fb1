"""The leaderboard: do units find what is really in the picture? Scored against the emoji world's truth.

    python training/bench/concepts.py                        # the bundled SAE and its baselines
    python training/bench/concepts.py --saes runs/a runs/b   # your own SAEs of the same backbone and layer
    python training/bench/concepts.py --train --sizes 512 2048 --seeds 0 1 --out runs/leaderboard --minutes 4

For the bundled CLIP this is partly circular: its layer -2 was trained on the very masks that score its
units, and held-out scenes draw the same sprites. `training/bench/untrained.py` scores without either.
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
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __import__("training")  # a Ctrl-C from here on ends in a sentence

from sae.architectures import ARCHITECTURES
from sae.terminal import command
from sae.world.tasks import HELD_OUT_SEED
from training.leaderboard.board import Board, markdown, measured
from training.leaderboard.kept import Kept, OutOfTime

CIRCULAR = "The bundled CLIP was trained on the masks and sprites that score it here."
OUT_OF_TIME = 3
"""The exit status of a run that is to be gone on with."""


def options(argv: list[str]) -> argparse.Namespace:
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
    args = parser.parse_args(argv)
    if args.minutes is not None and not args.out:
        parser.error("--minutes needs --out, or what is done would be lost")
    args.seeds = args.seeds or ([0, 1] if args.train else [0])
    args.train_scenes = args.train_scenes or (4000 if args.train else 1000)
    return args


@command
def main(argv: list[str]) -> int:
    """Print the table."""
    args, began = options(argv), time.monotonic()
    about = {k: v for k, v in vars(args).items() if k not in ("archs", "sizes", "seeds", "minutes")}
    folder = Path(args.out).with_suffix(".parts") if args.out else None
    board = Board(args, Kept(folder, about, args.minutes))
    try:
        report(args, measured(board), time.monotonic() - began)
    except OutOfTime:
        board.complete = False
    if not board.complete:
        print(f"{args.minutes:g} minutes are over; give the same command again to go on.")
        return OUT_OF_TIME
    return 0


def report(args: argparse.Namespace, merged: dict, seconds: float) -> None:
    """Print the table and what it rests on; write both files where asked."""
    said = (
        f"{args.n_scenes} held-out scenes (seed {args.seed}), one half to choose, one to score; "
        f"small SAEs: k = {args.k if args.train else 'as the first'}, {args.steps} steps of "
        f"{args.batch} tokens of {args.train_scenes} scenes, seeds {args.seeds}. {seconds:.0f} s. {CIRCULAR}"
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
    sys.exit(main())
