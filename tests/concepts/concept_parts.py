"""A backbone, an SAE and a data set of which every statistic can be worked out by hand."""

import numpy as np
import torch
from PIL import Image

from sae.concepts.build.image_pass import Item
from sae.config import BackboneRef, SAEConfig
from sae.errors import ImageError
from sae.model import SparseAutoencoder


class FakeBackbone:
    """One CLS and a 2 × 2 grid; the activation of a token is (its picture's red level, token number).

    Image features: red over 255 and green over 255 (mean colour). Text: "red" and "green" point at
    them, anything else at a third axis.
    """

    id, revision, family = "fake", None, "fake"
    n_prefix, patch_grid, has_cls, has_text = 1, (2, 2), True, True
    dtype, device, logit_scale = torch.float32, torch.device("cpu"), 10.0

    def preprocess(self, images):
        return {"red": torch.tensor([float(image.getpixel((0, 0))[0]) for image in images])}

    def activations(self, images, layer):  # noqa: ARG002
        red = (images if isinstance(images, dict) else self.preprocess(images))["red"]
        tokens = torch.arange(5.0)
        return torch.stack([red[:, None].expand(-1, 5), tokens.expand(len(red), -1)], dim=-1)

    def image_box(self, size):
        return (0.0, 0.0, float(size[0]), float(size[1]))

    def image_features(self, images):
        means = [np.asarray(image).reshape(-1, 3).mean(0) / 255 for image in images]
        rows = torch.tensor(np.array([[m[0], m[1], 0.01] for m in means]), dtype=torch.float32)
        return torch.nn.functional.normalize(rows, dim=-1)

    def text_features(self, texts):
        axes = {"red": 0, "green": 1}
        rows = [
            next((torch.eye(3)[a] for word, a in axes.items() if word in text), torch.eye(3)[2])
            for text in texts
        ]
        return torch.stack(rows)


class Reds:
    """Images of given red levels; the label says odd or even. Level -1 is a damaged file."""

    name = "reds"

    def __init__(self, levels, classes=("even", "odd"), size=(8, 8)):
        self.levels, self.classes, self.size = levels, list(classes), size

    def __len__(self):
        return len(self.levels)

    def __getitem__(self, number):
        level = self.levels[number]
        if level < 0:
            raise ImageError(f"Image {number} is damaged.")
        label = self.classes[number % len(self.classes)] if self.classes else ""
        return Item(Image.new("RGB", self.size, (level, 0, 0)), label, f"red {level}")


def make_sae(d_more: int = 0) -> SparseAutoencoder:
    """Latent 0 = red / 10 on every token; latent 1 = (token number - 3) on token 4 alone; latent 2
    and any more are dead."""
    sae = SparseAutoencoder(SAEConfig("relu", 2, 3 + d_more, BackboneRef("fake", 0)))
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.zero_()
        sae.W_enc[0, 0], sae.W_enc[1, 1] = 0.1, 1.0
        sae.b_enc.fill_(-1.0)
        sae.b_enc[:2] = torch.tensor([0.0, -3.0])
        sae.W_dec[0], sae.W_dec[1] = torch.tensor([2.0, 0.0]), torch.tensor([1.0, 1.0])
    return sae.eval()
