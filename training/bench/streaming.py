"""From JPEG files to SAE steps, end to end: python training/bench/streaming.py

How many images a second the streaming path trains on, against the slower of its two halves alone:
decoding (reading, decoding, preprocessing), and computing (the truncated backbone forward and the
SAE steps, on inputs that are ready). All in one process, in turns, medians over the turns. The JPEGs
are scenes of the emoji world at 500 x 375 with a camera's noise, written to a temporary folder; the
backbone is a random CLIP of ViT-S/16 size.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __import__("training")  # a Ctrl-C from here on ends in a sentence

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image

from sae.backbones import Backbone
from sae.prefetch import prefetch
from sae.terminal import command
from sae.world.scenes import compose
from training.data.feeds import Opening, workers_for
from training.data.sources import ImageSource, open_whole
from training.launch import StopRequest
from training.loop.config import TrainConfig
from training.loop.run import Run
from training.world.generator import sample_scene

GOAL = 0.9
TOKENS = 197
"""Tokens of an image at 224 px with patches of 16."""


def jpegs(folder: Path, n: int, size: tuple[int, int] = (500, 375)) -> None:
    """Write n pictures of about 60 kB."""
    for number in range(n):
        rng = np.random.default_rng(number)
        scene = Image.fromarray(compose(sample_scene(rng)).image)
        pixels = np.asarray(scene.resize(size, Image.Resampling.BICUBIC)).astype(np.int16)
        noisy = np.clip(pixels + rng.normal(0, 6, pixels.shape).astype(np.int16), 0, 255)
        Image.fromarray(noisy.astype(np.uint8)).save(folder / f"{number:04d}.jpg", quality=90)


def vit(width: int, layers: int, device: torch.device) -> Backbone:
    """A random CLIP vision tower with patches of 16 at 224 px."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        image_size=224,
        patch_size=16,
    )
    return Backbone.from_model(CLIPVisionModel(config).to(device), id="random ViT")


class Pipeline:
    """A run on the folder, and its halves alone, each a round of the stream at a time."""

    def __init__(
        self, accelerator: Accelerator, backbone: Backbone, source: ImageSource, options: dict
    ) -> None:
        self.config = TrainConfig(
            "random", "jpegs", "nowhere", layer=-3, arch="topk", steps=1 << 20, **options
        )
        self.run = Run(self.config, accelerator, backbone, source, StopRequest())
        self.run.start()
        self.batches = self.run.batches()
        self.backbone, self.source = backbone, source
        stream = self.run.stream
        self.n_images = stream.n_places * stream.n_shards
        self.sizes = [end - start for start, end in stream._spans()] * stream.n_shards
        self._opening = Opening(source.for_size(backbone.needed_size), backbone, 0, None, TOKENS)
        self._ready = self._opening([(place, None) for place in range(max(self.sizes))]).inputs
        self._batch = next(self.batches)

    def end_to_end(self) -> None:
        """Open, forward and train on the images of one round."""
        for _ in range(self.config.buffer):
            self.run.step(next(self.batches))
        self._wait()

    def decoding(self) -> None:
        """Open and preprocess as many images, with the same workers."""
        workers = workers_for(self.config.workers, self.backbone.device)
        edges = np.cumsum([0, *self.sizes])
        groups = [
            [(int(place), None) for place in range(start, end)]
            for start, end in zip(edges[:-1], edges[1:], strict=True)
        ]
        for _ in prefetch(self._opening, groups, workers=workers):
            pass

    def computing(self) -> None:
        """The same forwards and steps on inputs that are ready."""
        layer = self.backbone.resolve_layer(self.config.layer)
        for size in self.sizes:
            inputs = {name: value[:size] for name, value in self._ready.items()}
            self.backbone.activations(inputs, layer).float()
        for _ in range(self.config.buffer):
            self.run.step(self._batch)
        self._wait()

    def speed(self, part: Callable[[], None]) -> float:
        """Images a second of one of the three."""
        start = time.perf_counter()
        part()
        return self.n_images / (time.perf_counter() - start)

    def _wait(self) -> None:
        if self.backbone.device.type == "cuda":
            torch.cuda.synchronize()


def measure(made: Pipeline, turns: int) -> dict[str, float]:
    """Median images a second of the three, in turns, after one turn to warm up."""
    parts = {"end to end": made.end_to_end, "computing": made.computing, "decoding": made.decoding}
    speeds: dict[str, list[float]] = {name: [] for name in parts}
    for turn in range(turns + 1):
        for name, part in parts.items():
            time.sleep(0.2)  # what was read ahead is not charged to the next part
            speed = made.speed(part)
            if turn:
                speeds[name].append(speed)
    return {name: statistics.median(measured) for name, measured in speeds.items()}


@command
def main(argv: list[str]) -> None:
    """Print one line for each number of workers."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--width", type=int, default=384, help="of the backbone (768: ViT-B)")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--d-sae", type=int, default=6144)
    parser.add_argument("--images", type=int, default=192, help="JPEGs to write")
    parser.add_argument("--image-batch", type=int, default=16)
    parser.add_argument("--places", type=int, default=8, help="images of a shard and round")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument(
        "--workers", type=int, nargs="+", help="processes to try (default: what training takes)"
    )
    args = parser.parse_args(argv)
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    torch.manual_seed(0)
    backbone = vit(args.width, args.layers, accelerator.device)
    batch = 8 * TOKENS
    print(f"{accelerator.device.type}, {torch.get_num_threads()} threads; SAE of {args.d_sae}")
    with tempfile.TemporaryDirectory() as folder:
        jpegs(Path(folder), args.images)
        whole, n = open_whole(folder)
        source = ImageSource("jpegs", whole.load, np.arange(n), can_shrink=True)
        for workers in args.workers or [workers_for(None, accelerator.device)]:
            options = {"d_sae": args.d_sae, "k": 32, "batch_size": batch, "workers": workers}
            options |= {"buffer": args.places, "image_batch": args.image_batch}
            made = Pipeline(accelerator, backbone, source, options)
            rates = measure(made, args.turns)
            made.run.stream.close()
            slower = min(rates["computing"], rates["decoding"])
            share = rates["end to end"] / slower
            verdict = "ok" if share >= GOAL else "MISSED"
            print(
                f"workers {workers}: end to end {rates['end to end']:.1f} images/s, decoding alone "
                f"{rates['decoding']:.1f}, computing alone {rates['computing']:.1f}: "
                f"{share:.0%} of the slower (goal {GOAL:.0%}) {verdict}"
            )


if __name__ == "__main__":
    sys.exit(main())
