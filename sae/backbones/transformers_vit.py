"""What the transformers families share: loading, image processors, forwards.

Knows transformers' conventions (config, processor, model outputs); what differs between CLIP,
SigLIP, DINOv2 and the others is in their own files.
"""

from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from sae.backbones.base import Backbone, find_layers
from sae.backbones.framing import framing_of
from sae.errors import BackboneError


class TransformersBackbone(Backbone):
    """A transformers vision model, alone or as the tower of a model with text."""

    has_cls_token: ClassVar[bool] = True
    own_architectures: ClassVar[tuple[str, ...]] = ()
    """Architectures in config.json that AutoModel would cut down."""
    model_options: ClassVar[dict[str, Any]] = {}
    """Further arguments of the model's from_pretrained."""
    fixed_positions: ClassVar[bool] = True
    """Learned positions of one grid; another image size needs interpolate_pos_encoding."""

    def __init__(
        self,
        model: nn.Module,
        image_processor: Any = None,
        tokenizer: Any = None,
        *,
        id: str = "local",
        revision: str | None = None,
    ) -> None:
        vision: Any = getattr(model, "vision_model", model)
        config = vision.config
        self._processor = image_processor or self.default_processor(config)
        self._model: Any = model
        self._tokenizer = tokenizer
        patch = config.patch_size
        super().__init__(
            vision,
            find_layers(vision, config.num_hidden_layers, lambda: type(model).__name__),
            self.framing(),
            id=id,
            revision=revision,
            d_model=config.hidden_size,
            patch_size=(patch, patch) if isinstance(patch, int) else tuple(patch),
            n_prefix=int(self.has_cls_token) + getattr(config, "num_register_tokens", 0),
            has_cls=self.has_cls_token,
        )
        self.has_text = hasattr(model, "get_text_features") and tokenizer is not None
        scale = getattr(model, "logit_scale", None)
        self.logit_scale = None if scale is None else scale.detach().float().exp().item()

    @classmethod
    def load(
        cls,
        source: str,
        config: dict[str, Any],
        *,
        id: str,
        revision: str | None,
        device: str | torch.device,
        dtype: torch.dtype,
        token: str | None = None,
        local_files_only: bool = True,
    ) -> Self:
        """Read model, image processor and tokenizer; missing tensors are an error."""
        access = {"revision": revision, "token": token, "local_files_only": local_files_only}
        model, report = cls.model_class(config).from_pretrained(
            source,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            **access,
            **cls.model_options,
        )
        _require_complete(report, id)
        processor = cls.processor_class().from_pretrained(source, **access)
        tokenizer = None
        if hasattr(model, "get_text_features"):
            from transformers import AutoTokenizer

            tokenizer = AutoTokenizer.from_pretrained(source, **access)
        commit = getattr(model.config, "_commit_hash", None) or revision
        model = model.to(device).eval().requires_grad_(False)
        return cls(model, processor, tokenizer, id=id, revision=commit)

    @classmethod
    def model_class(cls, config: dict[str, Any]) -> Any:
        """The class that reads a checkpoint with this config.json."""
        import transformers

        for name in config.get("architectures") or ():
            if name in cls.own_architectures:
                return getattr(transformers, name)
        return transformers.AutoModel

    @classmethod
    def processor_class(cls) -> Any:
        """The image processor's class, of the Pillow backend: one resampling everywhere."""
        from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

        return ViTImageProcessorPil

    @classmethod
    def default_processor(cls, config: Any) -> Any:
        """The family's usual processor for the config's image size."""
        height, width = _pair(config.image_size)
        return cls.processor_class()(size={"height": height, "width": width})

    def framing(self) -> Any:
        """The resize and crop of the image processor."""
        return framing_of(self._processor)

    def _pixels(self, framed: list[Image.Image]) -> dict[str, Tensor]:
        given = {"do_resize": False, "do_center_crop": False, "return_tensors": "pt"}
        return dict(self._processor(images=framed, **given))

    def _forward(self, inputs: dict[str, Tensor]) -> Any:
        return self._vision(**inputs, **self._interpolation())

    def _image_features(self, inputs: dict[str, Tensor]) -> Tensor:
        if hasattr(self._model, "get_image_features"):
            return pooled(self._model.get_image_features(**inputs, **self._interpolation()))
        output = self._model(**inputs, **self._interpolation())
        embeds = getattr(output, "image_embeds", None)
        return output.pooler_output if embeds is None else embeds

    def _interpolation(self) -> dict[str, bool]:
        if not self.fixed_positions or _pair(self._vision.config.image_size) == self._framing.crop:
            return {}
        return {"interpolate_pos_encoding": True}


class VitBackbone(TransformersBackbone):
    """The classic supervised transformer: CLS, then patches.

    Its features are the normed CLS (checkpoints often lack a pooler).
    """

    family = "vit"
    model_types = ("vit",)
    model_options = {"add_pooling_layer": False}

    def _image_features(self, inputs: dict[str, Tensor]) -> Tensor:
        return self._forward(inputs).last_hidden_state[:, 0]


def pooled(output: Any) -> Float[Tensor, "rows d_proj"]:
    """Features from get_image_features / get_text_features (a tensor, or an output in v5)."""
    return output if isinstance(output, torch.Tensor) else output.pooler_output


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def _require_complete(report: Any, id: str) -> None:
    missing = sorted(report["missing_keys"])
    if missing:
        raise BackboneError(
            f"backbone {id}: its weights lack {len(missing)} tensors, such as {missing[0]}; "
            "expected a complete checkpoint, so download it again or check its architecture"
        )
