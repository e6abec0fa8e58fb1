"""What makes two backbones give the same activations: their weights and their preprocessing.

Knows parameters and framings as numbers. Knows nothing of files, SAEs or training.
"""

import dataclasses
import hashlib
from typing import Any

import numpy as np
import torch
from PIL import Image

from sae.backbones.base import Backbone

_COLOURS = {"black": (0, 0, 0), "red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def weights_sha256(backbone: Backbone) -> str:
    """SHA-256 of the vision tower's parameters and buffers, with their names and shapes.

    Taken of the values rounded to bfloat16, so that it does not depend on the dtype the backbone
    was loaded in. Half a second for 100 M parameters.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(backbone._vision.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} ".encode())
        values = tensor.detach().to(torch.bfloat16).cpu().contiguous().flatten()
        digest.update(values.view(torch.uint8).numpy() if values.numel() else b"")
    return digest.hexdigest()


def preprocessing_of(backbone: Backbone) -> dict[str, Any]:
    """Resize, crop and normalisation as JSON: the framing, and what plain colours become.

    Equal descriptions mean equal inputs, whichever class of image processor is behind them.
    """
    framing = dataclasses.asdict(backbone._framing)
    shown = {name: list(v) if isinstance(v, tuple) else v for name, v in framing.items()}
    height, width = backbone._framing.crop
    for name, colour in _COLOURS.items():
        pixels = backbone.preprocess([Image.new("RGB", (width, height), colour)])["pixel_values"]
        values = np.unique(pixels.float().numpy().round(3))
        shown[name] = [round(float(v), 3) + 0.0 for v in values[:8]]
    return {**shown, "resample": int(shown["resample"])}
