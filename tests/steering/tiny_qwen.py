"""Small random models of the Qwen-VL classes: towers that pack all patches into one list."""

from typing import Any

from tests.steering.tiny_words import IDS, TEXT, TinyVlm, tokenizer


def _qwen(model: Any, config: Any, processor: Any, vision: dict[str, Any]) -> TinyVlm:
    from transformers import Qwen2VLVideoProcessor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    made = config(
        vision_config={
            "depth": 3,
            "num_heads": 2,
            "patch_size": 8,
            "spatial_merge_size": 2,
            **vision,
        },
        text_config={**TEXT, "rope_parameters": rope, "rope_scaling": rope},
        image_token_id=IDS["<|image_pad|>"],
        video_token_id=IDS["<|video_pad|>"],
        vision_start_token_id=IDS["<|vision_start|>"],
        vision_end_token_id=IDS["<|vision_end|>"],
    )
    size = {"shortest_edge": 16 * 16, "longest_edge": 64 * 64}
    images = Qwen2VLImageProcessorPil(patch_size=8, merge_size=2, size=size)
    words = tokenizer("<|image_pad|>", "<|video_pad|>")
    made_processor = processor(images, words, Qwen2VLVideoProcessor(patch_size=8, merge_size=2))
    prompt = "user : <|vision_start|> <|image_pad|> <|vision_end|> what is this assistant :"
    return TinyVlm(model(made), made_processor, prompt, 2, 0)


def qwen2_vl() -> TinyVlm:
    """Qwen2-VL: packed patches in blocks of four, any resolution."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLProcessor

    vision = {"embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2}
    return _qwen(Qwen2VLForConditionalGeneration, Qwen2VLConfig, Qwen2VLProcessor, vision)


def qwen2_5_vl() -> TinyVlm:
    """Qwen2.5-VL: packed patches sorted into windows."""
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
    )

    vision = {"hidden_size": 32, "out_hidden_size": 32, "intermediate_size": 64}
    vision |= {"window_size": 32, "fullatt_block_indexes": [2]}
    return _qwen(Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLConfig, Qwen2_5_VLProcessor, vision)


def qwen3_vl() -> TinyVlm:
    """Qwen3-VL: packed patches; the language model reads earlier layers besides the last."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLProcessor

    vision = {"hidden_size": 32, "out_hidden_size": 32, "intermediate_size": 64}
    vision |= {"deepstack_visual_indexes": [0, 1], "num_position_embeddings": 16}
    return _qwen(Qwen3VLForConditionalGeneration, Qwen3VLConfig, Qwen3VLProcessor, vision)
