"""Heads of a task, one a seed: trained, measured, kept, and not trained again when they are there.

Knows the order of things (sample, fit, save, measure) and the files seed-N.json and metrics.json; fitting is
`training.tasks.fitting`'s.
"""

import argparse
import hashlib
import shutil
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from sae.adaptation.classifier import Classifier, accuracy
from sae.adaptation.files import METRICS, load_head, save_head
from sae.adaptation.heads import HEADS
from sae.backbones import Backbone
from sae.backbones.prompting import ClipParts
from sae.storage import plain_key, read_sealed, write_sealed
from training.launch import StopRequest, command_line, locked, stop_on_signal
from training.tasks.data import Labelled, TaskData, open_task, read_templates
from training.tasks.fitting import FitOptions, fit, read_epoch
from training.tasks.tuning import tries_of, tune

STOPPED: dict[str, Any] = {"stopped": True}
"""What tuning gives that was stopped."""
HIDDEN = ("options", "pictures")
"""What of a finished seed is not told."""


def train_seeds(args: argparse.Namespace, accelerator: Accelerator, words: list[str]) -> bool:
    """All seeds of the command line, one after the other; each finished one is kept. False if stopped."""
    data = open_task(args.task, args.data, read_templates(args.templates))
    target = args.out / "heads" / args.task / args.method
    main = accelerator.is_main_process
    with locked(target.parent, f".{target.name}.lock") if main else nullcontext():
        return _train_seeds(args, accelerator, words, data, target)


def _train_seeds(
    args: argparse.Namespace,
    accelerator: Accelerator,
    words: list[str],
    data: TaskData,
    target: Path,
) -> bool:
    where = {"revision": args.backbone_revision, "device": accelerator.device}
    parts = ClipParts(Backbone.from_pretrained(args.backbone, **where))
    if args.overwrite and accelerator.is_main_process:
        shutil.rmtree(target, ignore_errors=True)
    accelerator.wait_for_everyone()
    if args.resume and not target.is_dir():
        accelerator.print(f"--resume: nothing in {target} yet; beginning with the first epoch")
    rows: list[dict[str, Any]] = []
    with stop_on_signal() as stop:
        tuned = _tuned(args, accelerator, parts, data, target, stop)
        if tuned is STOPPED:
            accelerator.print("stopped; the same command goes on from here")
            return False
        for number, seed in enumerate(args.seeds):
            folder = target if number == 0 else target / f"seed-{seed}"
            done = one_seed(args, accelerator, parts, data, seed, folder, stop, tuned)
            if done is None:
                accelerator.print("stopped; the same command goes on from here")
                return False
            rows.append(done)
    if accelerator.is_main_process:
        write_sealed(target / METRICS, metrics(args, parts, data, rows, words, tuned))
        for row in rows:
            accelerator.print({name: row[name] for name in row if name not in HIDDEN})
        accelerator.print(f"the head is in {target}")
    return True


def _tuned(
    args: argparse.Namespace,
    accelerator: Accelerator,
    parts: ClipParts,
    data: TaskData,
    target: Path,
    stop: StopRequest,
) -> dict[str, Any] | None:
    """Choose --lr and --epochs on validation pictures, and put them into `args`; what was tried.

    None where one of each was asked for, STOPPED if stopped.
    """
    tries = tries_of(args)
    args.lr, args.epochs = tries[0]
    if len(tries) == 1:
        return None
    seed, folder = args.seeds[0], target / "tries"
    few = data.few_shot("base", args.shots, seed)
    chosen_by = data.validation("base", args.validation, seed, args.shots)
    fixed = {
        name: value for name, value in options_of(args).items() if name not in ("lr", "epochs")
    }
    pictures = data.content([few, chosen_by])

    def trial(rate: float, length: int) -> float | None:
        options = FitOptions(length, rate, args.batch, args.weight_decay, seed)
        torch.manual_seed(seed)
        head = HEADS[args.method].fresh(parts, data, args)
        place = checkpoint_of(
            folder / f"{rate:g}-{length}", {**fixed, "lr": rate, "epochs": length}, pictures
        )
        fit(head, parts, few, options, accelerator, stop, place)
        if stop.requested and read_epoch(place) < length:
            return None
        return measure(parts, head.classifier(parts, data.base), chosen_by)

    asked = {**fixed, "seed": seed, "pictures": pictures}
    found = tune(tries, trial, target, asked, keep=accelerator.is_main_process)
    if found is None:
        return STOPPED
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        shutil.rmtree(folder, ignore_errors=True)
    args.lr, args.epochs = found["lr"], found["epochs"]
    return found | {"validation": len(chosen_by), "each": args.validation, "seed": seed}


