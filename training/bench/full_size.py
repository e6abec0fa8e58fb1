"""The server's path from a new picture to its answer at full size: python training/bench/full_size.py

A random CLIP ViT-B/16 (224 px) and random SAEs of 49,152 latents, built from their configurations.
Times the whole path that an upload takes, after one warm-up, and the peak memory of the process.
"""

import resource
import sys
import time
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np
import torch
from PIL import Image
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from sae.backbones import Backbone
from sae.config import BackboneRef, SAEConfig
from sae.model import SparseAutoencoder
from sae.ui.analysis import Analyst
from sae.ui.catalogue import Catalogue
from sae.ui.concepts_desk import ConceptsDesk
from training.launch import command

D_SAE = 49_152
LIMIT_S, LIMIT_GIB = 2.5, 4.0


def backbone() -> Backbone:
    """CLIP ViT-B/16 with random weights."""
    config = CLIPVisionConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        image_size=224,
        patch_size=16,
    )
    return Backbone.from_model(CLIPVisionModelWithProjection(config), id="random ViT-B/16")


def random_sae(vit: Backbone, architecture: str) -> SparseAutoencoder:
    """Random directions; the bias of batch_topk and relu keeps some hundred latents a token."""
    keep = {"topk": {"k": 32}, "batch_topk": {"k": 32, "threshold": 3.0}, "relu": {}}[architecture]
    cfg = SAEConfig(
        architecture, vit.d_model, D_SAE, BackboneRef(vit.id, -2, family=vit.family), **keep
    )
    sae = SparseAutoencoder(cfg)
    with torch.no_grad():
        directions = torch.nn.functional.normalize(torch.randn(vit.d_model, D_SAE), dim=0)
        sae.W_enc.copy_(directions)
        sae.W_dec.copy_(directions.T)
    return sae.eval()


def picture(seed: int) -> Image.Image:
    """A smooth random picture of 1280 x 960."""
    pixels = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((1280, 960), Image.Resampling.BICUBIC)


@command
def main(_argv: list[str]) -> None:
    """Print one line per architecture."""
    torch.manual_seed(0)
    vit = backbone()
    for architecture in ("topk", "batch_topk", "relu"):
        analyst = Analyst(vit, random_sae(vit, architecture))
        desk = ConceptsDesk(analyst, Catalogue(None, D_SAE, analyst.grid))
        times: list[float] = []
        for seed in range(4):
            start = time.perf_counter()
            answer = desk.open_image(picture(seed))
            times.append(time.perf_counter() - start)
        size = sum(len(str(part)) for part in answer["code"].values()) / 1e3
        verdict = "ok" if max(times[1:]) <= LIMIT_S else "OVER"
        print(
            f"{architecture:<11} new picture to answer {np.median(times[1:]):.2f} s, "
            f"worst {max(times[1:]):.2f} s (first {times[0]:.2f}), "
            f"limit {LIMIT_S} s {verdict}; code {size:.0f} kB"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** (
        30 if sys.platform == "darwin" else 20
    )
    print(
        f"peak memory {peak:.2f} GiB, limit {LIMIT_GIB} GiB {'ok' if peak <= LIMIT_GIB else 'OVER'}"
    )


if __name__ == "__main__":
    sys.exit(main())
