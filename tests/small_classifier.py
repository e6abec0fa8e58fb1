"""A small page of a classifier: a random EfficientNet that tells six classes apart, an SAE whose latents are
tokens of scenes, and the index of both. Knows no bundled weights."""

import json
from functools import cache
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

from sae.backbones import Backbone
from sae.concepts.build.assembly import build_index
from sae.concepts.build.naming import name_by_labels
from sae.concepts.index import ConceptIndex
from sae.config import BackboneRef, SAEConfig
from sae.model import SparseAutoencoder
from tests.small_page import SCENES, Scenes, picture

CLASSES = ("tabby cat", "tiger cat", "school bus", "rocket", "tulip", "teapot")
D_SAE = 96


@cache
def weights() -> dict[str, torch.Tensor]:
    """Of the tower; the classifier's are large enough for sure answers."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = timm.create_model("test_efficientnet", num_classes=len(CLASSES)).state_dict()
    return state | {"classifier.weight": 6 * state["classifier.weight"]}


def save(folder: Path) -> Path:
    """The artifact in `folder`, for `app.py --sae FOLDER`; its tower lies in it too."""
    tower = folder / "tower"
    tower.mkdir(parents=True)
    save_file(weights(), tower / "model.safetensors")
    said = {"label_names": CLASSES, "num_classes": len(CLASSES), "input_size": [3, 160, 160]}
    config = {"architecture": "test_efficientnet", "num_classes": len(CLASSES)}
    (tower / "config.json").write_text(json.dumps({**config, "pretrained_cfg": said}))
    backbone, sae, index = models(tower)
    sae.save_pretrained(folder)
    index.with_layout().save_pretrained(folder)
    return folder


def models(tower: Path) -> tuple[Backbone, SparseAutoencoder, ConceptIndex]:
    """Backbone, SAE and index of the tower in a folder."""
    backbone = Backbone.from_pretrained(tower).at(-1)
    tokens = backbone.activations([picture(number) for number in range(len(SCENES))], -1)
    tokens = tokens.flatten(0, 1)
    centre = tokens.mean(0)
    far = (tokens - centre).norm(dim=-1).argsort(descending=True)[: 4 * D_SAE : 4]
    directions = torch.nn.functional.normalize(tokens[far] - centre, dim=-1)
    ref = BackboneRef(str(tower), -1, family=backbone.family)
    sae = SparseAutoencoder(SAEConfig("topk", backbone.d_model, D_SAE, ref, k=6))
    with torch.no_grad():
        sae.W_enc.copy_(directions.T)
        sae.W_dec.copy_(directions)
        sae.b_dec.copy_(centre)
    sae.eval()
    index = build_index(
        Scenes(), backbone, sae, batch=20, embed=backbone.image_features, embedder=backbone.id
    )
    return backbone, sae, name_by_labels(index)
