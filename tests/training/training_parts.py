"""A tiny backbone, pictures and configs to train on, for any test of `training`."""

from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from PIL import Image

from sae.backbones import Backbone
from tests.tiny_models import tiny
from training.data.sources import ImageSource
from training.launch import StopRequest
from training.loop.config import TrainConfig
from training.loop.run import Run


def picture(number: int) -> Image.Image:
    """Picture number `number`: eight by eight coloured squares."""
    squares = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(squares).resize((32, 32), Image.Resampling.NEAREST)


def pictures(n: int | None = None) -> ImageSource:
    """A source of `n` pictures, or of endlessly many."""
    return ImageSource("squares", picture, None if n is None else np.arange(n))


def backbone() -> Backbone:
    """A random CLIP: 3 layers, width 32, 4 × 4 patches and CLS."""
    made = tiny("clip")
    return Backbone.from_model(made.model, made.image_processor, made.tokenizer)


def config(out: Path | str = "unused", **changes: Any) -> TrainConfig:
    """A run of 20 short steps."""
    small = {"d_sae": 64, "k": 4, "steps": 20, "batch_size": 64, "buffer": 4, "image_batch": 8}
    fields = {"backbone": "local", "data": "squares", "out": str(out), "eval_images": 8}
    return TrainConfig(**{**fields, **small, **changes})


def run(settings: TrainConfig) -> Run:
    """A run on the tiny backbone and endless pictures, not yet started."""
    return Run(settings, Accelerator(cpu=True), backbone(), pictures(), StopRequest())
