"""Bad input and parts that do not belong together: one clear message each."""

import numpy as np
import pytest
import torch
from PIL import Image

from sae import Backbone, Steerer
from sae.errors import ArtifactError
from sae.steering import Edit, Scope, SteerRequest
from sae.steering.candidates import candidates
from sae.steering.doses import dose_response
from tests.steering.parts import PROMPT, random_sae
from tests.steering.tiny_vlms import tiny_vlm
from tests.steering.tiny_words import TEXT


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, _: s.generate(None, PROMPT), "expected a picture, got none"),
        (lambda s, _: s.generate("cat.png", PROMPT), "expected a picture, got str"),
        (lambda s, i: s.generate(i, ""), "prompt is empty"),
        (lambda s, i: s.generate(i, "x" * 10_000), "10,000 characters"),
        (lambda s, i: s.generate(i, "<image> and <image>"), "2 image slots"),
        (lambda s, i: s.generate(i, "cat " * 400, max_new_tokens=100), "has room for 512"),
        (lambda s, i: s.generate(i, PROMPT, {2048: 1.0}), "latents 0 to 2047"),
        (lambda s, i: s.generate(i, PROMPT, None), "got NoneType"),
        (lambda s, i: s.generate(i, PROMPT, [(624, 2.0)]), r"1 of \['tuple'\]"),
        (lambda s, i: s.generate(i, PROMPT, {1: float("nan")}), "finite number"),
        (lambda s, i: s.generate(i, PROMPT, {1: 1e9}), "finite number"),
        (lambda s, i: s.generate(i, PROMPT, {1: 1}, mode="paint"), "expected one of set, add"),
        (
            lambda s, i: s.generate(i, PROMPT, {1: 1}, scope=Scope("region", patches=(144,))),
            "outside the picture",
        ),
        (lambda s, i: s.generate(i, PROMPT, max_new_tokens=100_000), "max_new_tokens"),
        (lambda s, i: s.next_tokens(i, PROMPT, n=0), "n is the number"),
        (lambda s, i: s.next_tokens(i, PROMPT, words=["qwertz"]), "does not know 'qwertz'"),
        (lambda s, i: candidates(s, i, "", PROMPT), "expected a word"),
        (lambda s, i: dose_response(s, i, SteerRequest(PROMPT)), "needs 1 to 16 doses"),
        (lambda s, i: list(s.stream(i, SteerRequest(PROMPT, (Edit(9999),)))), "latent 9999"),
    ],
)
def test_bad_input_is_one_clear_message(steerer, picture, call, message):
    with pytest.raises(ValueError, match=message):
        call(steerer, picture)


def test_parts_that_do_not_belong_together_are_refused(steerer):
    tiny = tiny_vlm("llava")
    model, processor = tiny.model, tiny.processor
    with pytest.raises(ValueError, match="of width 128; the vision tower of local has width 32"):
        Steerer(model, processor, steerer.sae)
    with pytest.raises(ValueError, match="a siglip model"):
        Steerer(model, processor, random_sae(32, 1, family="siglip"))
    with pytest.raises(ValueError, match="comes after layer 1"):
        Steerer(model, processor, random_sae(32, 2))
    with pytest.raises(ValueError, match="layer 7 does not exist"):
        Steerer(model, processor, random_sae(32, 7))
    with pytest.raises(ValueError, match="no vision tower"):
        Steerer(model.model.language_model, processor, random_sae(32, 1))
    with pytest.raises(ValueError, match="writes no text"):
        Steerer(model.model, processor, random_sae(32, 1))
    with pytest.raises(ValueError, match="no image processor"):
        Steerer(model, processor.tokenizer, random_sae(32, 1))
    with pytest.raises(ValueError, match="2048 latents, the SAE has 48"):
        Steerer(model, processor, random_sae(32, 1), index=steerer.index)
    with pytest.raises(ValueError, match="its weights differ"):
        Steerer(model, processor, random_sae(32, 1), backbone=Backbone.from_pretrained("bundled"))
    plain = Steerer(model, processor, random_sae(32, 1))
    assert plain.units == "raw"
    with pytest.raises(ValueError, match="units='raw'"):
        plain.generate(Image.new("RGB", (40, 40)), tiny.prompt, {1: 1.0}, units="max")
    with pytest.raises(ValueError, match="no image slot"):
        plain.generate(Image.new("RGB", (40, 40)), "what is this")
    with pytest.raises(ValueError, match="give the SAE"):
        Steerer.from_pretrained("some/model")


def test_towers_without_cls_say_so():
    tiny = tiny_vlm("idefics3")
    steerer = Steerer(tiny.model, tiny.processor, random_sae(32, 2))
    edit = Edit(1, "set", 1.0, "raw", Scope("cls"))
    with pytest.raises(ValueError, match="no CLS token"):
        steerer.next_tokens(Image.new("RGB", (64, 64)), tiny.prompt, [edit])


def test_a_latent_that_never_fired_has_no_maximum_to_multiply(picture):
    tiny = tiny_vlm("llava")
    limits = np.ones(48)
    limits[3] = 0
    steerer = Steerer(tiny.model, tiny.processor, random_sae(32, 1), max_activation=limits)
    with pytest.raises(ValueError, match="latent 3 never fired"):
        steerer.next_tokens(picture, tiny.prompt, {3: 1.0})


def test_an_artifact_without_an_index_takes_raw_strengths(tmp_path, steerer):
    steerer.sae.save_pretrained(tmp_path)
    alone = Steerer.from_pretrained("bundled", tmp_path)
    assert alone.index is None
    assert alone.units == "raw"
    (tmp_path / "concepts").mkdir()
    (tmp_path / "concepts" / "index.json").write_text("{")
    with pytest.raises(ArtifactError):
        Steerer.from_pretrained("bundled", tmp_path)


def test_models_that_are_not_what_they_should_be(tmp_path):
    from safetensors.torch import load_file, save_file
    from transformers import LlamaConfig, LlamaForCausalLM

    text = LlamaConfig(**TEXT)
    LlamaForCausalLM(text).save_pretrained(tmp_path / "text")
    with pytest.raises(ValueError, match="answer in text about a picture"):
        Steerer.from_pretrained(tmp_path / "text", "bundled")
    tiny = tiny_vlm("llava")
    folder = tmp_path / "llava"
    tiny.model.save_pretrained(folder)
    tiny.processor.save_pretrained(folder)
    random_sae(32, 1).save_pretrained(tmp_path / "sae")
    steerer = Steerer.from_pretrained(folder, tmp_path / "sae")
    picture = Image.new("RGB", (40, 40), "gray")
    kept = Steerer(tiny.model, tiny.processor, random_sae(32, 1))
    torch.testing.assert_close(
        steerer.prepare(picture, tiny.prompt).logits, kept.prepare(picture, tiny.prompt).logits
    )
    weights = load_file(folder / "model.safetensors")
    lost = next(name for name in weights if "multi_modal_projector.linear_1" in name)
    save_file({n: v for n, v in weights.items() if n != lost}, folder / "model.safetensors")
    with pytest.raises(OSError, match="lack 1 tensors"):
        Steerer.from_pretrained(folder, tmp_path / "sae")
