"""The CUDA path on one GPU, in minutes: python training/bench/gpu.py

Needs torch, transformers, triton and this package only. 768 -> 49,152 latents: a full training step of
TopK (k = 32) and of the ReLU recipe against a dense torch step and one with eai-sparsify's kind of
sparse backward, each also as a share of the encoder's bfloat16 matmul alone; then pixels to SAE steps
with a random CLIP ViT-B/16. Prints "no GPU here" where there is none.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __import__("training")  # a Ctrl-C from here on ends in a sentence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sae.terminal import command
from training.loop.objectives import objective_for
from training.loop.weights import TrainableSAE, Update

PATCHSAE_TOKENS = 516e6


class Sizes(NamedTuple):
    """What is measured; the defaults are those of ViT-B/16 and PatchSAE: 128 images of 197 tokens."""

    d_in: int = 768
    d_sae: int = 49_152
    k: int = 32
    batch: int = 128 * 197
    images: int = 128
    pixels: int = 224
    layers: int = 11
    steps: int = 10


Step = Callable[[Tensor], object]


def ours(sizes: Sizes, architecture: str, device: str, **options: object) -> Step:
    """A full step of this package."""
    weights = TrainableSAE(architecture, sizes.d_in, sizes.d_sae, seed=0).to(device)
    if architecture == "relu":
        objective: nn.Module = objective_for(weights, "relu", k=sizes.k, l1=8e-5, by_norm=True)
    else:
        objective = objective_for(weights, architecture, k=sizes.k, aux=1 / 32, **options)
    update, dead = Update(weights), torch.zeros(sizes.d_sae, dtype=torch.bool, device=device)

    def step(x: Tensor) -> None:
        with torch.autocast(device, torch.bfloat16, enabled=architecture == "relu"):
            loss = objective(x, dead).loss
        loss.backward()
        update.step(3e-4)

    return step


def dense(sizes: Sizes, device: str) -> Step:
    """TopK as plain torch writes it: dense latents, autograd, autocast, fused Adam."""
    w = TrainableSAE("topk", sizes.d_in, sizes.d_sae, seed=0).to(device)
    adam = torch.optim.Adam(w.parameters(), lr=3e-4, fused=True)

    def step(x: Tensor) -> None:
        with torch.autocast(device, torch.bfloat16):
            h = (x - w.b_dec) @ w.W_enc + w.b_enc
            values, indices = h.topk(sizes.k, dim=1, sorted=False)
            latents = torch.zeros_like(h).scatter(1, indices, values.relu())
            x_hat = latents @ w.W_dec + w.b_dec
        (x_hat.float() - x).square().sum(1).mean().backward()
        finish(w, adam)

    return step


def sparse_baseline(sizes: Sizes, device: str) -> Step:
    """TopK with a sparse backward that multiplies out each entry, as eai-sparsify's does."""
    w = TrainableSAE("topk", sizes.d_in, sizes.d_sae, seed=0).to(device)
    adam = torch.optim.Adam(w.parameters(), lr=3e-4, fused=True)

    def step(x: Tensor) -> None:
        with torch.no_grad(), torch.autocast(device, torch.bfloat16):
            h = (x - w.b_dec) @ w.W_enc + w.b_enc
            chosen, indices = h.topk(sizes.k, dim=1, sorted=False)
        values = Chosen.apply(chosen.float().relu(), indices, x - w.b_dec, w.W_enc, w.b_enc)
        x_hat = F.embedding_bag(indices, w.W_dec, per_sample_weights=values, mode="sum") + w.b_dec
        (x_hat - x).square().sum(1).mean().backward()
        finish(w, adam)

    return step


class Chosen(torch.autograd.Function):
    """Chosen latents' values, whose backward adds up `tokens × k × d_in` products."""

    @staticmethod
    def forward(ctx, values, indices, x, W_enc, b_enc):  # noqa: ARG004
        ctx.save_for_backward(values, indices, x, W_enc)
        return values

    @staticmethod
    def backward(ctx, grad):
        values, indices, x, W_enc = ctx.saved_tensors
        grad = grad * (values > 0)
        rows = W_enc.t()
        grad_x = F.embedding_bag(indices, rows, per_sample_weights=grad, mode="sum")
        products = (grad[:, :, None] * x[:, None]).flatten(0, 1)
        grad_rows = torch.zeros_like(rows).index_add_(0, indices.flatten(), products)
        grad_b = grad.new_zeros(len(rows)).index_add_(0, indices.flatten(), grad.flatten())
        return None, None, grad_x, grad_rows.t(), grad_b


