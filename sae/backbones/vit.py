"""transformers ViT: the classic supervised vision transformer."""

from torch import Tensor

from sae.backbones.transformers_vit import TransformersBackbone


class VitBackbone(TransformersBackbone):
    """CLS, then patches. Its features are the normed CLS (checkpoints often lack a pooler)."""

    family = "vit"
    model_types = ("vit",)
    model_options = {"add_pooling_layer": False}

    def _image_features(self, inputs: dict[str, Tensor]) -> Tensor:
        return self._forward(inputs).last_hidden_state[:, 0]
