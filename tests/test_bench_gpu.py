"""The GPU benchmark's code, run at a tiny size on the CPU."""

import importlib.util
from pathlib import Path

PATH = Path(__file__).resolve().parents[1] / "training/bench/gpu.py"


def test_every_variant_runs(capsys) -> None:
    spec = importlib.util.spec_from_file_location("bench_gpu", PATH)
    gpu = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gpu)
    sizes = gpu.Sizes(64, 256, 4, 32, images=2, pixels=32, layers=1, steps=1)
    gpu.steps(sizes, "cpu")
    gpu.pixels(sizes, "cpu")
    printed = capsys.readouterr().out
    assert printed.count("%") == 8
    assert "516 M tokens" in printed
