"""The speed of a training step against other libraries: python training/bench/sae_step.py

768 -> 12,288 latents, k = 32, batch 4,096, float32, a full step with Adam, each variant in its own
process, in turns, so that all see the same load of the machine. `--peers FOLDER` adds other libraries,
in the virtual environments that peers/environments.sh makes there. Then the FVU with latents chosen in
bfloat16, after the same samples.

`--into FILE` keeps the figures and measures only what it does not hold yet, `--minutes` ends a piece.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __import__("training")  # a Ctrl-C from here on ends in a sentence

import torch

from sae.terminal import command
from training.bench.peers.timing import BATCH, D_IN, D_SAE, K, timed
from training.kernels import has_fast_bfloat16
from training.loop.objectives import objective_for
from training.loop.weights import TrainableSAE, Update

GROUPS = (768, 1536, 3072, 6912)
OURS = ("topk", "topk, bf16 selection", "topk, no screening", "topk, plain torch")
OURS += (
    "batch_topk",
    "matryoshka",
    "relu",
    "floor: float32 matmul + topk",
    "floor: bfloat16 matmul",
)
FVUS = {"FVU, exact": torch.float32, "FVU, bf16 selection": torch.bfloat16}
PEERS = {
    "eai-sparsify topk": "v_eai",
    "SAELens topk": "v_saelens",
    "SAELens batchtopk": "v_saelens",
    "overcomplete topk": "v_over",
    "overcomplete batchtopk": "v_over",
    "dictionary-learning topk": "v_dl",
    "dictionary-learning batchtopk": "v_dl",
}
"""Other libraries' steps by the environment they run in."""
BASES = ("eai-sparsify topk", "SAELens topk", "SAELens batchtopk")
"""What ratios are given against; the other libraries are measured in the first round only."""


def step_of(name: str) -> Callable[[torch.Tensor], object]:
    """One full step of a variant of ours, or a floor."""
    if name.startswith("floor"):
        return floor(name)
    architecture = name.split(",")[0]
    weights = TrainableSAE(architecture, D_IN, D_SAE, seed=0)
    if architecture == "relu":
        objective = objective_for(weights, "relu", k=K, l1=0.05)
    else:
        objective = objective_for(
            weights,
            architecture,
            k=K,
            aux=1 / 32,
            groups=GROUPS if architecture == "matryoshka" else None,
            select_dtype=torch.bfloat16 if "bf16" in name else torch.float32,
            screen=False if "no screening" in name else None,
        )
    update, dead = Update(weights), torch.zeros(D_SAE, dtype=torch.bool)

    def step(x: torch.Tensor) -> None:
        objective(x, dead).loss.backward()
        update.step(3e-4)

    return step


def floor(name: str) -> Callable[[torch.Tensor], object]:
    """What no exact step can do without: the encoder's matmul."""
    dtype = torch.bfloat16 if "bfloat16" in name else torch.float32
    rows = (torch.randn(D_SAE, D_IN) * 0.03).to(dtype)
    out = torch.empty(BATCH, D_SAE, dtype=dtype)

    def step(x: torch.Tensor) -> None:
        h = torch.mm(x.to(dtype), rows.t(), out=out)
        if dtype == torch.float32:
            h.topk(K, dim=1, sorted=False)

    return step


def measure(name: str, args: argparse.Namespace) -> list[float] | None:
    """Best seconds, CPU seconds and peak GiB of one process; None if it gave no figure."""
    environment = os.environ | {"OMP_NUM_THREADS": str(args.threads)}
    if "plain" in name:
        environment["PATCHLENS_KERNELS"] = "plain"
    if name in PEERS:
        python = args.peers / PEERS[name] / "bin/python"
        command = [str(python), str(Path(__file__).parent / "peers/step.py"), name, str(args.steps)]
    else:
        n_steps = args.fvu_steps if name in FVUS else args.steps
        command = [sys.executable, __file__, "--child", name, "--steps", str(n_steps)]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.CalledProcessError, ValueError, IndexError) as error:
        print(getattr(error, "stderr", None) or error, file=sys.stderr)
        return None


