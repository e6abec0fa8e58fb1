"""A small real page: a random CLIP, an SAE whose latents are tokens of scenes, and the index of both.

Everything is made by the code that makes the real ones, in a few seconds, and loaded from a folder
as `app.py` does. Knows no bundled weights; what the tests expect they read from the index.
"""

from functools import cache
from pathlib import Path

import torch
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

from sae.backbones import Backbone
from sae.concepts.build.assembly import build_index
from sae.concepts.build.image_pass import Item
from sae.concepts.build.naming import name_by_labels
from sae.concepts.index import ConceptIndex
from sae.config import BackboneRef, SAEConfig
from sae.model import SparseAutoencoder
from sae.storage import write_sealed
from sae.world.scenes import BACKGROUNDS, Scene, SceneObject, compose
from tests.tiny_models import SPECIAL, TinyModel, tiny_tokenizer

D_SAE = 512
KINDS = ("tiger", "bus", "rocket", "cat")
SCENES = tuple(
    Scene(
        BACKGROUNDS[number % len(BACKGROUNDS)],
        (
            SceneObject(
                KINDS[number % len(KINDS)], "noto", 30 + number % 3 * 15, 35 + number % 5 * 7
            ),
        ),
        number,
    )
    for number in range(40)
)
METRICS = {"fvu": 0.21, "l0": 16.0}


class Scenes:
    """SCENES as the data set of an index."""

    name, classes = "emoji world, 40 scenes", KINDS

    def __len__(self) -> int:
        return len(SCENES)

    def __getitem__(self, number: int) -> Item:
        kind = SCENES[number].objects[0].kind
        return Item(picture(number), kind, f"a {kind}")


@cache
def picture(number: int) -> Image.Image:
    """A scene of the data set."""
    return Image.fromarray(compose(SCENES[number]).image)


@cache
def model() -> TinyModel:
    """A random CLIP with text: 96 px, patches of 8, 4 layers of width 32."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    vision = {**sizes, "num_hidden_layers": 4, "image_size": 96, "patch_size": 8}
    text = {**sizes, **SPECIAL, "num_hidden_layers": 1, "max_position_embeddings": 16}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 96}, crop_size={"height": 96, "width": 96}
    )
    return TinyModel(clip.eval(), processor, tiny_tokenizer(), (12, 12), 1)


def small_backbone(id: str = "small") -> Backbone:
    """The random CLIP."""
    made = model()
    return Backbone.from_model(made.model, made.image_processor, made.tokenizer, id=id)


def small_sae(
    backbone: Backbone, d_sae: int = D_SAE, architecture: str = "topk"
) -> SparseAutoencoder:
    """An SAE on layer -2 whose latents point at tokens of the scenes.

    Every 128th fires everywhere, the last one nowhere.
    """
    ref = BackboneRef(backbone.id, -2, family=backbone.family)
    k = 20 if architecture == "topk" else None
    sae = SparseAutoencoder(SAEConfig(architecture, backbone.d_model, d_sae, ref, k=k))
    tokens = backbone.activations([picture(number) for number in range(len(SCENES))], -2)
    tokens = tokens.flatten(0, 1).float()
    centre = tokens.mean(0)
    chosen = torch.linspace(0, len(tokens) - 1, d_sae).long()
    directions = torch.nn.functional.normalize(tokens[chosen] - centre, dim=-1)
    with torch.no_grad():
        sae.W_enc.copy_(directions.T)
        sae.b_enc[::128] = 2 * float((tokens - centre).norm(dim=-1).max())
        sae.W_enc[:, -1] = 0
        sae.W_dec.copy_(directions / 4)
        sae.b_dec.copy_(centre)
    return sae.eval()


def small_index(backbone: Backbone, sae: SparseAutoencoder) -> ConceptIndex:
    """The index of the SAE over the scenes, named by their labels."""
    index = build_index(
        Scenes(), backbone, sae, batch=20, embed=backbone.image_features, embedder=backbone.id
    )
    return name_by_labels(index)


@cache
def small_world() -> tuple[Backbone, SparseAutoencoder, ConceptIndex]:
    """Backbone, SAE and index, made once."""
    backbone = small_backbone()
    sae = small_sae(backbone)
    return backbone, sae, small_index(backbone, sae)


def save(folder: Path, d_sae: int = D_SAE, *, maps: bool = True) -> Path:
    """The page's artifact in `folder`, for `app.py --sae FOLDER`; its CLIP lies in it too."""
    clip = model().save(folder / "clip")
    backbone = small_backbone(str(clip))
    sae = small_sae(backbone, d_sae)
    sae.save_pretrained(folder)
    index = small_index(backbone, sae)
    (index.with_layout() if maps else index).save_pretrained(folder)
    write_sealed(folder / "metrics.json", METRICS)
    return folder
