"""The CLIP in parts gives the whole CLIP's numbers, and prompts go where the papers put them."""

import pytest
import torch
import torch.nn.functional as F

from sae.backbones import Backbone
from sae.backbones.prompting import ClipParts, VisionPrompts
from sae.backbones.text import openai_templates
from tests.adaptation.small import pictures, small_parts
from tests.tiny_models import tiny


@pytest.fixture(scope="module")
def parts():
    return small_parts()


def test_without_prompts_the_parts_are_the_model_bit_for_bit(parts):
    inputs = parts.backbone.preprocess(pictures(3))
    with torch.no_grad():
        whole = parts.backbone.image_features(inputs)
        features = parts.image_features(inputs)
        assert torch.equal(F.normalize(features, dim=-1), whole)
        for layer in (-3, -2, -1):
            hidden = parts.activations(inputs, layer, None)
            assert torch.equal(hidden, parts.backbone.activations(inputs, layer))
            assert torch.equal(parts.finish(hidden, layer, None), features)
            short = parts.finish(hidden, layer, None, cls_only=True)
            torch.testing.assert_close(short, features, rtol=1e-5, atol=1e-5)


def test_text_features_are_those_of_the_model(parts):
    texts = ["a photo of the cat", "red dog", "two"]
    ids, ends = parts.text_ids([parts.words(text) for text in texts])
    with torch.no_grad():
        ours = F.normalize(parts.text_features(parts.embed(ids), ends), dim=-1)
    torch.testing.assert_close(ours, parts.backbone.text_features(texts), rtol=1e-5, atol=1e-6)


def test_deep_prompts_replace_what_the_block_before_made_of_them(parts):
    inputs = parts.backbone.preprocess(pictures(2))
    torch.manual_seed(0)
    first, second, other = torch.randn(3, 2, 32)
    with torch.no_grad():
        prompts = VisionPrompts(first, (second,))
        after = parts.activations(inputs, 0, prompts)
        assert after.shape == (2, 1 + 16 + 2, 32)
        replaced = torch.cat([after[:, :-2], second.expand(2, -1, -1)], dim=1)
        block = parts._vision.encoder.layers[1]
        expected = block(replaced, None)
        assert torch.equal(parts.activations(inputs, 1, prompts), expected)
        assert torch.equal(parts.finish(after, 0, prompts), parts.image_features(inputs, prompts))
        changed = parts.image_features(inputs, VisionPrompts(first, (other,)))
        assert not torch.allclose(changed, parts.image_features(inputs, prompts))


def test_the_readout_is_exact_at_its_point(parts):
    torch.manual_seed(0)
    cls, direction = torch.randn(3, 32), torch.randn(3, 16)
    with torch.no_grad():
        gradient, constant = parts.readout(cls, direction)
        score = (F.normalize(parts.project(cls), dim=-1) * direction).sum(-1)
    torch.testing.assert_close((cls * gradient).sum(-1) + constant, score, rtol=1e-5, atol=1e-5)


def test_only_a_clip_with_text_can_be_prompted():
    made = tiny("dinov2")
    backbone = Backbone.from_model(made.model, made.image_processor)
    with pytest.raises(ValueError, match="no text tower to prompt"):
        ClipParts(backbone)


def test_unknown_words_and_long_prompts_are_refused(parts):
    with pytest.raises(ValueError, match="does not know"):
        parts.words("a zebra")
    with pytest.raises(ValueError, match="at most 16"):
        parts.text_ids([parts.words("cat " * 20)])


def test_the_eighty_templates_are_there():
    templates = openai_templates()
    assert len(templates) == len(set(templates)) == 80
    assert all(template.count("{}") == 1 for template in templates)
