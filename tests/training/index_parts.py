"""What tests of training/index.py share: a tiny CLIP, an SAE for it, pictures of three classes."""

from pathlib import Path

import numpy as np
import torch

from sae.config import BackboneRef, SAEConfig
from sae.model import SparseAutoencoder
from tests.tiny_models import tiny
from tests.training.training_parts import picture


def make_world(root: Path) -> Path:
    """A tiny CLIP in clip/, an SAE for it in sae/, 24 pictures of three classes in data/."""
    clip = tiny("clip").save(root / "clip")
    sae = SparseAutoencoder(SAEConfig("topk", 32, 48, BackboneRef(str(clip), -2), k=4))
    rng = np.random.default_rng(0)
    for parameter in (sae.W_enc, sae.W_dec):
        values = torch.tensor(rng.normal(size=tuple(parameter.shape)), dtype=torch.float32)
        parameter.data.copy_(values)
    sae.save_pretrained(root / "sae")
    for number in range(24):
        folder = root / "data" / ("big_cats", "чайки", "縞")[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        picture(number).save(folder / f"{number:02}.png")
    (root / "words.txt").write_text("red\nsquare\nнебо\n", encoding="utf-8")
    return root


def words(world: Path, out: Path, *more: str) -> list[str]:
    """The command line that indexes that data set into `out`."""
    base = f"--sae {world / 'sae'} --data {world / 'data'} --out {out} --batch 5 --device cpu"
    base += " --naming-confidence 0"
    return [*base.split(), "--vocabulary", str(world / "words.txt"), *more]
