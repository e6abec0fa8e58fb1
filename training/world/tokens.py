"""The world's tokenizer and image processor. Knows its closed vocabulary; knows no model."""

from functools import lru_cache

from sae.world.scenes import SIZE
from training.world.captions import vocabulary

SPECIAL = ("<pad>", "<unk>", "<mask>", "<s>", "</s>", "<image>")
"""Special tokens, by id. The end token is not id 2: CLIPTextModel treats that id as a legacy case."""


@lru_cache(maxsize=2)
def make_tokenizer(*, closes: bool = True) -> object:
    """A lower-casing word-level tokenizer that writes `<s> … </s>`, or `<s> …` when not `closes`:
    a prompt that a language model goes on with stays open."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = {word: number for number, word in enumerate((*SPECIAL, *vocabulary()))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>" if closes else "<s> $A",
        special_tokens=[("<s>", words["<s>"]), ("</s>", words["</s>"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=32 if closes else 256,
        extra_special_tokens={"image_token": "<image>"},
    )


def make_image_processor() -> object:
    """Resize the shorter side to the scene size, crop the centre, scale to about [-2, 2]."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    return CLIPImageProcessorPil(
        size={"shortest_edge": SIZE},
        crop_size={"height": SIZE, "width": SIZE},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.25, 0.25, 0.25],
    )
