"""Train class heads on a frozen CLIP with a few pictures of each class.

    accelerate launch training/prompts.py --method maple --task fluent --shots 16 --out runs

Knows the order of things: open, sample, fit, save, measure. Heads land in OUT/heads/TASK/METHOD;
further seeds in a folder seed-N inside it, and metrics.json has the accuracies of all.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from accelerate import Accelerator

from sae.adaptation.files import METRICS, load_head, save_head
from sae.adaptation.heads import CoOpHead, Head, LinearHead, MapleHead, VPTHead, ZeroShotHead
from sae.backbones import Backbone
from sae.backbones.prompting import ClipParts
from sae.storage import write_json
from training.launch import StopRequest, command, command_line, processes, stop_on_signal
from training.tasks.data import TaskData, open_task, read_templates
from training.tasks.fitting import FitOptions, fit, read_epoch
from training.tasks.outcome import checkpoint_of, finished, measure, summary

METHODS = ("zero_shot", "coop", "vpt", "maple", "linear")
RATES = {"zero_shot": 0.0, "coop": 5e-3, "vpt": 1e-2, "maple": 5e-3, "linear": 1e-1}
EPOCHS = {"zero_shot": 0, "coop": 50, "vpt": 20, "maple": 20, "linear": 100}


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line; errors leave with status 2."""
    parser = argparse.ArgumentParser(
        prog="accelerate launch training/prompts.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--method", required=True, choices=METHODS)
    add("--task", help="a bundled task (fluent, wider, texture), or what --data is called")
    add("--out", default="runs", type=Path, help="heads go to OUT/heads/TASK/METHOD")
    add("--data", help="folder with a folder for each class (or train/ and test/ with those)")
    add("--backbone", default="bundled", help="'bundled', a folder or a Hub id of a CLIP")
    add("--backbone-revision")
    add("--shots", type=int, default=16, help="pictures of each base class")
    add("--seed", "--seeds", dest="seeds", type=int, nargs="+", default=[0])
    add("--templates", type=Path, help="text file of prompt templates, one {} a line")
    add("--n-ctx", type=int, help="learned tokens (default: coop and vpt 4, maple 2)")
    add("--depth", type=int, help="blocks that are prompted (default: 9, at most layers - 1)")
    add("--class-specific", action="store_true", help="coop: a context for each class")
    add("--position", default="end", choices=("end", "middle", "front"), help="coop: the name")
    add("--epochs", type=int)
    add("--lr", type=float)
    add("--batch", type=int, default=32)
    add("--weight-decay", type=float, default=0.01)
    add("--n-test", type=int, default=1000, help="test pictures a split, at most")
    add("--half", action="store_true", help="store fp16 (measured after rounding)")
    add("--overwrite", action="store_true", help="train anew what is there; without it, go on")
    add("--threads", type=int)
    args = parser.parse_args(argv)
    if args.task is None and args.data is None:
        parser.error("give --task, --data or both")
    args.task = args.task or Path(args.data).resolve().name
    for name in ("shots", "batch", "n_test", "n_ctx", "depth", "epochs", "threads"):
        value = getattr(args, name)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    if args.lr is not None and not args.lr > 0:
        parser.error(f"--lr must be positive, got {args.lr}")
    if min(args.seeds) < 0 or len(set(args.seeds)) != len(args.seeds):
        parser.error(f"--seeds must be different and not negative, got {args.seeds}")
    return args


@command
def main(argv: list[str]) -> None:
    """Train what the command line says."""
    args = parse(argv)
    with processes(threads=args.threads) as accelerator:
        run(args, accelerator, argv)


def run(args: argparse.Namespace, accelerator: Accelerator, words: list[str]) -> None:
    """All seeds, one after the other; each finished one is kept."""
    data = open_task(args.task, args.data, read_templates(args.templates))
    parts = ClipParts(
        Backbone.from_pretrained(
            args.backbone, revision=args.backbone_revision, device=accelerator.device
        )
    )
    target = args.out / "heads" / args.task / args.method
    if args.overwrite and accelerator.is_main_process:
        shutil.rmtree(target, ignore_errors=True)
    accelerator.wait_for_everyone()
    found: list[dict[str, Any]] = []
    with stop_on_signal() as stop:
        for number, seed in enumerate(args.seeds):
            folder = target if number == 0 else target / f"seed-{seed}"
            done = one_seed(args, accelerator, parts, data, seed, folder, stop)
            if done is None:
                accelerator.print("stopped; the same command goes on from here")
                return
            found.append(done)
    if accelerator.is_main_process:
        write_json(target / METRICS, metrics(args, parts, data, found, words))
        for row in found:
            accelerator.print({name: row[name] for name in row if name != "options"})
        accelerator.print(f"the head is in {target}")


