"""Convert a published CoOp or MaPLe head: `patchlens convert-head FILE --method maple --to DIR`.

Knows the command line; a program, so it may import whatever it needs. FILE is a model.pth.tar-N, or
the folder of the run it lies in. DIR becomes a head folder that `patchlens compare` opens.
"""

import argparse
import sys
from pathlib import Path

from sae.adaptation.classifier import checked_classes
from sae.adaptation.files import load_head, save_head
from sae.adaptation.heads import POSITIONS
from sae.adaptation.published import PUBLISHED
from sae.backbones import Backbone
from sae.backbones.prompting import ClipParts
from sae.storage import read_lines
from sae.terminal import command


@command
def main(argv: list[str]) -> None:
    """Run the command line `argv`."""
    options = _parser().parse_args(argv)
    lines = filter(None, read_lines(options.classes))
    names = checked_classes([line.replace("_", " ") for line in lines])
    parts = ClipParts(Backbone.from_pretrained(options.backbone, revision=options.revision))
    only = {"coop": {"position": options.position}, "maple": {"ctx_init": options.ctx_init}}
    read, how = PUBLISHED[options.method], only[options.method]
    head = read(options.source, parts, names, tail=options.tail, **how)
    save_head(options.to, head, parts, task=options.task)
    load_head(options.to, parts)
    sizes = {name: tuple(value.shape) for name, value in head.named_parameters()}
    print(f"head        {head.kind}, {len(names)} classes, {len(sizes)} learned tensors")
    print(f"backbone    {parts.backbone.id}")
    print(f"written     {options.to}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="patchlens convert-head", description=__doc__)
    add = parser.add_argument
    add("source", metavar="FILE", help="model.pth.tar-N, its folder, or the run's")
    add("--method", required=True, choices=PUBLISHED)
    add("--backbone", default="openai/clip-vit-base-patch16", help="the CLIP it was trained on")
    add("--revision", help="of the backbone")
    add("--classes", required=True, type=Path, help="text file: a class name a line, in order")
    add("--to", required=True, type=Path, metavar="DIR")
    add("--task", help="what DIR says it is for")
    add("--position", default="end", choices=POSITIONS, help="coop: where the class name goes")
    add("--ctx-init", default="a photo of a", help="maple: the run's CTX_INIT")
    add("--tail", default=".", help="what follows the class name")
    return parser


if __name__ == "__main__":
    sys.exit(main())
