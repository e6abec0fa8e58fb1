"""The GPU benchmark's code at a tiny size: its Triton kernels in Triton's interpreter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from training import kernels

ROOT = Path(__file__).resolve().parents[1]
TINY = """
import runpy, sys
for name in "accelerate datasets gradio matplotlib numba open_clip pandas PIL timm torchvision".split():
    sys.modules[name] = None  # the GPU machine need not have it
import torch
from training import kernels
assert kernels.chosen(torch.zeros(1)).__name__ == "training.kernels.on_cuda"
gpu = runpy.run_path("training/bench/gpu.py")
sizes = gpu["Sizes"](16, 24, 2, 5, images=2, pixels=16, layers=1, steps=1)
gpu["steps"](sizes, "cpu")
gpu["pixels"](sizes, "cpu")
"""


def test_every_variant_runs_on_the_kernels_of_a_gpu() -> None:
    pytest.importorskip("triton")
    environment = os.environ | {"TRITON_INTERPRET": "1", kernels.VARIABLE: "triton"}
    done = subprocess.run(
        [sys.executable, "-c", TINY], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("%") == 8
    assert done.stdout.count(" min\n") == 3
