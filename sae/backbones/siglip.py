"""transformers SigLIP, and those SigLIP 2 checkpoints that have one fixed resolution."""

from torch import Tensor

from sae.backbones.transformers_vit import TransformersBackbone, pooled


class SiglipBackbone(TransformersBackbone):
    """Patches only, no CLS; pictures are squashed to a square; a head pools by attention."""

    family = "siglip"
    model_types = ("siglip", "siglip_vision_model")
    has_cls_token = False

    @classmethod
    def processor_class(cls) -> type:
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
