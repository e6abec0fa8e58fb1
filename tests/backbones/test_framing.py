"""Where the model looks: the box against rectangles that are painted and then looked for."""

import numpy as np
import pytest
import torch
from PIL import Image

from sae.backbones import Backbone
from sae.backbones.framing import Framing, framing_of, split_pipeline
from tests.backbones.pictures import noise, rectangle
from tests.tiny_models import TINY, tiny

SIZES = [(400, 200), (200, 400), (97, 211), (64, 64), (1000, 40), (5, 9), (1, 1)]


@pytest.fixture(scope="module", params=list(TINY))
def looking(request: pytest.FixtureRequest) -> tuple[Backbone, int]:
    """A backbone and how many pixels of its input a patch is wide."""
    made = tiny(request.param)
    return Backbone.from_model(made.model, made.image_processor, made.tokenizer), made.stride


@pytest.fixture
def backbone(looking: tuple[Backbone, int]) -> Backbone:
    return looking[0]


def lightness(looking: tuple[Backbone, int], image: Image.Image) -> np.ndarray:
    """The model's input (rows, cols) that patches cover, from 0 (black) to 1 (white)."""
    backbone, step = looking
    rows, cols = backbone.patch_grid
    inputs = backbone.preprocess([image, rectangle((8, 8), (0, 0, 0, 0)), noise(1, 1)])
    white = backbone.preprocess([rectangle((8, 8), (0, 0, 8, 8))])["pixel_values"]
    pixels = inputs["pixel_values"]
    value = (pixels[:1] - pixels[1:2]) / (white - pixels[1:2])
    if value.ndim == 3:  # SigLIP 2: (1, patches, 8 * 8 * 3)
        value = value.reshape(rows, cols, step, step, 3).permute(0, 2, 1, 3, 4)
        return value.reshape(rows * step, cols * step, 3).mean(-1).numpy()
    return value[0].mean(0)[: rows * step, : cols * step].numpy()


@pytest.mark.parametrize("size", [(400, 200), (240, 600), (640, 640), (801, 399)])
def test_the_box_is_what_the_model_sees(
    looking: tuple[Backbone, int], size: tuple[int, int]
) -> None:
    """White exactly inside the box fills the input; a pixel of the input less, and it does not."""
    backbone, _ = looking
    left, top, right, bottom = backbone.image_box(size)
    inside = tuple(round(edge) for edge in (left, top, right, bottom))
    seen = lightness(looking, rectangle(size, inside))
    assert seen.mean(0).min() > 0.5
    assert seen.mean(1).min() > 0.5
    x, y = (right - left) / seen.shape[1], (bottom - top) / seen.shape[0]
    smaller = (left + x, top + y, right - x, bottom - y)
    seen = lightness(looking, rectangle(size, tuple(round(edge) for edge in smaller)))
    for edge in (seen[0], seen[-1], seen[:, 0], seen[:, -1]):
        assert edge.mean() < 0.5


def test_a_painted_patch_is_found_at_its_place(looking: tuple[Backbone, int]) -> None:
    backbone, step = looking
    rows, cols = backbone.patch_grid
    left, top, right, bottom = backbone.image_box((330, 250))
    row, col = 1, cols - 1
    x, y = (right - left) / cols, (bottom - top) / rows
    box = left + col * x, top + row * y, left + (col + 1) * x, top + (row + 1) * y
    seen = lightness(looking, rectangle((330, 250), tuple(round(edge) for edge in box)))
    patches = seen.reshape(rows, step, cols, step).mean((1, 3))
    assert patches[row, col] > 0.9
    assert patches.sum() - patches[row, col] < 0.3


@pytest.mark.parametrize("size", SIZES)
def test_any_size_is_framed(backbone: Backbone, size: tuple[int, int]) -> None:
    inputs = backbone.preprocess([noise(*size)])
    assert torch.isfinite(inputs["pixel_values"]).all()
    left, top, right, bottom = backbone.image_box(size)
    assert -1e-6 <= left < right <= size[0] + 1e-6
    assert -1e-6 <= top < bottom <= size[1] + 1e-6


