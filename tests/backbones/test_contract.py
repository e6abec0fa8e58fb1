"""What every backbone family promises, on small random models."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from sae.backbones import Backbone
from tests.backbones.pictures import noise
from tests.tiny_models import TINY, TRANSFORMERS, TinyModel, tiny

TRANSFORMER = (32, 32, 32)
"""Widths of the layers of the tiny transformers."""


@pytest.fixture(scope="module", params=list(TINY))
def made(request: pytest.FixtureRequest) -> Iterator[tuple[TinyModel, Backbone]]:
    model = tiny(request.param)
    yield (
        model,
        Backbone.from_model(model.model, model.image_processor, model.tokenizer, id="tiny"),
    )
    assert count_hooks(model.model) == 0, "a test left a hook behind"


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    return [noise(64, 40, seed=1), noise(33, 91, seed=2), noise(50, 50, seed=3)]


def count_hooks(model: nn.Module) -> int:
    """Hooks on any module, less those which transformers installs for hidden_states."""
    hooks = [hook for module in model.modules() for hook in module._forward_hooks.values()]
    return len([hook for hook in hooks if "output_capturing_hook" not in hook.__qualname__])


def hidden_states(made: TinyModel, backbone: Backbone, inputs: dict[str, Tensor]) -> Any:
    """The library's own account of its layers: index 0 is the input of the first."""
    model = made.model
    with torch.no_grad():
        if made.widths != TRANSFORMER:
            return [None, *maps(model, backbone, inputs["pixel_values"])]
        if backbone.family == "open_clip":
            model = model.visual
            out = model.forward_intermediates(
                inputs["pixel_values"], output_fmt="NLC", output_extra_tokens=True
            )
            pairs = zip(out["image_intermediates_prefix"], out["image_intermediates"], strict=True)
            return [None, *(torch.cat([prefix, patches], 1) for prefix, patches in pairs)]
        if backbone.family == "timm":
            pairs = model.forward_intermediates(
                inputs["pixel_values"],
                output_fmt="NLC",
                return_prefix_tokens=True,
                intermediates_only=True,
            )
            return [None, *(torch.cat([prefix, patches], 1) for patches, prefix in pairs)]
        tower = getattr(model, "vision_model", model)
        extra = backbone._interpolation()
        return tower(**inputs, **extra, output_hidden_states=True).hidden_states


def maps(model: Any, backbone: Backbone, pixels: Tensor) -> list[Tensor]:
    """What the libraries give of a convolutional tower, and EfficientNet's last map, as tokens."""
    if backbone.family == "open_clip":
        found = model.visual.forward_intermediates(pixels)["image_intermediates"]
    else:
        found = model.forward_intermediates(pixels, intermediates_only=True)
        if len(found) < backbone.n_layers:
            found.append(model.forward_features(pixels))
    return [one.permute(0, 2, 3, 1).flatten(1, 2) for one in found]


def test_says_what_it_is(made: tuple[TinyModel, Backbone]) -> None:
    model, backbone = made
    assert backbone.n_layers == len(model.widths)
    assert [backbone.at(layer).d_model for layer in range(backbone.n_layers)] == [*model.widths]
    assert backbone.d_model == model.widths[-1]
    assert backbone.patch_grid == model.patch_grid
    assert backbone.n_prefix == model.n_prefix
    assert backbone.has_cls == (model.n_prefix > 0)
    assert backbone.has_text == model.has_text
    assert (backbone.device.type, backbone.dtype) == ("cpu", torch.float32)


def test_activations_are_the_hidden_states(
    made: tuple[TinyModel, Backbone], pictures: list[Image.Image]
) -> None:
    model, backbone = made
    inputs = backbone.preprocess(pictures)
    expected = hidden_states(model, backbone, inputs)
    n_layers = backbone.n_layers
    assert len(expected) == n_layers + 1
    for layer in range(n_layers):
        seen = backbone.at(layer)
        rows, cols = seen.patch_grid
        got = backbone.activations(pictures, layer)
        assert got.shape == (3, backbone.n_prefix + rows * cols, model.widths[layer])
        assert not got.requires_grad
        assert torch.equal(got, expected[layer + 1])
        assert torch.equal(seen.activations(inputs, layer - n_layers), expected[layer + 1])
        assert torch.equal(expected[layer - n_layers], expected[layer + 1])


