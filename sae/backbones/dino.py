"""transformers DINOv2, with and without registers, and DINOv3 (not its ConvNeXts)."""

from typing import Any

from sae.backbones.transformers_vit import TransformersBackbone


class Dinov2Backbone(TransformersBackbone):
    """CLS, registers if any, then patches. Positions are interpolated by the model itself."""

    family = "dinov2"
    model_types = ("dinov2", "dinov2_with_registers")
    fixed_positions = False

    @classmethod
    def processor_class(cls) -> Any:
        """DINOv2's processor (resize to 256, crop 224), of the Pillow backend."""
        from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

        return BitImageProcessorPil

    @classmethod
    def default_processor(cls, config: Any) -> Any:
        """Shortest edge to the image size, centre crop, ImageNet's mean and deviation."""
        size = config.image_size
        return cls.processor_class()(
            size={"shortest_edge": size},
            crop_size={"height": size, "width": size},
            image_mean=[0.485, 0.456, 0.406],
            image_std=[0.229, 0.224, 0.225],
        )


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
