"""transformers DINOv3 (the vision transformers, not the ConvNeXts)."""

from typing import Any

from sae.backbones.transformers_vit import TransformersBackbone


class Dinov3Backbone(TransformersBackbone):
    """CLS, registers, then patches; rotary positions fit any size.

    transformers' own processor resizes floats with torchvision; here the same settings go through
    Pillow, which differs by at most rounding to 8 bits.
    """

    family = "dinov3"
    model_types = ("dinov3_vit",)
    fixed_positions = False

    @classmethod
    def default_processor(cls, config: Any) -> Any:
        """Squash to the image size, ImageNet's mean and deviation."""
        return cls.processor_class()(
            size={"height": config.image_size, "width": config.image_size},
            image_mean=[0.485, 0.456, 0.406],
            image_std=[0.229, 0.224, 0.225],
        )
