"""Quality at equal tokens, and seconds to a quality: python training/bench/quality.py --train A --test B

    python training/extract.py --backbone vit-small --layer 9 --data photos/train --out runs/store9
    python training/extract.py --backbone vit-small --layer 9 --data photos/test --out runs/test9
    python training/bench/quality.py --train runs/store9 --test runs/test9 --tokens 184320

Each recipe (an architecture, a batch, a rate) sees the same tokens once, in the same order; then come FVU
on the test rows, the L0 there and the share of latents that are silent on all of them. With --until 0.2
each goes through the tokens again and again instead, at a rate that does not fall before the last fifth
of 40 times, and the seconds are told until the test FVU is that low. --train and --test are stores of
extract.py, or safetensors files with `rows (n, d)`. Knows stores and the trainer; nothing of backbones.
"""

import argparse
import itertools
import sys
import time
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __import__("training")  # a Ctrl-C from here on ends in a sentence

import torch
from accelerate import Accelerator
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from sae.config import BackboneRef
from sae.metrics.reconstruction import ReconstructionMeter
from sae.terminal import command, described
from training.data.store.manifest import read_manifest
from training.data.store.reading import StoredRows
from training.loop.config import TrainConfig
from training.loop.trainer import Trainer

EVERY = 25
"""Steps between two looks at the test rows, with --until."""
EPOCHS = 40
"""At most, with --until."""


def rows_of(path: Path, n: int) -> Float[Tensor, "rows d_in"]:
    """About `n` rows float32 of a store, or of a safetensors file."""
    if path.is_file():
        return load_file(path)["rows"][:n].float()
    return StoredRows(path, read_manifest(path)).some(n)[:n]


def measured(trainer: Trainer, test: Tensor) -> tuple[float, float, float]:
    """FVU, L0 and the share of silent latents on the test rows."""
    sae = trainer.to_sae(BackboneRef("bench", 0))
    meter = ReconstructionMeter(sae)
    for part in test.split(8192):
        meter.update(part)
    found = meter.result()
    return found.fvu, found.l0, found.dead_share or 0.0


def trained(
    config: TrainConfig, train: Tensor, test: Tensor, until: float | None
) -> tuple[float, float, float, float]:
    """FVU, L0, silent share and seconds of training of a recipe."""
    trainer = Trainer(config, train.shape[1], Accelerator(cpu=True))
    trainer.start(train[: 16 * config.batch_size], 1)
    trainer.prepare()
    batches = itertools.islice(
        itertools.chain.from_iterable(
            train[torch.randperm(len(train), generator=torch.Generator().manual_seed(epoch))].split(
                config.batch_size
            )
            for epoch in range(EPOCHS if until else 1)
        ),
        None if until else config.steps,
    )
    seconds = 0.0
    for number, batch in enumerate(batches):
        start = time.perf_counter()
        trainer.step(batch, number)
        seconds += time.perf_counter() - start
        if until and number % EVERY == EVERY - 1 and measured(trainer, test)[0] <= until:
            break
    return (*measured(trainer, test), seconds)


@command
def main(argv: list[str]) -> None:
    """Print a line for every recipe."""
    options = parse(argv)
    train, test = rows_of(options.train, options.tokens), rows_of(options.test, options.test_rows)
    print("| recipe | batch | rate | FVU | L0 | silent | s |\n|---|---|---|---|---|---|---|")  # noqa: T201
    for arch, batch, times in itertools.product(options.arch, options.batch_size, options.times):
        steps = len(train) // batch
        most = EPOCHS * steps if options.until else steps
        one = {"arch": arch, "d_sae": options.d_sae, "k": options.k, "batch_size": batch}
        config = TrainConfig("bench", "rows", "unused", steps=most, **one)
        rate = TrainConfig("bench", "rows", "unused", steps=steps, **one).peak_lr * times
        config = TrainConfig("bench", "rows", "unused", steps=most, lr=rate, **one)
        fvu, l0, silent, seconds = trained(config, train, test, options.until)
        line = f"| {arch} | {batch} | {rate:.2e} ({times:g} ×) | {fvu:.4f} | {l0:.1f} |"
        print(f"{line} {100 * silent:.1f} % | {seconds:.0f} |", flush=True)  # noqa: T201


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=described(__doc__.split("\n\n")[0], "bench"))
    parser.add_argument("--train", type=Path, required=True, help="rows to train on")
    parser.add_argument("--test", type=Path, required=True, help="rows to measure on")
    parser.add_argument("--tokens", type=int, default=184_320, help="training rows")
    parser.add_argument("--test-rows", type=int, default=30_000)
    parser.add_argument("--arch", nargs="+", default=["topk"])
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1024])
    parser.add_argument("--times", type=float, nargs="+", default=[1.0], help="× the default rate")
    parser.add_argument("--d-sae", type=int, default=3072)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--until", type=float, help="train until this FVU, and tell the seconds")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
