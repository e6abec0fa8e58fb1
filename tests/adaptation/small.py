"""A tiny random CLIP in parts, and an SAE on one of its layers, for the adaptation tests."""

import numpy as np
import torch
from PIL import Image

from sae.adaptation.lens import ConceptLens
from sae.backbones import Backbone
from sae.backbones.prompting import ClipParts
from sae.config import BackboneRef, SAEConfig
from sae.model import SparseAutoencoder
from tests.tiny_models import tiny

TEMPLATES = ("a photo of {}", "a photo of the {}", "{}")
CLASSES = ("cat", "dog", "red animal", "blue grass")


def small_parts() -> ClipParts:
    """3 vision blocks of width 32, 4 x 4 patches; 2 text blocks; its weights far from zero."""
    made = tiny("clip")
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(5)
        for parameter in made.model.parameters():
            if parameter.dim() > 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            elif parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    made.model.requires_grad_(False)
    return ClipParts(Backbone.from_model(made.model, made.image_processor, made.tokenizer))


def small_lens(
    parts: ClipParts, layer: int = -2, tokens: str = "all", k: int = 6, input_norm: str = "none"
) -> ConceptLens:
    """A random top-k SAE of 64 latents."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        ref = BackboneRef("local", layer, tokens=tokens)
        sae = SparseAutoencoder(SAEConfig("topk", 32, 64, ref, k=k, input_norm=input_norm))
        for parameter in sae.parameters():
            parameter.data.copy_(torch.randn(parameter.shape) * 0.3)
    return ConceptLens(parts, sae.eval().requires_grad_(False))


def pictures(n: int, seed: int = 0) -> list[Image.Image]:
    """Random 32 x 32 pictures."""
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)) for _ in range(n)]
