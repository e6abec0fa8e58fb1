"""transformers CLIP: CLIPModel, CLIPVisionModel and CLIPVisionModelWithProjection."""

from typing import Any

from torch import Tensor

from sae.backbones.transformers_vit import TransformersBackbone, pooled


class ClipBackbone(TransformersBackbone):
    """One CLS token, then patches. The features of a tower alone are its pooled CLS."""

    family = "clip"
    model_types = ("clip", "clip_vision_model")
    own_architectures = ("CLIPVisionModelWithProjection",)

    @classmethod
    def processor_class(cls) -> Any:
        """CLIP's processor, of the Pillow backend."""
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        return CLIPImageProcessorPil

    @classmethod
    def default_processor(cls, config: Any) -> Any:
        """Shortest edge to the image size, then a centre crop."""
        size = config.image_size
        return cls.processor_class()(
            size={"shortest_edge": size}, crop_size={"height": size, "width": size}
        )

    def _text_features(self, texts: list[str]) -> Tensor:
        tokens = self._tokenizer(
            texts,
            padding=True,
            truncation=True,
            max_length=self._model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        ).to(self.device)
        return pooled(
            self._model.get_text_features(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
            )
        )
