"""Small random models that answer about pictures, of the real classes, with their real processors.

Each has a vision tower of 3 layers and width 32 and a language model of 2 layers; no network.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

from tests.steering.tiny_qwen import qwen2_5_vl, qwen2_vl, qwen3_vl
from tests.steering.tiny_words import IDS, TEXT, VISION, TinyVlm, tokenizer

PINPOINTS = [[32, 64], [64, 32], [64, 64]]


def llava() -> TinyVlm:
    """LLaVA 1.5: CLIP tower, reads layer -2."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaProcessor
    from transformers import LlavaForConditionalGeneration as Model
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**VISION),
        text_config=LlamaConfig(**TEXT),
        image_token_id=IDS["<image>"],
        vision_feature_layer=-2,
        image_seq_length=16,
    )
    images = CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    processor = LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer(),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
    )
    return TinyVlm(Model(config), processor, "user : <image> what is this assistant :", 1, 1, True)


def llava_next() -> TinyVlm:
    """LLaVA-NeXT: CLIP tower over an overview and tiles, reads layer -2."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaNextConfig, LlavaNextProcessor
    from transformers import LlavaNextForConditionalGeneration as Model
    from transformers.models.llava_next.image_processing_pil_llava_next import (
        LlavaNextImageProcessorPil,
    )

    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(**VISION),
        text_config=LlamaConfig(**TEXT),
        image_token_id=IDS["<image>"],
        image_grid_pinpoints=PINPOINTS,
        image_seq_length=16,
    )
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": 32},
        crop_size={"height": 32, "width": 32},
        image_grid_pinpoints=PINPOINTS,
    )
    processor = LlavaNextProcessor(
        image_processor=images,
        tokenizer=tokenizer(),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
    )
    return TinyVlm(Model(config), processor, "user : <image> what is this assistant :", 1, 5, True)


def llava_onevision() -> TinyVlm:
    """LLaVA-OneVision: SigLIP tower over an overview and tiles, reads the last layer."""
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionProcessor,
        LlavaOnevisionVideoProcessor,
        Qwen2Config,
        SiglipVisionConfig,
    )
    from transformers import LlavaOnevisionForConditionalGeneration as Model
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
        LlavaOnevisionImageProcessorPil,
    )

    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**VISION, vision_use_head=False),
        text_config=Qwen2Config(**TEXT),
        image_token_id=IDS["<image>"],
        video_token_id=IDS["<video>"],
        image_grid_pinpoints=PINPOINTS,
        vision_feature_layer=-1,
        vision_aspect_ratio="anyres_max_9",
    )
    images = LlavaOnevisionImageProcessorPil(
        size={"height": 32, "width": 32}, image_grid_pinpoints=PINPOINTS
    )
    processor = LlavaOnevisionProcessor(
        image_processor=images,
        tokenizer=tokenizer(),
        video_processor=LlavaOnevisionVideoProcessor(size={"height": 32, "width": 32}),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        image_token="<image>",
        video_token="<video>",
    )
    return TinyVlm(Model(config), processor, "user : <image> what is this assistant :", 2, 5)


def paligemma() -> TinyVlm:
    """PaliGemma: SigLIP tower, one tile, reads the last layer after its norm."""
    from transformers import GemmaConfig, PaliGemmaConfig, PaliGemmaProcessor, SiglipVisionConfig
    from transformers import PaliGemmaForConditionalGeneration as Model
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    config = PaliGemmaConfig(
        vision_config=SiglipVisionConfig(**VISION, projection_dim=32, vision_use_head=False),
        text_config=GemmaConfig(**TEXT),
        image_token_index=IDS["<image>"],
        projection_dim=32,
        hidden_size=32,
    )
    images = SiglipImageProcessorPil(size={"height": 32, "width": 32})
    images.image_seq_length = 16
    processor = PaliGemmaProcessor(image_processor=images, tokenizer=tokenizer())
    return TinyVlm(Model(config), processor, "<image> describe the image", 2, 1)


def idefics3() -> TinyVlm:
    """Idefics3: its own tower over tiles and an overview, reads the last layer after its norm."""
    from transformers import Idefics3Config, Idefics3Processor
    from transformers import Idefics3ForConditionalGeneration as Model
    from transformers.models.idefics3.image_processing_pil_idefics3 import (
        Idefics3ImageProcessorPil,
    )

    images = Idefics3ImageProcessorPil(
        size={"longest_edge": 64}, max_image_size={"longest_edge": 32}
    )
    processor = Idefics3Processor(images, tokenizer(), image_seq_len=4)
    return TinyVlm(
        Model(_idefics_config(Idefics3Config, "idefics3_vision")),
        processor,
        "user : <image> what is this assistant :",
        2,
        5,
    )


def smolvlm() -> TinyVlm:
    """SmolVLM: as Idefics3."""
    pytest.importorskip("num2words", reason="SmolVLM's processor needs it")
    from transformers import SmolVLMConfig, SmolVLMProcessor, SmolVLMVideoProcessor
    from transformers import SmolVLMForConditionalGeneration as Model
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    images = SmolVLMImageProcessorPil(
        size={"longest_edge": 64}, max_image_size={"longest_edge": 32}
    )
    processor = SmolVLMProcessor(images, tokenizer(), SmolVLMVideoProcessor(), image_seq_len=4)
    return TinyVlm(
        Model(_idefics_config(SmolVLMConfig, "smolvlm_vision")),
        processor,
        "user : <image> what is this assistant :",
        2,
        5,
    )


def _idefics_config(kind: Any, vision: str) -> Any:
    return kind(
        vision_config={**VISION, "model_type": vision},
        text_config={**TEXT, "model_type": "llama"},
        image_token_id=IDS["<image>"],
        scale_factor=2,
        pad_token_id=0,
    )


VLMS: dict[str, Callable[[], TinyVlm]] = {
    "llava": llava,
    "llava_next": llava_next,
    "llava_onevision": llava_onevision,
    "paligemma": paligemma,
    "idefics3": idefics3,
    "smolvlm": smolvlm,
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
}


@cache
def tiny_vlm(name: str) -> TinyVlm:
    """The tiny model of a name in VLMS, built once; the same weights each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = VLMS[name]()
        for parameter in made.model.parameters():
            if parameter.dim() > 1:  # the usual 0.02 leaves so small a model almost silent
                nn.init.normal_(parameter, std=0.2)
    made.model.generation_config.eos_token_id = 3
    made.model.generation_config.pad_token_id = 0
    made.model.eval().requires_grad_(False)
    return made
