"""timm's image models: vision transformers with `blocks`, one patch embedding and prefix tokens, and
convolutional networks that say in `feature_info` which modules give their feature maps."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor, nn

from sae.backbones.base import Backbone
from sae.backbones.classes import ClassReadout, class_words
from sae.backbones.framing import split_pipeline
from sae.backbones.maps import FeatureMap


class TimmBackbone(Backbone):
    """Prefix tokens (CLS and registers, if any), then patches; or a feature map's positions. No text."""

    family = "timm"
    weight_files = ("model.safetensors",)
    """What timm prefers to any pickle that may lie beside it."""
    hub_files = ("config.json", "model.safetensors")

    def __init__(
        self,
        model: nn.Module,
        image_processor: Any = None,
        tokenizer: Any = None,
        *,
        id: str = "local",
        revision: str | None = None,
    ) -> None:
        if tokenizer is not None:
            raise ValueError(f"timm model {id} has no text tower, so it takes no tokenizer")
        parts = trunk_parts(model)
        framing, self._tail = split_pipeline(image_processor or _evaluation_transform(model))
        super().__init__(model, framing=framing, id=id, revision=revision, **parts)
        ends: Any = model
        classifier = ends.get_classifier() if ends.num_classes else None
        self.classes = class_words(model) if isinstance(classifier, nn.Linear) else ()

    @classmethod
    def reads(cls, folder: Path, config: Mapping[str, Any]) -> bool:  # noqa: ARG003
        """timm's config.json names an architecture, and no transformers type."""
        return "model_type" not in config and "architecture" in config

    @classmethod
    def wraps(cls, model: nn.Module) -> bool:
        """Any model of timm's modules."""
        return type(model).__module__.startswith("timm.")

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
        """Read a folder with timm's config.json and model.safetensors."""
        import timm

        model = timm.create_model(f"local-dir:{source}", pretrained=True)
        model = model.to(device=device, dtype=dtype).eval().requires_grad_(False)
        return cls(model, id=id, revision=revision)

    def _pixels(self, framed: list[Image.Image]) -> dict[str, Tensor]:
        return {"pixel_values": torch.stack([self._tail(image) for image in framed])}

    def _forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self._vision.forward_features(inputs["pixel_values"])

    def _image_features(self, inputs: dict[str, Tensor]) -> Tensor:
        return self._vision.forward_head(self._forward(inputs), pre_logits=True)

    def _class_logits(self, inputs: dict[str, Tensor]) -> Tensor:
        return self._vision.forward_head(self._forward(inputs))

    def class_readout(self, layer: int) -> ClassReadout | None:
        """Of the last map of a network that averages it over the picture and then is linear."""
        model = self._vision
        pool = getattr(model, "global_pool", None)
        averages = getattr(pool, "pool_type", None) == "avg"
        last = self.resolve_layer(layer) == self.n_layers - 1
        if not (self.classes and last and averages and type(model).__name__ in AVERAGING):
            return None
        linear = model.get_classifier()
        weights = linear.weight.detach()
        bias = weights.new_zeros(len(weights)) if linear.bias is None else linear.bias.detach()
        return ClassReadout(weights, bias)


def trunk_parts(trunk: Any) -> dict[str, Any]:
    """Layers of a timm model, and what they give, as Backbone takes them.

    ValueError for a model that is neither a plain vision transformer nor a convolutional network.
    """
    if hasattr(trunk, "blocks") and hasattr(trunk, "num_prefix_tokens"):
        return {
            "layers": list(trunk.blocks),
            "d_model": trunk.embed_dim,
            "patch_size": tuple(trunk.patch_embed.patch_size),
            "n_prefix": trunk.num_prefix_tokens,
            "has_cls": getattr(trunk, "cls_token", None) is not None,
        }
    if type(trunk).__name__ in CONVOLUTIONAL:
        return _convolutional_parts(trunk)
    raise ValueError(
        f"timm model {type(trunk).__name__} is neither a plain vision transformer (as "
        "VisionTransformer and Eva: `blocks`, `patch_embed`, `num_prefix_tokens`) nor one of the "
        f"convolutional networks {', '.join(sorted(CONVOLUTIONAL))}"
    )


CONVOLUTIONAL = frozenset({"EfficientNet", "MobileNetV3", "ResNet", "RegNet", "ConvNeXt", "VGG"})
"""Classes of timm whose feature maps come from the modules that `feature_info` names."""
AVERAGING = frozenset({"EfficientNet", "ResNet"})
"""Those that have nothing but an average and a linear classifier behind their last map."""


def _convolutional_parts(trunk: Any) -> dict[str, Any]:
    """The maps that `forward_intermediates` gives, and the last one, if that is another."""
    info = list(getattr(trunk.feature_info, "info", trunk.feature_info))
    layers = [trunk.get_submodule(one["module"]) for one in info]
    maps = [FeatureMap(one["num_chs"], one["reduction"]) for one in info]
    last = getattr(trunk, "bn2", None)  # EfficientNet's after conv_head, before pooling
    if type(trunk).__name__ == "EfficientNet" and last is not None:
        layers.append(last)
        maps.append(FeatureMap(trunk.num_features, maps[-1].stride))
    return {"layers": layers, "maps": maps}


def _evaluation_transform(model: Any) -> Any:
    from timm.data import create_transform, resolve_model_data_config

    config = resolve_model_data_config(model)
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    if size:
        config["input_size"] = (3, *size)
    return create_transform(**config, is_training=False)