def test_layers_out_of_range_are_named(made: tuple[TinyModel, Backbone]) -> None:
    _, backbone = made
    n = backbone.n_layers
    for layer in (n, -n - 1):
        with pytest.raises(ValueError, match=rf"layer {layer} does not exist.*has {n} layers"):
            backbone.resolve_layer(layer)


def test_later_layers_do_not_run(
    made: tuple[TinyModel, Backbone], pictures: list[Image.Image]
) -> None:
    _, backbone = made
    ran: list[int] = []
    handles = [
        layer.register_forward_pre_hook(lambda *_, number=number: ran.append(number))
        for number, layer in enumerate(backbone._layers)
    ]
    try:
        backbone.activations(pictures, 1)
    finally:
        for handle in handles:
            handle.remove()
    assert ran == [0, 1]


def test_an_empty_edit_changes_no_bit(
    made: tuple[TinyModel, Backbone], pictures: list[Image.Image]
) -> None:
    model, backbone = made
    inputs = backbone.preprocess(pictures)
    hidden_states(model, backbone, inputs)  # transformers has installed its recorders now
    features, last = backbone.image_features(inputs), backbone.activations(inputs, -1)
    for layer in range(backbone.n_layers):
        with backbone.edit(layer, lambda hidden: hidden):
            assert torch.equal(backbone.image_features(inputs), features)
            assert torch.equal(backbone.activations(inputs, -1), last)
    assert torch.equal(backbone.image_features(inputs), features)


def test_an_edit_changes_what_follows(
    made: tuple[TinyModel, Backbone], pictures: list[Image.Image]
) -> None:
    model, backbone = made
    inputs = backbone.preprocess(pictures)
    before = [backbone.activations(inputs, layer) for layer in range(backbone.n_layers)]
    features = backbone.image_features(inputs)
    recorded = hidden_states(model, backbone, inputs)
    with backbone.edit(1, lambda hidden: -2 * hidden):
        after = [backbone.activations(inputs, layer) for layer in range(backbone.n_layers)]
        changed = backbone.image_features(inputs)
        edited = hidden_states(model, backbone, inputs)
    assert torch.equal(after[0], before[0])
    assert torch.equal(after[1], -2 * before[1])
    assert not torch.allclose(after[2], before[2])
    assert not torch.allclose(changed, features, atol=1e-4)
    assert torch.equal(edited[2], -2 * recorded[2]), "the library's recorders miss the edit"
    assert torch.equal(backbone.image_features(inputs), features)


def test_hooks_are_gone_after_an_exception(
    made: tuple[TinyModel, Backbone], pictures: list[Image.Image]
) -> None:
    model, backbone = made

    def fail(hidden: Tensor) -> Tensor:
        raise RuntimeError(f"no {tuple(hidden.shape)}")

    with pytest.raises(RuntimeError, match="no"), backbone.edit(1, fail):
        backbone.activations(pictures, 2)
    with (
        pytest.raises(ValueError, match="expected a tensor of shape"),
        backbone.edit(0, lambda hidden: hidden[:, 1:]),
    ):
        backbone.image_features(pictures)
    assert count_hooks(model.model) == 0
    backbone.activations(pictures, 2)


def test_batches_equal_single_pictures(
    made: tuple[TinyModel, Backbone], pictures: list[Image.Image]
) -> None:
    _, backbone = made
    batch = backbone.activations(pictures, -2)
    alone = torch.cat([backbone.activations([picture], -2) for picture in pictures])
    assert torch.allclose(batch, alone, atol=1e-5)


