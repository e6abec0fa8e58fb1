"""transformers SigLIP (with those SigLIP 2 checkpoints of one fixed resolution), and SigLIP 2 NaFlex.

NaFlex takes a list of patches, of a grid of another shape for every picture. One grid for all keeps
batches, maps and statistics comparable, so pictures are squashed to the largest square grid, as
fixed SigLIP does.
"""

import math
from typing import Any

from PIL import Image
from torch import Tensor

from sae.backbones.framing import Framing
from sae.backbones.transformers_vit import TransformersBackbone, pooled


class SiglipBackbone(TransformersBackbone):
    """Patches only, no CLS; pictures are squashed to a square; a head pools by attention."""

    family = "siglip"
    model_types = ("siglip", "siglip_vision_model")
    has_cls_token = False

    @classmethod
    def processor_class(cls) -> Any:
        """SigLIP's processor, of the Pillow backend."""
        from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

        return SiglipImageProcessorPil

    def _text_features(self, texts: list[str]) -> Tensor:
        # SigLIP was trained with texts padded on the right to full length; it reads the last place.
        tokens = self._tokenizer(
            texts,
            padding="max_length",
            padding_side="right",
            truncation=True,
            max_length=self._model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        ).to(self.device)
        return pooled(self._model.get_text_features(input_ids=tokens["input_ids"]))


class Siglip2Backbone(SiglipBackbone):
    """Patches only; inputs are pixel_values (B, patches, values), a mask and the grid's shape."""

    family = "siglip2"
    model_types = ("siglip2", "siglip2_vision_model")
    fixed_positions = False

    @classmethod
    def processor_class(cls) -> Any:
        """SigLIP 2's processor, of the Pillow backend."""
        from transformers.models.siglip2.image_processing_pil_siglip2 import (
            Siglip2ImageProcessorPil,
        )

        return Siglip2ImageProcessorPil

    @classmethod
    def default_processor(cls, config: Any) -> Any:
        """As many patches as the model's position table was trained with."""
        return cls.processor_class()(
            patch_size=config.patch_size, max_num_patches=config.num_patches
        )

    def framing(self) -> Framing:
        """Squash to the largest square of patches that the processor allows."""
        edge = math.isqrt(self._processor.max_num_patches) * self._processor.patch_size
        return Framing("squash", (edge, edge), (edge, edge), int(self._processor.resample))

    def _pixels(self, framed: list[Image.Image]) -> dict[str, Tensor]:
        n_patches = self.patch_grid[0] * self.patch_grid[1]
        return dict(
            self._processor(
                images=framed, do_resize=False, max_num_patches=n_patches, return_tensors="pt"
            )
        )
