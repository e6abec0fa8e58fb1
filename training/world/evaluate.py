"""Held-out figures of the world's CLIP. Knows the world and the CLIP interface; trains nothing."""

import numpy as np
import torch
from torch import Tensor, nn

from sae.world.backgrounds import BACKGROUNDS
from sae.world.scenes import TRAINING_STYLES, kind_names
from training.world.captions import noun_phrase, place_phrase
from training.world.generator import images
from training.world.tokens import make_image_processor, make_tokenizer

TEMPLATES = ("{}", "a picture of {}", "a photo of {}", "there is {}", "an image of {}")


@torch.no_grad()
def prompt_features(clip: nn.Module, phrases: list[list[str]]) -> Tensor:
    """One unit vector (n, d) a class: the mean over its phrases' unit text features."""
    tokenizer = make_tokenizer()
    rows = []
    for texts in phrases:
        words = tokenizer(texts, padding=True, return_tensors="pt").to(clip.device)
        features = clip.text_projection(
            clip.text_model(
                input_ids=words["input_ids"], attention_mask=words["attention_mask"]
            ).pooler_output
        )
        rows.append(nn.functional.normalize(features, dim=-1).mean(0))
    return nn.functional.normalize(torch.stack(rows), dim=-1)


@torch.no_grad()
def image_features(clip: nn.Module, pictures: np.ndarray, batch: int = 128) -> Tensor:
    """Unit image features (n, d) of uint8 pictures (n, H, W, 3)."""
    processor = make_image_processor()
    mean, std = (
        torch.tensor(v)[:, None, None] for v in (processor.image_mean, processor.image_std)
    )
    rows = []
    for chunk in torch.from_numpy(pictures).split(batch):
        pixels = ((chunk.permute(0, 3, 1, 2) / 255 - mean) / std).to(clip.device)
        rows.append(clip.visual_projection(clip.vision_model(pixel_values=pixels).pooler_output))
    return nn.functional.normalize(torch.cat(rows), dim=-1)


def evaluate_clip(clip: nn.Module, seed: int, n: int = 1000) -> dict[str, float]:
    """Zero-shot top-1 and top-5 over all kinds (one-object scenes of each training style, and of the
    held-out style) and top-1 over backgrounds, on `n` scenes each from stream `seed`."""
    objects = prompt_features(
        clip, [[t.format(noun_phrase(name)) for t in TEMPLATES] for name in kind_names()]
    )
    grounds = prompt_features(
        clip,
        [
            [
                f"an object {place_phrase(name)}",
                f"a picture of an animal {place_phrase(name)}",
                f"food {place_phrase(name)}",
            ]
            for name in BACKGROUNDS
        ],
    )
    figures: dict[str, float] = {"n": n, "seed": seed}
    for offset, style in enumerate((*TRAINING_STYLES, "fluent")):
        pictures, scenes = images(seed + offset, n, n_objects=1, styles=(style,))
        features = image_features(clip, pictures)
        truth = torch.tensor(
            [kind_names().index(s.objects[0].kind) for s in scenes], device=features.device
        )
        best = (features @ objects.T).topk(5).indices
        figures[f"{style}_top1"] = round((best[:, 0] == truth).float().mean().item(), 4)
        figures[f"{style}_top5"] = round((best == truth[:, None]).any(1).float().mean().item(), 4)
        place = torch.tensor(
            [BACKGROUNDS.index(s.background) for s in scenes], device=features.device
        )
        hits = (features @ grounds.T).argmax(1) == place
        figures[f"{style}_background"] = round(hits.float().mean().item(), 4)
    return figures