def measured(args: argparse.Namespace) -> list[dict[str, list[float]]] | None:
    """The figures of every round by name; None if the time was up before the last."""
    began, rounds = time.monotonic(), [{} for _ in range(args.rounds)]
    if args.into and args.into.is_file():
        for line in args.into.read_text().splitlines():
            number, name, figures = json.loads(line)
            if number < len(rounds):
                rounds[number][name] = figures
    for number, by_name in enumerate(rounds):
        for name in [*(PEERS if args.peers else ()), *OURS, *FVUS]:
            first_only = name in FVUS or (name in PEERS and name not in BASES)
            if name in by_name or (number and first_only) or (name in FVUS and not args.fvu_steps):
                continue
            if args.minutes and time.monotonic() - began > 60 * args.minutes:
                print("time is up; the same command with the same --into goes on")
                return None
            figures = measure(name, args)
            if figures is None:
                print(f"{name}: no figure")
                continue
            by_name[name] = figures
            print(f"round {number + 1}  {name:32}{figures[0]:8.3f}", flush=True)
            if args.into:
                with args.into.open("a") as file:
                    file.write(json.dumps([number, name, figures]) + "\n")
    return rounds


def table(rounds: list[dict[str, list[float]]]) -> None:
    """Best figures; ratios are medians over rounds of figures of the same round."""
    bases = [base for base in BASES if all(base in by_name for by_name in rounds)]
    head = f"{'':32}{'step s':>8}{'samples/s':>11}{'CPU s':>8}{'GiB':>6}"
    print("\nratios: of wall time (of CPU time), medians over rounds\n" + head, end="")
    print("".join(f"   x {base}" for base in bases))
    for name in [*PEERS, *OURS]:
        seen = [by_name[name] for by_name in rounds if name in by_name]
        if not seen:
            continue
        wall, cpu, peak = (min(column) for column in zip(*seen, strict=True))
        line = f"{name:32}{wall:8.3f}{BATCH / wall:11.0f}{cpu:8.2f}{peak:6.2f}"
        for base in bases:
            pairs = [(by_name[base], by_name[name]) for by_name in rounds if name in by_name]
            ratios = (statistics.median(b[i] / a[i] for b, a in pairs) for i in (0, 1))
            line += "{:.2f} ({:.2f})".format(*ratios).rjust(len(base) + 5)
        print(line)
    if all(name in rounds[0] for name in FVUS):
        (exact, _), (rounded, differing) = (rounds[0][name] for name in FVUS)
        print(
            f"\nFVU after the same samples: exact {exact:.4f}, bf16 selection {rounded:.4f} ",
            end="",
        )
        print(f"({rounded / exact - 1:+.2%}); of its entries {differing:.2%} were chosen otherwise")


def fvu_after(select_dtype: torch.dtype, n_steps: int) -> tuple[float, float]:
    """FVU on new samples of a made-up sparse world after n steps; share chosen otherwise."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(4096, D_IN, generator=generator))

    def batch() -> torch.Tensor:
        code = torch.rand(BATCH, 32, generator=generator) + 0.2
        places = torch.randint(4096, (BATCH, 32), generator=generator)
        x = torch.nn.functional.embedding_bag(
            places, directions, per_sample_weights=code, mode="sum"
        )
        x = x + 0.02 * torch.randn(BATCH, D_IN, generator=generator)
        return x / 4

    weights = TrainableSAE("topk", D_IN, D_SAE, seed=0)
    objective = objective_for(weights, "topk", k=K, aux=1 / 32, select_dtype=select_dtype)
    update, dead = Update(weights), torch.zeros(D_SAE, dtype=torch.bool)
    for _ in range(n_steps):
        objective(batch(), dead).loss.backward()
        update.step(1e-3)
    with torch.no_grad():
        x = batch()
        error = objective(x, dead).squared_error
    return float(error / (x - x.mean(0)).square().sum()), objective.differing or 0.0


def machine(threads: int) -> str:
    """What the figures were made on."""
    try:
        models = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        models = []
    name = models[0] if models else platform.processor() or platform.machine()
    bf16 = "with" if has_fast_bfloat16("cpu") else "without"
    return f"{name} {bf16} bfloat16 products, {threads} threads, torch {torch.__version__}"


@command
def main(argv: list[str]) -> None:
    """Print the table, then the FVUs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--peers", type=Path, help="folder that peers/environments.sh filled")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=4, help="timed steps a process")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--fvu-steps", type=int, default=48, help="0: no FVUs")
    parser.add_argument("--into", type=Path, help="file of figures to go on from")
    parser.add_argument("--minutes", type=float, help="begin nothing after so long; needs --into")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.minutes and not args.into:
        parser.error("--minutes without --into would lose the figures; give a file")
    if args.child in FVUS:
        print(json.dumps(fvu_after(FVUS[args.child], args.steps)))
    elif args.child:
        timed(step_of(args.child), args.steps)
    elif (rounds := measured(args)) is not None:
        print(f"\n{date.today()}, {machine(args.threads)}")
        table(rounds)


if __name__ == "__main__":
    sys.exit(main())
