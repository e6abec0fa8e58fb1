"""The server's path from a new picture to its answer at full size: python training/bench/full_size.py

A random CLIP ViT-B/16 (224 px) and random SAEs of 49,152 latents, built from their configurations.
Times the whole path that an upload takes, after one warm-up, and the peak memory of the process.
"""

import sys
import time
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __import__("training")  # a Ctrl-C from here on ends in a sentence

import numpy as np
import torch
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from sae.backbones import Backbone
from sae.config import BackboneRef, SAEConfig
from sae.model import SparseAutoencoder
from sae.terminal import command
from sae.ui.analysis import Analyst
from sae.ui.catalogue import Catalogue
from sae.ui.concepts_desk import ConceptsDesk
from training.bench.gauges import VIT_B_16, give_directions, peak_gib, picture, verdict

D_SAE = 49_152
LIMIT_S, LIMIT_GIB = 2.5, 4.0


def backbone() -> Backbone:
    """CLIP ViT-B/16 with random weights."""
    config = CLIPVisionConfig(**VIT_B_16)
    return Backbone.from_model(CLIPVisionModelWithProjection(config), id="random ViT-B/16")


def random_sae(vit: Backbone, architecture: str) -> SparseAutoencoder:
    """Random directions; the bias of batch_topk and relu keeps some hundred latents a token."""
    keep = {"topk": {"k": 32}, "batch_topk": {"k": 32, "threshold": 3.0}, "relu": {}}[architecture]
    cfg = SAEConfig(
        architecture, vit.d_model, D_SAE, BackboneRef(vit.id, -2, family=vit.family), **keep
    )
    sae = SparseAutoencoder(cfg)
    give_directions(sae)
    return sae.eval()


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
            answer = desk.open_image(picture(seed, (1280, 960)))
            times.append(time.perf_counter() - start)
        size = sum(len(str(part)) for part in answer["code"].values()) / 1e3
        print(
            f"{architecture:<11} new picture to answer {np.median(times[1:]):.2f} s, "
            f"worst {max(times[1:]):.2f} s (first {times[0]:.2f}), "
            f"limit {LIMIT_S} s {verdict(max(times[1:]), LIMIT_S)}; code {size:.0f} kB"
        )
    peak = peak_gib()
    print(f"peak memory {peak:.2f} GiB, limit {LIMIT_GIB} GiB {verdict(peak, LIMIT_GIB)}")


if __name__ == "__main__":
    sys.exit(main())
