"""The speed of a training step against other libraries: python training/bench/sae_step.py

768 -> 12,288 latents, k = 32, batch 4,096, float32, a full step with Adam, each variant in its own
process, in turns, so that all see the same load of the machine. `--peers ENVIRONMENTS SCRIPTS` adds
other libraries: a folder of virtual environments v_<name> and a folder of their bench_<library>.py,
each of which prints one line. Then the FVU with latents chosen in bfloat16, after the same samples.
"""

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # works from a bare clone
from training.objective import Objective
from training.parameters import TrainableSAE
from training.sparse_objective import SparseObjective
from training.update import Update

D_IN, D_SAE, K, BATCH = 768, 12_288, 32, 4096
GROUPS = (768, 1536, 3072, 6912)
OURS = ("topk", "topk, bf16 selection", "topk, no screening", "topk, plain torch")
OURS += (
    "batch_topk",
    "matryoshka",
    "relu",
    "floor: float32 matmul + topk",
    "floor: bfloat16 matmul",
)
PEERS = {
    "eai-sparsify topk": ("v_eai", "bench_eai_sparsify.py", "adam"),
    "SAELens topk": ("v_saelens", "bench_saelens.py", "topk"),
    "SAELens batchtopk": ("v_saelens", "bench_saelens.py", "batchtopk"),
    "overcomplete topk": ("v_over", "bench_overcomplete.py", "topk"),
    "overcomplete batchtopk": ("v_over", "bench_overcomplete.py", "batchtopk"),
    "dictionary-learning topk": ("v_dl", "bench_dictionary_learning.py", "topk"),
    "dictionary-learning batchtopk": ("v_dl", "bench_dictionary_learning.py", "batchtopk"),
}
BASES = ("eai-sparsify topk", "SAELens topk", "SAELens batchtopk")
"""What ratios are given against; the other libraries are measured in the first round only."""
LINE = re.compile(r"\(best +([\d.]+)\).*cpu +([\d.]+)s/step.*peakRSS ([\d.]+)GiB")


def step_of(name: str) -> Callable[[torch.Tensor], object]:
    """One full step of a variant of ours, or a floor."""
    if name.startswith("floor"):
        return floor(name)
    architecture = name.split(",")[0]
    weights = TrainableSAE(architecture, D_IN, D_SAE, seed=0)
    if architecture == "relu":
        objective = Objective(weights, "relu", k=K, l1=0.05)
    else:
        objective = SparseObjective(
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


def child(name: str, n: int) -> None:
    """Print the best seconds, the median CPU seconds and the peak GiB of n steps after a first."""
    if "plain" in name:
        os.environ["PATCHLENS_KERNELS"] = "plain"
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(BATCH, D_IN, generator=generator) for _ in range(n + 1)]
    step = step_of(name)
    step(batches[0])
    wall, cpu = [], []
    for x in batches[1:]:
        began, cpu_began = time.perf_counter(), time.process_time()
        step(x)
        wall.append(time.perf_counter() - began)
        cpu.append(time.process_time() - cpu_began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps([min(wall), statistics.median(cpu), peak]))


def measure(name: str, args: argparse.Namespace) -> list[float] | None:
    """Best seconds, CPU seconds and peak GiB of one process; None if it gave no figure."""
    environment = os.environ | {"N": str(args.steps), "NT": str(args.threads)}
    environment["OMP_NUM_THREADS"] = str(args.threads)
    if name not in PEERS:
        command = [sys.executable, __file__, "--child", name, "--steps", str(args.steps)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)
    folder, script, what = PEERS[name]
    environments, scripts = (Path(path) for path in args.peers)
    command = [str(environments / folder / "bin/python"), str(scripts / script), what]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = LINE.search(done.stdout)
    if found is None:
        return None
    samples, cpu, peak = (float(number) for number in found.groups())
    return [BATCH / samples, cpu, peak]


def table(args: argparse.Namespace) -> None:
    """All variants in turns; ratios are medians over rounds of figures of the same round."""
    names = [*(PEERS if args.peers else ()), *OURS]
    rounds: list[dict[str, list[float]]] = []
    for number in range(args.rounds):
        found: dict[str, list[float]] = {}
        for name in names:
            if number and name in PEERS and name not in BASES:
                continue
            figures = measure(name, args)
            if figures is None:
                print(f"{name}: no figure")
                continue
            found[name] = figures
            print(f"round {number + 1}  {name:32}{figures[0]:8.3f} s", flush=True)
        rounds.append(found)
    bases = [base for base in BASES if all(base in found for found in rounds)]
    head = f"{'':32}{'step s':>8}{'samples/s':>11}{'CPU s':>8}{'GiB':>6}"
    print("\nratios: of wall time (of CPU time), medians over rounds\n" + head, end="")
    print("".join(f"   x {base}" for base in bases))
    for name in names:
        seen = [found[name] for found in rounds if name in found]
        if not seen:
            continue
        wall, cpu, peak = (min(column) for column in zip(*seen, strict=True))
        line = f"{name:32}{wall:8.3f}{BATCH / wall:11.0f}{cpu:8.2f}{peak:6.2f}"
        for base in bases:
            pairs = [(found[base], found[name]) for found in rounds if name in found]
            ratios = (statistics.median(b[i] / a[i] for b, a in pairs) for i in (0, 1))
            line += "{:.2f} ({:.2f})".format(*ratios).rjust(len(base) + 5)
        print(line)


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
    objective = SparseObjective(weights, "topk", k=K, aux=1 / 32, select_dtype=select_dtype)
    update, dead = Update(weights), torch.zeros(D_SAE, dtype=torch.bool)
    for _ in range(n_steps):
        objective(batch(), dead).loss.backward()
        update.step(1e-3)
    with torch.no_grad():
        x = batch()
        error = objective(x, dead).squared_error
    return float(error / (x - x.mean(0)).square().sum()), objective.differing or 0.0


def main() -> None:
    """Print the table, then the FVUs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--peers", nargs=2, metavar=("ENVIRONMENTS", "SCRIPTS"))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=4, help="timed steps a process")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--fvu-steps", type=int, default=64)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.steps)
        return
    table(args)
    if args.fvu_steps:
        torch.set_num_threads(args.threads)
        exact, _ = fvu_after(torch.float32, args.fvu_steps)
        rounded, differing = fvu_after(torch.bfloat16, args.fvu_steps)
        print(f"\nFVU after {args.fvu_steps * BATCH:,} samples: exact {exact:.4f}, ", end="")
        print(f"bf16 selection {rounded:.4f} ({rounded / exact - 1:+.2%}); ", end="")
        print(f"{differing:.2%} of its entries were chosen otherwise in the last comparison")


if __name__ == "__main__":
    main()
