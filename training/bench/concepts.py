"""Do latents find the world's objects? Best AUROC per object kind, latents against raw neurons.

    python training/bench/concepts.py --sae bundled

Held-out scenes of 1 to 3 objects. The image-level score of a unit is given both ways: the mean over the
image's tokens (PatchSAE's image-level activation) and the maximum. Raw neurons get both signs and keep
the better one.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # works from a bare clone
from sae.backbones import Backbone
from sae.concepts.build import tokens_of
from sae.metrics.auroc import auroc
from sae.model import SparseAutoencoder
from sae.scenes import kind_names
from training.world.generator import HELD_OUT_SEED, images

GOOD = 0.9


@torch.inference_mode()
def image_scores(
    pictures: np.ndarray, backbone: Backbone, sae: SparseAutoencoder
) -> dict[tuple[str, str], np.ndarray]:
    """Scores (n, units) of latents (d_sae) and signed neurons (2 × d_in), by mean and by maximum."""
    rows: dict[tuple[str, str], list[np.ndarray]] = {}
    for start in tqdm(range(0, len(pictures), 32), desc="scenes"):
        batch = [Image.fromarray(picture) for picture in pictures[start : start + 32]]
        x = tokens_of(backbone.activations(batch, sae.cfg.backbone.layer), backbone, sae)
        code = sae.encode_sparse(x)
        values, indices = code.values.flatten(1), code.indices.flatten(1)
        empty = torch.zeros(len(batch), sae.cfg.d_sae)
        found = {
            ("latents", "mean"): empty.scatter_add(1, indices, values) / x.shape[1],
            ("latents", "maximum"): empty.scatter_reduce(1, indices, values, "amax"),
            ("neurons", "mean"): torch.cat([x.mean(1), -x.mean(1)], dim=1),
            ("neurons", "maximum"): torch.cat([x.amax(1), -x.amin(1)], dim=1),
        }
        for key, score in found.items():
            rows.setdefault(key, []).append(score.numpy())
    return {key: np.concatenate(parts) for key, parts in rows.items()}


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--sae", default="bundled")
    parser.add_argument("--backbone", help="the SAE's own unless given")
    parser.add_argument("--n-scenes", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=HELD_OUT_SEED + 500)
    args = parser.parse_args()
    sae = SparseAutoencoder.from_pretrained(args.sae)
    ref = sae.cfg.backbone
    revision = ref.revision if args.backbone in (None, ref.id) else None
    backbone = Backbone.from_pretrained(args.backbone or ref.id, revision=revision)
    pictures, scenes = images(args.seed, args.n_scenes)
    labels = np.array(
        [[name in {item.kind for item in s.objects} for name in kind_names()] for s in scenes]
    )
    figures: dict[str, float] = {
        "n_scenes": args.n_scenes, "seed": args.seed, "n_kinds": labels.shape[1]
    }  # fmt: skip
    for (units, pooling), scores in image_scores(pictures, backbone, sae).items():
        best = auroc(scores, labels).max(0)
        name = f"{units}_{pooling}"
        figures[f"{name}_median_best_auroc"] = round(float(np.nanmedian(best)), 4)
        figures[f"{name}_share_of_kinds_at_{GOOD}"] = round(float(np.mean(best >= GOOD)), 4)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