def test_features_are_unit_vectors(
    made: tuple[TinyModel, Backbone], pictures: list[Image.Image]
) -> None:
    _, backbone = made
    features = backbone.image_features(pictures)
    assert torch.allclose(features.norm(dim=-1), torch.ones(3), atol=1e-5)
    if backbone.has_text:
        texts = backbone.text_features(["a photo of a cat", "the red dog"])
        assert texts.shape == (2, features.shape[1])
        assert torch.allclose(texts.norm(dim=-1), torch.ones(2), atol=1e-5)
        assert torch.allclose(texts[1:], backbone.text_features(["the red dog"]), atol=1e-5)
        assert not torch.allclose(texts[0], texts[1])
        assert backbone.logit_scale > 0
    else:
        with pytest.raises(ValueError, match="no text features"):
            backbone.text_features(["a cat"])


def test_bfloat16(made: tuple[TinyModel, Backbone], pictures: list[Image.Image]) -> None:
    model, backbone = made
    exact = backbone.activations(pictures, 1)
    model.model.to(torch.bfloat16)
    try:
        rough = backbone.activations(pictures, 1)
        assert rough.dtype == backbone.dtype == torch.bfloat16
        assert torch.allclose(rough.float(), exact, atol=0.1, rtol=0.1)
        with backbone.edit(1, lambda hidden: hidden.float() * 2):
            assert torch.equal(backbone.activations(pictures, 1), rough * 2)
            assert backbone.image_features(pictures).dtype == torch.float32
        if backbone.has_text:
            assert backbone.text_features(["a cat"]).dtype == torch.float32
    finally:
        model.model.to(torch.float32)


def test_threads_do_not_see_each_other(made: tuple[TinyModel, Backbone]) -> None:
    """Four threads, two of them editing, on one model: each gets what it gets alone."""
    _, backbone = made
    jobs = [(0, 1.0), (2, 1.0), (1, -1.0), (2, 3.0)]
    inputs = [backbone.preprocess([noise(40, 40, seed=10 + n)]) for n in range(len(jobs))]
    wrong: list[str] = []

    def work(number: int) -> Tensor:
        layer, factor = jobs[number]
        if factor == 1.0:
            return backbone.activations(inputs[number], layer)
        with backbone.edit(0, lambda hidden: factor * hidden):
            return backbone.activations(inputs[number], layer)

    expected = [work(number) for number in range(len(jobs))]

    def repeat(number: int) -> None:
        for _ in range(25):
            try:
                if not torch.equal(work(number), expected[number]):
                    wrong.append(f"job {number} differs")
            except Exception as error:
                wrong.append(repr(error))

    threads = [threading.Thread(target=repeat, args=(number,)) for number in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_pixels_are_the_image_processors(family: str, pictures: list[Image.Image]) -> None:
    """Framing first and scaling then gives, bit for bit, what the processor gives alone."""
    model = tiny(family)
    backbone = Backbone.from_model(model.model, model.image_processor, model.tokenizer)
    squares = [noise(50, 50, seed=4)] if family == "siglip2" else pictures
    options = {"max_num_patches": 25} if family == "siglip2" else {}
    expected = model.image_processor(images=squares, return_tensors="pt", **options)
    got = backbone.preprocess(squares)
    assert set(got) == set(expected)
    for name, value in got.items():
        assert torch.equal(value, expected[name])


@pytest.mark.parametrize("family", ["timm", "open_clip"])
def test_pixels_are_the_librarys_transforms(family: str, pictures: list[Image.Image]) -> None:
    model = tiny(family).model
    if family == "timm":
        from sae.backbones.timm import _evaluation_transform
    else:
        from sae.backbones.open_clip import _evaluation_transform
    transform = _evaluation_transform(model)
    expected = torch.stack([transform(picture) for picture in pictures])
    assert torch.equal(Backbone.from_model(model).preprocess(pictures)["pixel_values"], expected)