def one_seed(
    args: argparse.Namespace,
    accelerator: Accelerator,
    parts: ClipParts,
    data: TaskData,
    seed: int,
    folder: Path,
    stop: StopRequest,
) -> dict[str, Any] | None:
    """Train and measure one seed; None if stopped. What is finished is left as it is."""
    kept = options_of(args)
    if (done := finished(folder, seed, kept, parts)) is not None:
        return done
    checkpoint = checkpoint_of(folder, kept)
    start = time.perf_counter()
    few = data.few_shot("base", args.shots, seed)
    torch.manual_seed(seed)
    head = make_head(args, parts, data)
    options = FitOptions(kept["epochs"], kept["lr"], args.batch, args.weight_decay, seed)
    losses: list[float] = []
    if args.method != "zero_shot":
        losses = fit(head, parts, few, options, accelerator, stop, checkpoint)
        if stop.requested and read_epoch(checkpoint) < options.epochs:
            return None
    row: dict[str, Any] = {"seed": seed, "options": kept}
    if accelerator.is_main_process:
        save_head(folder, head, parts, task=args.task, half=args.half)
        stored = load_head(folder, parts).head
        row["train_seconds"] = round(time.perf_counter() - start, 1)
        row["last_loss"] = round(losses[-1], 4) if losses else None
        for split in ("base", "novel"):
            known = split == "base" or stored.any_classes
            if known and len(data.classes(split)) > 1:
                test = data.test(split, args.n_test, seed, args.shots)
                classifier = stored.classifier(parts, data.classes(split))
                row[split] = round(measure(parts, classifier, test), 4)
        write_json(folder / f"seed-{seed}.json", row)
        for left in folder.glob("checkpoint-*.safetensors"):
            left.unlink()
    accelerator.wait_for_everyone()
    return row


def options_of(args: argparse.Namespace) -> dict[str, Any]:
    """What a head's bits and figures depend on, beside task, backbone and seed."""
    names = ("shots", "batch", "weight_decay", "n_ctx", "depth", "class_specific", "position")
    found = {name: getattr(args, name) for name in (*names, "n_test", "half")}
    fitted = {"epochs": args.epochs or EPOCHS[args.method], "lr": args.lr or RATES[args.method]}
    return fitted | found


def make_head(args: argparse.Namespace, parts: ClipParts, data: TaskData) -> Head:
    """A fresh head for the base classes."""
    depth = args.depth or max(1, min(9, parts.n_vision_layers - 1))
    if depth > parts.n_vision_layers:
        raise ValueError(
            f"--depth {depth} is more than the {parts.n_vision_layers} blocks of "
            f"{parts.backbone.id}; lower it"
        )
    text: dict[str, Any] = {"d_text": parts.d_text, "lead": data.lead, "tail": data.tail}
    seen = {"d_vision": parts.d_vision, "depth": depth}
    if args.method == "zero_shot":
        return ZeroShotHead(data.base, templates=data.templates)
    if args.method == "linear":
        return LinearHead(data.base, d_proj=parts.d_proj)
    if args.method == "vpt":
        return VPTHead(data.base, templates=data.templates, n_ctx=args.n_ctx or 4, **seen)
    if args.method == "maple":
        n_ctx = args.n_ctx or 2
        head: CoOpHead | MapleHead = MapleHead(data.base, n_ctx=n_ctx, **seen, **text)
    else:
        n_ctx = args.n_ctx or 4
        text["lead"] = ""
        head = CoOpHead(
            data.base,
            n_ctx=n_ctx,
            class_specific=args.class_specific,
            position=args.position,
            **text,
        )
    if len(parts.words(data.start)) >= n_ctx:
        head.start_from(parts, data.start)
    return head


def metrics(
    args: argparse.Namespace,
    parts: ClipParts,
    data: TaskData,
    found: list[dict[str, Any]],
    words: list[str],
) -> dict[str, Any]:
    """The content of metrics.json."""
    return {
        "task": args.task,
        "method": args.method,
        "backbone": parts.backbone.id,
        "options": options_of(args),
        "n_classes": {"base": len(data.base), "novel": len(data.novel)},
        "accuracy": summary(found),
        "seeds": [{name: row[name] for name in row if name != "options"} for row in found],
        "command": command_line("training/prompts.py", words),
    }


if __name__ == "__main__":
    sys.exit(main())
