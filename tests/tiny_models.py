"""Small random models of every backbone family, for any test: built in memory or saved to a folder.

Each transformer is 3 layers of width 32 (DINOv3 and the others alike), each convolutional network a few
maps, with an image processor whose framing is
that of the real family, and a word tokenizer where the model has text. No network. Tests of timm
and open_clip are skipped only where those packages are not installed.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "patch_size": 8,
}
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
}
WORDS = ["<pad>", "<unk>", "<s>", "</s>", "a", "an", "the", "photo", "of", "cat", "dog", "animal"]
WORDS += ["red", "blue", "on", "grass", "and", "two"]
SPECIAL = {"vocab_size": len(WORDS), "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}


@dataclass
class TinyModel:
    """A model with its companions, and what its backbone should say of it."""

    model: nn.Module
    image_processor: Any
    tokenizer: Any
    patch_grid: tuple[int, int]
    n_prefix: int
    widths: tuple[int, ...] = (32, 32, 32)
    """Of every layer."""
    stride: int = 8
    """Pixels of a patch, or from one position of the last map to the next."""

    @property
    def has_text(self) -> bool:
        return self.tokenizer is not None

    def save(self, folder: Path) -> Path:
        """Write what save_pretrained writes: weights, configs, processor, tokenizer."""
        self.model.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder)
        return folder


def tiny(family: str) -> TinyModel:
    """The tiny model of a family (a key of TINY), the same weights each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = TINY[family]()
    made.model.eval()
    return made


def tiny_tokenizer() -> Any:
    """Words to numbers, with start and end tokens; saves and loads like any fast tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    special = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=16, **special)


def letter_tokenizer() -> Any:
    """SigLIP 2's own tokenizer class (transformers insists on it), a token for every letter."""
    from transformers import Siglip2Tokenizer

    letters = ["<pad>", "<eos>", "<bos>", "<unk>", *"▁abcdefghijklmnopqrstuvwxyz"]
    vocab = {letter: number for number, letter in enumerate(letters)}
    return Siglip2Tokenizer(vocab=vocab, merges=[], mask_token="<unk>", model_max_length=16)


def tiny_clip() -> TinyModel:
    """CLIPModel: 32 px, 4 x 4 patches, CLS, text."""
    from transformers import CLIPConfig, CLIPModel

    config = CLIPConfig(
        text_config={**TEXT, **SPECIAL, "projection_dim": 16},
        vision_config={**VISION, "image_size": 32, "projection_dim": 16},
        projection_dim=16,
    )
    return TinyModel(CLIPModel(config), _clip_processor(), tiny_tokenizer(), (4, 4), 1)


def tiny_clip_vision() -> TinyModel:
    """CLIPVisionModel: the tower alone."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(**VISION, image_size=32)
    return TinyModel(CLIPVisionModel(config), _clip_processor(), None, (4, 4), 1)


def tiny_clip_projection() -> TinyModel:
    """CLIPVisionModelWithProjection."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(**VISION, image_size=32, projection_dim=16)
    return TinyModel(CLIPVisionModelWithProjection(config), _clip_processor(), None, (4, 4), 1)


def tiny_siglip() -> TinyModel:
    """SiglipModel: 36 px with 8 px patches, so that the last 4 px belong to no patch."""
    from transformers import SiglipConfig, SiglipModel
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    config = SiglipConfig(
        text_config={**TEXT, **SPECIAL, "projection_size": 32},
        vision_config={**VISION, "image_size": 36},
    )
    processor = SiglipImageProcessorPil(size={"height": 36, "width": 36})
    return TinyModel(SiglipModel(config), processor, tiny_tokenizer(), (4, 4), 0)


def tiny_siglip2() -> TinyModel:
    """Siglip2Model (NaFlex): at most 27 patches, of which 5 x 5 are used."""
    from transformers import Siglip2Config, Siglip2Model
    from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

    config = Siglip2Config(
        text_config={**TEXT, **SPECIAL, "vocab_size": 31, "projection_size": 32},
        vision_config={**VISION, "num_patches": 16},
    )
    processor = Siglip2ImageProcessorPil(patch_size=8, max_num_patches=27)
    return TinyModel(Siglip2Model(config), processor, letter_tokenizer(), (5, 5), 0)


def tiny_dinov2() -> TinyModel:
    """Dinov2Model trained at 48 px, used with a resize to 40 and a crop of 32."""
    from transformers import Dinov2Config, Dinov2Model

    model = Dinov2Model(Dinov2Config(**_dino_sizes(), image_size=48))
    return TinyModel(model, _bit_processor(), None, (4, 4), 1)


def tiny_dinov2_registers() -> TinyModel:
    """Dinov2WithRegistersModel: CLS and 4 registers."""
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    config = Dinov2WithRegistersConfig(**_dino_sizes(), image_size=32, num_register_tokens=4)
    return TinyModel(Dinov2WithRegistersModel(config), _bit_processor(), None, (4, 4), 5)


def tiny_dinov3() -> TinyModel:
    """DINOv3ViTModel: CLS and 4 registers, rotary positions."""
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    config = DINOv3ViTConfig(**VISION, image_size=32, num_register_tokens=4)
    return TinyModel(DINOv3ViTModel(config), _vit_processor(32), None, (4, 4), 5)


