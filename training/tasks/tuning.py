"""Learning rate and epochs of a head, chosen on pictures that are neither trained on nor reported.

Knows what is tried and the file tuning.json, in which every try is kept as soon as it is measured; fitting is
`training.tasks.fitting`'s. Several values of --lr or --epochs ask for it. The tries see the first seed's
training pictures and are judged by the accuracy on validation pictures of the base classes: of a folder those
that follow the training pictures, which no seed's figures are measured on afterwards.
"""

import argparse
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

from sae.adaptation.heads import HEADS
from sae.storage import plain_key, read_sealed, sealed, write_json

TUNING = "tuning.json"
Trial = Callable[[float, int], float | None]
"""Accuracy on the validation pictures after training at a rate for some epochs; None if stopped."""


def tries_of(args: argparse.Namespace) -> list[tuple[float, int]]:
    """(lr, epochs) of every combination that the command line asks for; one where nothing is tuned."""
    head = HEADS[args.method]
    rates = [rate or head.learning_rate for rate in args.rates or [None]]
    return list(product(rates, [n or head.epochs for n in args.lengths or [None]]))


def tune(
    tries: list[tuple[float, int]], trial: Trial, folder: Path, asked: dict[str, Any], *, keep: bool
) -> dict[str, Any] | None:
    """The best of `tries`, the first of equals: {"lr", "epochs", "validation", "tried"}. None if stopped.

    Tries of the same question (`asked`: options and pictures) that lie in the folder are not made again;
    only who is to `keep` them writes. ValueError if the folder's tries are of another question.
    """
    path, key = folder / TUNING, plain_key(asked)
    tried: list[dict[str, Any]] = []
    if path.is_file():
        before = read_sealed(path, "Train anew with --overwrite.")
        if before.get("asked") != key:
            raise ValueError(
                f"{path} holds tries with other options or pictures; --overwrite makes them anew, another "
                "--out keeps them"
            )
        tried = list(before["tried"])
    done = {(each["lr"], each["epochs"]) for each in tried}
    for rate, length in tries:
        if (rate, length) in done:
            continue
        accuracy = trial(rate, length)
        if accuracy is None:
            return None
        tried.append({"lr": rate, "epochs": length, "accuracy": round(accuracy, 4)})
        if keep:
            folder.mkdir(parents=True, exist_ok=True)
            write_json(path, sealed({"asked": key, "tried": tried}))
    of_these = [each for each in tried if (each["lr"], each["epochs"]) in tries]
    best = max(of_these, key=lambda each: each["accuracy"])
    return {"lr": best["lr"], "epochs": best["epochs"], "tried": of_these}