def test_dinov2_sees_the_middle_seven_eighths() -> None:
    framing = Framing("shortest", (256, 256), (224, 224))
    assert framing.box((256, 256)) == (16, 16, 240, 240)
    assert framing.box((1024, 512)) == (288, 32, 736, 480)
    assert framing.box((1024, 512), seen=(210, 224)) == (288, 32, 736, 452)


def test_a_crop_larger_than_the_picture_pads_as_transformers_does() -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 21}, crop_size={"height": 32, "width": 32}
    )
    framing = framing_of(processor)
    for size in [(40, 30), (30, 40), (31, 31)]:
        got = np.asarray(framing.apply(noise(*size))).transpose(2, 0, 1)
        expected = processor(images=noise(*size), do_rescale=False, do_normalize=False)
        assert np.array_equal(got, expected["pixel_values"][0])
    assert framing.box((21, 21)) == (-6, -6, 26, 26)


def test_a_panorama_is_framed_without_resizing_all_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[tuple[int, int]] = []
    resize = Image.Image.resize
    monkeypatch.setattr(
        Image.Image,
        "resize",
        lambda image, size, *a, **k: made.append(size) or resize(image, size, *a, **k),
    )
    thin = noise(20, 60_000)
    framing = Framing("shortest", (224, 224), (224, 224))
    framed = framing.apply(thin)  # the whole would be 224 x 672,000 pixels
    assert made == [(224, 224)]
    left, top, right, bottom = framing.box(thin.size)
    middle = thin.crop((0, int(top) - 4, 20, int(bottom) + 4))
    offset = (top - (int(top) - 4)) * 224 / 20
    near = middle.resize((224, round(middle.height * 224 / 20)), 3)
    near = near.crop((0, round(offset), 224, round(offset) + 224))
    difference = np.abs(np.asarray(near, int) - np.asarray(framed, int))
    assert difference.mean() < 6


def test_cropping_while_resizing_equals_cropping_after(monkeypatch: pytest.MonkeyPatch) -> None:
    framing, image = Framing("shortest", (64, 64), (64, 64)), noise(300, 100)
    after = np.asarray(framing.apply(image), int)
    monkeypatch.setattr("sae.backbones.framing.MAX_RESIZED_PIXELS", 1)
    assert np.abs(np.asarray(framing.apply(image), int) - after).max() <= 1


def test_processors_without_a_fixed_size_are_refused() -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    for options in ({"do_center_crop": False}, {"do_resize": False}):
        with pytest.raises(ValueError, match="no fixed input size"):
            framing_of(CLIPImageProcessorPil(**options))


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
def test_timms_crop_modes(mode: str) -> None:
    factory = pytest.importorskip("timm.data.transforms_factory")
    pipeline = factory.transforms_imagenet_eval((32, 48), crop_pct=0.9, crop_mode=mode)
    _check_pipeline(pipeline)


@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
def test_open_clips_resize_modes(mode: str) -> None:
    transform = pytest.importorskip("open_clip.transform")
    for size in (33, (32, 48)):
        _check_pipeline(
            transform.image_transform(size, is_train=False, resize_mode=mode, fill_color=7)
        )


def test_unknown_pipelines_are_refused() -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    for steps in ([transforms.ToTensor()], [transforms.Resize(3)]):
        with pytest.raises(ValueError, match="does not begin with a resize|varying sizes"):
            split_pipeline(transforms.Compose(steps))


def _check_pipeline(pipeline: object) -> None:
    framing, tail = split_pipeline(pipeline)
    for size in [(100, 60), (61, 97), (33, 33), (7, 90)]:
        assert torch.equal(tail(framing.apply(noise(*size))), pipeline(noise(*size)))
