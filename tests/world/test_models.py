"""The world's training: losses look at what they should, packing changes nothing, runs resume exactly."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sae.world.scenes import Scene, SceneObject, compose, kind_names
from training.world import clip, llava
from training.world.fit import FitConfig, fit, learning_rate
from training.world.words import PROMPT, make_tokenizer


def tiny_clip() -> torch.nn.Module:
    return clip.make_model(width=64, layers=2).eval()


def test_patch_targets_name_objects_and_background():
    scene = Scene("sand", (SceneObject("cat", x=24, y=24), SceneObject("dog", x=70, y=70)))
    grid = clip.patch_targets(compose(scene).masks, ["cat", "dog"], "sand").reshape(12, 12)
    assert grid[3, 3] == kind_names().index("cat")
    assert grid[8, 8] == kind_names().index("dog")
    assert grid[0, 11] == grid[11, 0] == len(kind_names()) + 1
    assert (grid == clip.IGNORE).any()


def test_the_training_forward_sees_what_clip_model_sees():
    """With all patches kept the training forward equals CLIPModel's own."""
    model = clip.DenselySupervised(tiny_clip())
    pixels = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features, hooked = model.image_features(pixels, None)
        out = model.clip.vision_model(pixel_values=pixels, output_hidden_states=True)
    assert torch.allclose(features, model.clip.visual_projection(out.pooler_output), atol=1e-5)
    assert torch.allclose(hooked, out.hidden_states[-2][:, 1:], atol=1e-5)


def test_dropping_patches_keeps_labels_aligned():
    model = clip.DenselySupervised(tiny_clip())
    pixels = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    keep = torch.arange(144)[None]
    with torch.no_grad():
        whole, kept = model.image_features(pixels, None), model.image_features(pixels, keep)
    assert torch.allclose(whole[1], kept[1], atol=1e-5)


def test_losses_are_finite_and_reach_every_parameter():
    model = clip.DenselySupervised(tiny_clip()).train()
    losses = model.losses(clip.Batches(8)(0), 72)
    losses["loss"].backward()
    assert all(torch.isfinite(value) for value in losses.values())
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == []


def test_batches_depend_on_the_step_alone():
    first, again, other = clip.Batches(4)(7), clip.Batches(4)(7), clip.Batches(4)(8)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["pixels"], other["pixels"])


def test_learning_rate_rises_then_falls(tmp_path):
    config = FitConfig(tmp_path, steps=100, lr=1.0, warm_up=10)
    rates = [learning_rate(step, config) for step in range(100)]
    assert np.argmax(rates) in (9, 10)
    assert rates[0] == pytest.approx(0.1)
    assert rates[-1] < 0.02


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.*")
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    def run(folder: str, stops: list[int]) -> dict[str, torch.Tensor]:
        for stop in stops:
            torch.manual_seed(0)
            model = torch.nn.Linear(3, 1)
            config = FitConfig(
                tmp_path / folder, steps=8, lr=0.1, warm_up=2, save_every=4, log_every=2, workers=0
            )

            def loss_of(batch, step, model=model, stop=stop):
                if step >= stop:
                    raise KeyboardInterrupt
                return {"loss": (model(batch["x"]).float() ** 2).mean()}

            try:
                fit(model, lambda step: {"x": torch.full((2, 3), float(step))}, loss_of, config)
            except KeyboardInterrupt:
                continue
        return load_file(tmp_path / folder / "checkpoint.safetensors")

    straight, resumed = run("straight", [8]), run("resumed", [5, 8])
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_packed_questions_equal_asking_one_by_one():
    """The block mask: packed logits equal those of the ordinary model asked one question."""
    model = llava.make_model(tiny_clip(), width=64, layers=2).eval()
    batch = llava.Batches(2)(0)
    with torch.no_grad():
        packed = llava.packed_logits(model, batch)
    tokenizer, processor = make_tokenizer(closes=False), llava.make_processor()
    pixels = batch["pixels"][:1]
    for segment in (0, 3):
        chosen = batch["segments"][0] == segment
        text = tokenizer(PROMPT.split("<image>")[0] + "<image>" * 144)["input_ids"]
        ids = torch.tensor([text + batch["tokens"][0][chosen].tolist()])
        with torch.no_grad():
            alone = model(
                input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids)
            ).logits
        assert torch.allclose(packed[0][chosen], alone[0, len(text) :], atol=1e-4)
    assert processor.image_token == "<image>"


def test_llava_export_is_an_ordinary_directory(tmp_path):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = llava.make_model(tiny_clip(), width=64, layers=2).eval()
    llava.export(model, tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path, use_fast=False)
    picture = compose(Scene("snow", (SceneObject("cat"),))).image
    inputs = processor(
        images=[picture], text=[PROMPT.format("describe the image")], return_tensors="pt"
    )
    assert (inputs["input_ids"] == again.config.image_token_id).sum() == 144
    out = again.float().generate(**inputs, max_new_tokens=3, do_sample=False)
    assert out.shape[0] == 1