def finish(w: TrainableSAE, adam: torch.optim.Optimizer) -> None:
    """What follows a backward in every step."""
    w.remove_parallel_gradient()
    nn.utils.clip_grad_norm_(w.parameters(), 1.0)
    adam.step()
    adam.zero_grad()
    w.normalise_decoder()


def matmul(sizes: Sizes, device: str) -> Step:
    """The floor: the encoder's matmul in bfloat16."""
    rows = torch.randn(sizes.d_sae, sizes.d_in, device=device, dtype=torch.bfloat16)
    return lambda x: x.bfloat16() @ rows.t()


def seconds(step: Step, batches: list[Tensor], n: int) -> float:
    """Median seconds of a step, after two for warming up."""
    taken = []
    for number in range(n + 2):
        synchronise(batches[0])
        began = time.perf_counter()
        step(batches[number % len(batches)])
        synchronise(batches[0])
        taken.append(time.perf_counter() - began)
    return sorted(taken[2:])[n // 2]


def synchronise(like: Tensor) -> None:
    """Wait for the device."""
    if like.is_cuda:
        torch.cuda.synchronize()


def steps(sizes: Sizes, device: str) -> None:
    """The table of steps."""
    low = {"select_dtype": torch.bfloat16}
    makers: dict[str, Callable[[], Step]] = {
        "floor: bfloat16 encoder matmul": lambda: matmul(sizes, device),
        "topk, exact": lambda: ours(sizes, "topk", device),
        "topk, exact, no screening": lambda: ours(sizes, "topk", device, screen=False),
        "topk, bf16 selection": lambda: ours(sizes, "topk", device, **low),
        "batch_topk, bf16 selection": lambda: ours(sizes, "batch_topk", device, **low),
        "topk, sparse baseline": lambda: sparse_baseline(sizes, device),
        "topk, dense torch": lambda: dense(sizes, device),
        "relu recipe": lambda: ours(sizes, "relu", device),
    }
    batches = [torch.randn(sizes.batch, sizes.d_in, device=device) for _ in range(2)]
    floor = None
    print(f"{'':34}{'ms':>10}{'tokens/s':>12}{'matmul share':>14}{'GiB':>7}")
    for name, make in makers.items():
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        try:
            taken = seconds(make(), batches, sizes.steps)
        except torch.OutOfMemoryError:
            print(f"{name:34} out of memory")
            continue
        floor = floor or taken
        peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0
        speed = f"{taken * 1e3:10.2f}{sizes.batch / taken:12,.0f}"
        print(f"{name:34}{speed}{floor / taken:14.1%}{peak:7.2f}", flush=True)


def pixels(sizes: Sizes, device: str) -> None:
    """Images on the GPU -> the first layers of a random CLIP ViT -> steps on all tokens."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=sizes.d_in,
        intermediate_size=4 * sizes.d_in,
        num_hidden_layers=sizes.layers,  # stops at layer -2 of 12
        num_attention_heads=max(1, sizes.d_in // 64),
        image_size=sizes.pixels,
        patch_size=16,
    )
    vit = CLIPVisionModel(config).to(device).eval()
    shape = sizes.images, 3, sizes.pixels, sizes.pixels
    pictures = [torch.randint(0, 256, shape, dtype=torch.uint8, device=device) for _ in range(2)]
    n_tokens = sizes.images * ((sizes.pixels // 16) ** 2 + 1)

    makers = {
        "topk, exact": lambda: ours(sizes, "topk", device),
        "topk, bf16 selection": lambda: ours(sizes, "topk", device, select_dtype=torch.bfloat16),
        "relu recipe": lambda: ours(sizes, "relu", device),
    }
    print(f"\n{'from pixels to steps':34}{'tokens/s':>12}{'PatchSAE: 516 M tokens in':>28}")
    for name, make in makers.items():
        taken = seconds(whole(vit, make(), device), pictures, sizes.steps)
        minutes = PATCHSAE_TOKENS * taken / n_tokens / 60
        print(f"{name:34}{n_tokens / taken:12,.0f}{minutes:24.1f} min", flush=True)


def whole(vit: nn.Module, step: Step, device: str) -> Step:
    """A step on all tokens of some images."""

    def run(images: Tensor) -> None:
        with torch.no_grad(), torch.autocast(device, torch.bfloat16):
            tokens = vit(images.float() / 127.5 - 1).last_hidden_state
        step(tokens.float().flatten(0, 1))

    return run


@command
def main(_argv: list[str]) -> None:
    """Print both tables."""
    if not torch.cuda.is_available():
        print("no GPU here")
        return
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    steps(Sizes(), "cuda")
    torch.cuda.empty_cache()
    pixels(Sizes(), "cuda")


if __name__ == "__main__":
    sys.exit(main())