def one_seed(
    args: argparse.Namespace,
    accelerator: Accelerator,
    parts: ClipParts,
    data: TaskData,
    seed: int,
    folder: Path,
    stop: StopRequest,
    tuned: dict[str, Any] | None = None,
) -> dict[str, Any] | None:
    """Train and measure one seed; None if stopped. What is finished is left as it is."""
    kept = options_of(args)
    few, spent = data.few_shot("base", args.shots, seed), None
    if tuned is not None:
        kept["tuned"] = tuned
        spent = data.validation("base", tuned["each"], tuned["seed"], args.shots)
    tests = {
        split: data.test(split, args.n_test, seed, args.shots, spent)
        for split in ("base", "novel")
        if len(data.classes(split)) > 1
    }
    pictures = data.content([few, *tests.values()])
    if (done := finished(folder, seed, kept, parts, pictures)) is not None:
        return done
    checkpoint = checkpoint_of(folder, kept, pictures)
    start = time.perf_counter()
    torch.manual_seed(seed)
    head = HEADS[args.method].fresh(parts, data, args)
    options = FitOptions(kept["epochs"], kept["lr"], args.batch, args.weight_decay, seed)
    losses: list[float] = []
    if head.epochs:  # else there is nothing to learn
        losses = fit(head, parts, few, options, accelerator, stop, checkpoint)
        if stop.requested and read_epoch(checkpoint) < options.epochs:
            return None
    row: dict[str, Any] = {"seed": seed, "options": kept, "pictures": pictures}
    if accelerator.is_main_process:
        save_head(folder, head, parts, task=args.task, half=args.half)
        stored = load_head(folder, parts).head
        row["train_seconds"] = round(time.perf_counter() - start, 1)
        row["last_loss"] = round(losses[-1], 4) if losses else None
        for split, test in tests.items():
            if split == "base" or stored.any_classes:
                classifier = stored.classifier(parts, data.classes(split))
                row[split] = round(measure(parts, classifier, test), 4)
        write_sealed(folder / f"seed-{seed}.json", row)
        for left in folder.glob("checkpoint-*.safetensors"):
            left.unlink()
    accelerator.wait_for_everyone()
    return row


def options_of(args: argparse.Namespace) -> dict[str, Any]:
    """What a head's bits and figures depend on, beside task, backbone and seed."""
    names = ("shots", "batch", "weight_decay", "n_ctx", "depth", "class_specific", "position")
    head = HEADS[args.method]
    fitted = {"epochs": args.epochs or head.epochs, "lr": args.lr or head.learning_rate}
    return fitted | {name: getattr(args, name) for name in (*names, "n_test", "half")}


def metrics(
    args: argparse.Namespace,
    parts: ClipParts,
    data: TaskData,
    rows: list[dict[str, Any]],
    words: list[str],
    tuned: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of metrics.json."""
    return {
        "task": args.task,
        "method": args.method,
        "backbone": parts.backbone.id,
        "options": options_of(args),
        "tuned": tuned,
        "n_classes": {"base": len(data.base), "novel": len(data.novel)},
        "accuracy": summary(rows),
        "seeds": [{name: row[name] for name in row if name not in HIDDEN} for row in rows],
        "command": command_line("training/prompts.py", words),
    }


def finished(
    folder: Path, seed: int, options: dict[str, Any], parts: ClipParts, pictures: str
) -> dict | None:
    """What a finished seed was found to reach, or None if it is not finished.

    Raises ValueError if it was trained with other options or pictures, or on another CLIP.
    """
    path = folder / f"seed-{seed}.json"
    if not path.is_file():
        return None
    row = read_sealed(path, "Train anew with --overwrite.")
    before = row.get("options", {})
    anew = "--overwrite trains it anew, another --out keeps it"
    if before != options:
        names = sorted(n for n in before | options if before.get(n) != options.get(n))
        raise ValueError(
            f"{folder} holds a head trained with another {', '.join(names)} "
            f"({[before.get(n) for n in names]}, now {[options.get(n) for n in names]}); {anew}"
        )
    if row.get("pictures", pictures) != pictures:
        raise ValueError(f"the pictures of the head in {folder} have changed since; {anew}")
    load_head(folder, parts)
    return row


def checkpoint_of(folder: Path, options: dict[str, Any], pictures: str) -> Path:
    """Where a run with these options and pictures keeps its state; ValueError if another one lies there."""
    key = hashlib.sha256(plain_key({**options, "pictures": pictures}).encode()).hexdigest()[:8]
    path = folder / f"checkpoint-{key}.safetensors"
    if others := [other for other in folder.glob("checkpoint-*.safetensors") if other != path]:
        raise ValueError(
            f"{others[0]} is of a run with other options or pictures that was stopped; --overwrite "
            "trains anew, another --out keeps it"
        )
    return path


@torch.no_grad()
def measure(parts: ClipParts, classifier: Classifier, test: Labelled, batch: int = 64) -> float:
    """Accuracy (0 to 1) on labelled pictures."""
    logits = []
    for start in range(0, len(test), batch):
        pictures = test.pictures(range(start, min(start + batch, len(test))))
        features = parts.image_features(pictures, classifier.prompts, cls_only=True)
        logits.append(classifier.logits(features).cpu())
    return accuracy(torch.cat(logits), torch.from_numpy(test.labels))


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation over seeds, by split."""
    by_split = {}
    for split in ("base", "novel"):
        values = torch.tensor([row[split] for row in rows if split in row], dtype=torch.float64)
        if len(values):
            spread = values.std().item() if len(values) > 1 else 0.0
            by_split[split] = {"mean": round(values.mean().item(), 4), "std": round(spread, 4)}
    return by_split
