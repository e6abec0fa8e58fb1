"""transformers SigLIP 2 in its NaFlex form, whose input is a list of patches.

NaFlex can take a grid of another shape for every picture. One grid for all keeps batches, maps and
statistics comparable, so pictures are squashed to the largest square grid, as fixed SigLIP does.
"""

import math
from typing import Any

from PIL import Image
from torch import Tensor

from sae.backbones.framing import Framing
from sae.backbones.siglip import SiglipBackbone


class Siglip2Backbone(SiglipBackbone):
    """Patches only; inputs are pixel_values (B, patches, values), a mask and the grid's shape."""

    family = "siglip2"
    model_types = ("siglip2", "siglip2_vision_model")
    fixed_positions = False

    @classmethod
    def processor_class(cls) -> type:
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
