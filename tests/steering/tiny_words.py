"""Words, sizes and the form of the small random models that answer about pictures."""

from dataclasses import dataclass
from typing import Any

from torch import nn

WORDS = "<pad> <unk> <s> </s> <image> <fake_token_around_image> <global-img> <|image_pad|> <|video_pad|>"
WORDS += " <|vision_start|> <|vision_end|> <end_of_utterance> <video> user assistant : what is this"
WORDS += " describe the image a cat dog bird on grass red blue and two"
WORDS += "".join(f" <row_{r}_col_{c}>" for r in range(1, 5) for c in range(1, 5))
VOCABULARY = WORDS.split() + [f"w{n}" for n in range(40)]
SPECIAL = VOCABULARY[:13] + [word for word in VOCABULARY if word.startswith("<row")]
IDS = {word: number for number, word in enumerate(VOCABULARY)}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "patch_size": 8,
    "image_size": 32,
}
TEXT = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
}


@dataclass
class TinyVlm:
    """A model, its processor, a prompt with the image slot, and what the tower should be."""

    model: nn.Module
    processor: Any
    prompt: str
    layer: int
    """The last layer that the language model reads."""
    rows: int
    """Rows of the tower (tiles) for a picture of 96 × 64 pixels; 0 where tokens are packed."""
    has_cls: bool = False


def tokenizer(image: str = "<image>", video: str = "<video>") -> Any:
    """One token a word; special tokens are found wherever they stand."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel(IDS, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=SPECIAL[4:],
        extra_special_tokens={
            "image_token": image,
            "video_token": video,
            "fake_image_token": "<fake_token_around_image>",
            "global_image_token": "<global-img>",
            "end_of_utterance_token": "<end_of_utterance>",
        },
    )
