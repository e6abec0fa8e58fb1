"""open_clip models: their own vision transformer or ResNet, or a timm trunk, with a text tower."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor, nn

from sae.backbones.base import Backbone
from sae.backbones.framing import split_pipeline
from sae.backbones.maps import FeatureMap
from sae.backbones.timm import trunk_parts


class OpenClipBackbone(Backbone):
    """CLS, then patches (open_clip's transformer), a feature map's positions (its ResNet), or what the
    timm trunk has."""

    family = "open_clip"
    weight_files = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
    """What open_clip prefers to any pickle that may lie beside it."""
    hub_files = ("*.json", "*.txt", "*.model", "open_clip_*.safetensors")

    def __init__(
        self,
        model: Any,
        image_processor: Any = None,
        tokenizer: Any = None,
        *,
        id: str = "local",
        revision: str | None = None,
    ) -> None:
        framing, self._tail = split_pipeline(image_processor or _evaluation_transform(model))
        super().__init__(
            model.visual, framing=framing, id=id, revision=revision, **_tower_parts(model.visual)
        )
        self._model, self._tokenizer = model, tokenizer
        self.has_text = tokenizer is not None
        self.logit_scale = model.logit_scale.detach().float().exp().item()

    @classmethod
    def reads(cls, folder: Path, config: Mapping[str, Any]) -> bool:
        """open_clip's own config file, and no transformers' beside it."""
        return not config and (folder / "open_clip_config.json").is_file()

    @classmethod
    def wraps(cls, model: nn.Module) -> bool:
        """Its CLIP has a tower `visual` and encode_image."""
        return hasattr(model, "visual") and hasattr(model, "encode_image")

    @classmethod
    def load(
        cls,
        source: str,
        config: dict[str, Any],  # noqa: ARG003
        *,
        id: str,
        revision: str | None,
        device: str | torch.device,
        dtype: torch.dtype,
        **_access: Any,
    ) -> Self:
        """Read a folder with open_clip_config.json, safetensors and tokenizer."""
        import open_clip

        name = f"local-dir:{source}"
        model = open_clip.create_model(name, require_pretrained=True)
        model = model.to(device=device, dtype=dtype).eval().requires_grad_(False)
        return cls(model, tokenizer=open_clip.get_tokenizer(name), id=id, revision=revision)

    def _pixels(self, framed: list[Image.Image]) -> dict[str, Tensor]:
        return {"pixel_values": torch.stack([self._tail(image) for image in framed])}

    def _forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self._model.encode_image(inputs["pixel_values"])

    def _image_features(self, inputs: dict[str, Tensor]) -> Tensor:
        return self._forward(inputs)

    def _text_features(self, texts: list[str]) -> Tensor:
        return self._model.encode_text(self._tokenizer(texts).to(self.device))


def _tower_parts(visual: Any) -> dict[str, Any]:
    if hasattr(visual, "trunk"):
        return trunk_parts(visual.trunk)
    if hasattr(visual, "attnpool"):
        return _resnet_parts(visual)
    if not hasattr(visual, "transformer"):
        raise ValueError(
            f"open_clip tower {type(visual).__name__} is neither a vision transformer nor a ResNet "
            "nor a timm model; choose another"
        )
    return {
        "layers": list(visual.transformer.resblocks),
        "d_model": visual.transformer.width,
        "patch_size": tuple(visual.patch_size),
        "n_prefix": 1,
        "has_cls": True,
    }


def _resnet_parts(visual: Any) -> dict[str, Any]:
    """The stem, which ends with a pooling, and four groups of blocks; each halves the map but layer1."""
    groups = [visual.layer1, visual.layer2, visual.layer3, visual.layer4]
    stem = FeatureMap(visual.conv3.out_channels, 4)
    widths = [group[-1].conv3.out_channels for group in groups]
    maps = [FeatureMap(d, 4 * 2**number) for number, d in enumerate(widths)]
    return {"layers": [visual.avgpool, *groups], "maps": [stem, *maps]}


def _evaluation_transform(model: Any) -> Any:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    settings = getattr(model.visual, "preprocess_cfg", {"size": model.visual.image_size})
    return image_transform_v2(PreprocessCfg(**settings), is_train=False)
