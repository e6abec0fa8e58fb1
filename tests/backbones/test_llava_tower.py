"""A LLaVA's vision tower as a backbone: edits reach the language model."""

import pytest
import torch

from sae.backbones import Backbone
from tests.backbones.pictures import noise
from tests.tiny_models import VISION

IMAGE_TOKEN = 9


@pytest.fixture(scope="module")
def llava() -> torch.nn.Module:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig
    from transformers import LlavaForConditionalGeneration as Llava

    text = LlamaConfig(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**VISION, image_size=32),
        text_config=text,
        image_token_id=IMAGE_TOKEN,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=16,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Llava(config).eval()


def test_an_edit_of_the_layer_it_reads_changes_what_it_says(llava: torch.nn.Module) -> None:
    backbone = Backbone.from_model(llava.model.vision_tower)
    pixels = backbone.preprocess([noise(40, 30)])
    ids = torch.tensor([[1, 5, *[IMAGE_TOKEN] * 16, 6]])

    @torch.no_grad()
    def logits() -> torch.Tensor:
        return llava(input_ids=ids, **pixels).logits[0, -1]

    before = logits()  # transformers' own recorders are in place from here on
    with backbone.edit(-2, lambda hidden: hidden):
        assert torch.equal(logits(), before)
    with backbone.edit(-2, lambda hidden: hidden + 5 * torch.randn_like(hidden)):
        assert not torch.allclose(logits(), before, atol=1e-3)
    with backbone.edit(-1, lambda hidden: 0 * hidden):
        assert torch.equal(logits(), before), "LLaVA reads -2, so -1 cannot matter"
    assert torch.equal(logits(), before)
