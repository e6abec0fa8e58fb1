"""Pictures to one vector each, by any image encoder: what says how alike two pictures are.

Knows every Backbone and, beside these, timm models that are no transformers (such as EfficientNet-Lite0),
read from a folder with timm's config.json and model.safetensors, or from the Hub as "timm/NAME".
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from sae.backbones.loading import load_backbone, timm_folder
from sae.images import upright_rgb

Encode = Callable[[list[Image.Image]], Float[Tensor, "images d_proj"]]
"""Pictures to unit vectors (n, d) float32."""


def image_encoder(id_or_dir: str, *, device: Any = "cpu", revision: str | None = None) -> Encode:
    """The encoder of a Backbone id ("bundled", a folder, a Hub id), or of any timm model.

    Raises ValueError for an unknown kind of model, BackboneError for what cannot be read,
    HubError for what the Hub does not give.
    """
    folder = timm_folder(id_or_dir, revision=revision)
    if folder is not None:
        import timm

        model = timm.create_model(f"local-dir:{folder}", pretrained=True)
        if not hasattr(model, "blocks") or not hasattr(model, "num_prefix_tokens"):
            return _pooled(model.to(device).eval().requires_grad_(False), device)
    backbone = load_backbone(
        id_or_dir,
        revision=revision,
        device=device,
        dtype=torch.float32,
        token=None,
        local_files_only=False,
    )
    return backbone.image_features


def _pooled(model: nn.Module, device: Any) -> Encode:
    """What comes before a timm model's classifier, pooled over the picture."""
    from timm.data import create_transform, resolve_model_data_config

    frame = create_transform(**resolve_model_data_config(model), is_training=False)

    @torch.inference_mode()
    def encode(images: list[Image.Image]) -> Tensor:
        pixels = torch.stack([frame(upright_rgb(image)) for image in images]).to(device)
        return F.normalize(_features(model, pixels).float(), dim=-1)

    return encode


def _features(model: Any, pixels: Tensor) -> Tensor:
    return model.forward_head(model.forward_features(pixels), pre_logits=True)


def timm_shapes(architecture: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a timm architecture's tensors, batch counters left out."""
    import timm

    with torch.device("meta"):
        state = timm.create_model(architecture, pretrained=False).state_dict()
    names = [name for name in state if not name.endswith("num_batches_tracked")]
    return {name: tuple(state[name].shape) for name in names}
