"""Builds the ConceptIndex of an SAE over a data set: statistics, exemplars, names, all in one pass.

    python training/index.py --sae DIR --data DIR --out DIR
    accelerate launch training/index.py --sae DIR --data hf:user/name:test --resume

Knows the options and the order of things; the work is in `training.indexing`. Each process takes every n-th
batch; the main one merges, looks at the exemplar images again, names the concepts and writes OUT/concepts.
"""

import argparse
import json
import sys
from contextlib import nullcontext
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    __import__("training")  # a Ctrl-C from here on ends in a sentence

from accelerate import Accelerator

from sae.artifact import WEIGHTS
from sae.backbones import Backbone
from sae.concepts.build.assembly import N_LIT
from sae.concepts.build.naming import MINIMUM, SURE
from sae.concepts.build.partial import remove_parts
from sae.concepts.index import ConceptIndex
from sae.hub import local_folder
from sae.model import SparseAutoencoder
from sae.storage import sha256
from sae.terminal import INTERRUPTED, command, described
from training.indexing.index_pass import (
    Pass,
    check_vocabulary,
    index_folder,
    say_what_is_lost,
    summary,
    with_names,
)
from training.indexing.labelled import open_labelled
from training.indexing.sheets import draw_for_card
from training.launch import locked, processes


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=described(__doc__.split("\n\n")[0], "index"),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--sae", default="bundled", help="artifact: 'bundled', a folder or a Hub id")
    add("--data", default="world", help="'world', a folder of images, .tar shards, or hf:user/name")
    add("--out", help="folder to write concepts/ into (default: the folder of --sae)")
    add("--backbone", help="the SAE's own unless given")
    add("--n-images", type=int, help="images to look at, at most (default: all; 6000 of 'world')")
    add("--batch", type=int, default=32, help="images per forward")
    add("--tau", type=float, default=0.2, help="activation from which a token counts for its class")
    add("--vocabulary", help="file of candidate names, one a line")
    add("--naming-minimum", type=float, default=MINIMUM, help="names that score lower are left out")
    add("--naming-confidence", type=float, default=SURE, help="and those that are less sure, 0 … 1")
    add("--name-exemplars", type=int, default=N_LIT, help="exemplars that a name is from")
    add("--embedder", help="encoder for MonoSemanticity: a --backbone or timm id")
    add("--no-thumbnails", action="store_true", help="keep no pictures, where a licence forbids it")
    add("--names-only", action="store_true", help="name the index that is there, nothing else")
    add(
        "--layout-only",
        action="store_true",
        help="add maps to the index that is there, nothing else",
    )
    add("--resume", action="store_true", help="go on with a pass that was stopped")
    add(
        "--accept-changed-data",
        action="store_true",
        help="go on though pictures of the same names hold something else now",
    )
    add("--save-every", type=int, default=5000, help="images between partial results")
    add("--device", help="cpu, cuda, … (default: what Accelerate chooses)")
    options = parser.parse_args(arguments)
    if options.batch < 1 or options.save_every < 1:
        parser.error("--batch and --save-every must be at least 1")
    if options.name_exemplars < 0:
        parser.error("--name-exemplars must be at least 0")
    return options


@command
def main(argv: list[str]) -> int:
    """Build, name and save; prints one JSON object."""
    options = parse(argv)
    out = index_folder(options.sae, options.out)
    if options.layout_only:
        with locked(out, ".index.lock"):
            index = ConceptIndex.from_pretrained(out).with_layout()
            index.save_pretrained(out)
        print(json.dumps(summary(index)))  # noqa: T201
        return 0
    with processes(cpu=options.device == "cpu") as accelerator:
        alone = locked(out, ".index.lock") if accelerator.is_main_process else nullcontext()
        with alone:
            return build(options, accelerator, out)


def build(options: argparse.Namespace, accelerator: Accelerator, out: Path) -> int:
    """This process's part of the pass; the main process merges, names and saves. The exit status."""
    device = options.device or accelerator.device
    folder = local_folder(options.sae, files=["config.json", WEIGHTS])
    sae = SparseAutoencoder.from_pretrained(folder, device=device)
    backbone = Backbone.of(sae.cfg.backbone, options.backbone, device=device)
    check_vocabulary(options, backbone)
    data = open_labelled(options.data, options.n_images)
    run = Pass(data, backbone, sae, sha256(folder / WEIGHTS), out, options)
    if options.names_only:
        index = ConceptIndex.from_pretrained(out)
    else:
        gathered = run.gather(accelerator, device)
        if gathered is None:  # a process beside the main one, whose part is done; or stopped
            return INTERRUPTED if run.stopped else 0
        index = run.assemble(gathered)
        say_what_is_lost(index, out)
    if accelerator.is_main_process:
        index = with_names(index, data, backbone, options).with_layout()
        index.save_pretrained(out)
        draw_for_card(index, out / "exemplars.webp")
        remove_parts(run.partial)
        print(json.dumps(summary(index)))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