def tiny_vit() -> TinyModel:
    """ViTModel trained at 32 px."""
    from transformers import ViTConfig, ViTModel

    model = ViTModel(ViTConfig(**VISION, image_size=32), add_pooling_layer=False)
    return TinyModel(model, _vit_processor(32), None, (4, 4), 1)


def tiny_vit_larger() -> TinyModel:
    """ViTModel trained at 32 px and used at 48: positions are interpolated."""
    return TinyModel(tiny_vit().model, _vit_processor(48), None, (6, 6), 1)


def tiny_timm() -> TinyModel:
    """timm VisionTransformer: CLS and 2 registers."""
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_tiny_patch16_224", **TIMM_ARGS)
    return TinyModel(model, None, None, (4, 4), 3)


def tiny_open_clip() -> TinyModel:
    """open_clip CLIP with its own vision transformer and byte-pair tokenizer."""
    open_clip = pytest.importorskip("open_clip")
    model = open_clip.CLIP(**OPEN_CLIP_CONFIG)
    return TinyModel(model, None, open_clip.SimpleTokenizer(context_length=16), (4, 4), 1)


def tiny_timm_map(architecture: str, *widths: int) -> TinyModel:
    """One of timm's convolutional test models at 64 px, its last map 2 x 2."""
    timm = pytest.importorskip("timm")
    cfg = {"input_size": (3, 64, 64), "crop_pct": 1.0}
    model = timm.create_model(architecture, num_classes=7, pretrained_cfg_overlay=cfg)
    return TinyModel(model, None, None, (2, 2), 0, widths, 32)


def tiny_open_clip_map(vision: dict[str, Any], *widths: int) -> TinyModel:
    """open_clip CLIP with a convolutional tower at 64 px, its last map 2 x 2."""
    open_clip = pytest.importorskip("open_clip")
    model = open_clip.CLIP(**{**OPEN_CLIP_CONFIG, "vision_cfg": {**vision, "image_size": 64}})
    for module in model.visual.modules():  # they start at zero, and the blocks would do nothing
        if type(module).__name__ == "Bottleneck":
            nn.init.ones_(module.bn3.weight)
    return TinyModel(
        model, None, open_clip.SimpleTokenizer(context_length=16), (2, 2), 0, widths, 32
    )


RESNET_TOWER = {"layers": [1, 1, 1, 1], "width": 8, "head_width": 16, "patch_size": None}
CONVNEXT_TOWER = {"timm_model_name": "test_convnext", "timm_pool": "avg", "timm_proj": "linear"}

TINY: dict[str, Callable[[], TinyModel]] = {
    "clip": tiny_clip,
    "clip_vision": tiny_clip_vision,
    "clip_projection": tiny_clip_projection,
    "siglip": tiny_siglip,
    "siglip2": tiny_siglip2,
    "dinov2": tiny_dinov2,
    "dinov2_registers": tiny_dinov2_registers,
    "dinov3": tiny_dinov3,
    "vit": tiny_vit,
    "vit_larger": tiny_vit_larger,
    "timm": tiny_timm,
    "open_clip": tiny_open_clip,
    "timm_efficientnet": lambda: tiny_timm_map("test_efficientnet", 16, 24, 32, 48, 64, 256),
    "timm_resnet": lambda: tiny_timm_map("test_resnet", 32, 32, 48, 192, 96),
    "timm_convnext": lambda: tiny_timm_map("test_convnext", 24, 32, 48, 64),
    "open_clip_resnet": lambda: tiny_open_clip_map(RESNET_TOWER, 8, 32, 64, 128, 256),
    "open_clip_convnext": lambda: tiny_open_clip_map(CONVNEXT_TOWER, 24, 32, 48, 64),
}
TRANSFORMERS = [name for name in TINY if not name.startswith(("timm", "open_clip"))]

TIMM_ARGS = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 32,
    "depth": 3,
    "num_heads": 2,
    "reg_tokens": 2,
    "num_classes": 0,
}
OPEN_CLIP_CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 3, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {
        "context_length": 16,
        "vocab_size": 49408,
        "width": 32,
        "heads": 2,
        "layers": 2,
    },
}


def save_timm(model: nn.Module, folder: Path) -> Path:
    """A folder as timm writes it for the Hub."""
    folder.mkdir(parents=True, exist_ok=True)
    half = [0.5, 0.5, 0.5]
    cfg = {"input_size": [3, 32, 32], "crop_pct": 0.9, "interpolation": "bicubic"}
    cfg |= {"mean": half, "std": half}
    described = {"architecture": "vit_tiny_patch16_224", "model_args": TIMM_ARGS}
    described |= {"num_classes": 0, "pretrained_cfg": {**cfg, "num_classes": 0}}
    (folder / "config.json").write_text(json.dumps(described))
    save_file(model.state_dict(), folder / "model.safetensors")
    return folder


def save_open_clip(model: nn.Module, folder: Path) -> Path:
    """A folder as open_clip writes it for the Hub."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": OPEN_CLIP_CONFIG, "preprocess_cfg": {"interpolation": "bicubic"}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def _dino_sizes() -> dict[str, int]:
    return {name: size for name, size in VISION.items() if name != "intermediate_size"}


def _clip_processor() -> Any:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    return CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})


def _bit_processor() -> Any:
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

    return BitImageProcessorPil(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32})


def _vit_processor(size: int) -> Any:
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    return ViTImageProcessorPil(size={"height": size, "width": size})
