"""Which part of a picture a model sees, and at which size. Knows Pillow; knows no models.

Image processors resize and crop. `Framing` holds that as numbers, so that one description both
frames the picture and tells where the patches lie in the original (`box`). It is read from
transformers' processors (`framing_of`) and from torchvision-style pipelines (`split_pipeline`), of
which the rest, to tensor and normalise, stays the library's own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jaxtyping import Float
from PIL import Image
from torch import Tensor

Resize = Literal["shortest", "squash", "cover", "contain"]
Box = tuple[float, float, float, float]
"""left, top, right, bottom in pixels; fractions are meant."""

MAX_RESIZED_PIXELS = 16_000_000
"""Above this a picture (an extreme panorama) is cropped while it is resized, not afterwards."""


@dataclass(frozen=True)
class Framing:
    """Resize, then crop round the centre (padding where the crop is larger).

    mode "shortest": the shorter edge becomes `size`; "squash": the picture becomes size, whatever
    its aspect; "cover" / "contain": as large as needed to fill / as fits into `size`.
    rounding "floor" crops as transformers does, "nearest" as torchvision does.
    """

    mode: Resize
    size: tuple[int, int]
    """(height, width); for "shortest" both are the edge."""
    crop: tuple[int, int]
    """(height, width) of the model's input."""
    resample: int = 3
    """A PIL.Image.Resampling value; 3 is bicubic."""
    rounding: Literal["floor", "nearest"] = "floor"
    fill: tuple[int, int, int] = (0, 0, 0)

    def resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """(width, height) after the resize of a picture of `size` (width, height)."""
        width, height = size
        if self.mode == "squash":
            return self.size[1], self.size[0]
        if self.mode == "shortest":
            edge = self.size[0]
            short, long = sorted(size)
            long = int(edge * long / short)
            return (edge, long) if width <= height else (long, edge)
        ratios = height / self.size[0], width / self.size[1]
        ratio = min(ratios) if self.mode == "cover" else max(ratios)
        return max(1, round(width / ratio)), max(1, round(height / ratio))

    def apply(self, image: Image.Image) -> Image.Image:
        """The picture as the model sees it, crop's size. `image` is RGB."""
        width, height = self.resized(image.size)
        left, top = self._offset(width, self.crop[1]), self._offset(height, self.crop[0])
        box = (left, top, left + self.crop[1], top + self.crop[0])
        inside = left >= 0 and top >= 0 and box[2] <= width and box[3] <= height
        if width * height > MAX_RESIZED_PIXELS and inside:
            return image.resize(self.crop[::-1], self.resample, box=self.box(image.size))
        if (width, height) != image.size:
            image = image.resize((width, height), self.resample)
        if inside:
            return image if box == (0, 0, width, height) else image.crop(box)
        canvas = Image.new("RGB", self.crop[::-1], self.fill)
        canvas.paste(image, (-left, -top))
        return canvas

    def box(self, size: tuple[int, int], seen: tuple[int, int] | None = None) -> Box:
        """The seen part of a picture of `size` (width, height), in that picture's pixels.

        `seen` (height, width) is the part of the input, from its upper left corner, that patches
        cover; by default all. Where the model's input is padded the box reaches beyond the picture.
        """
        width, height = self.resized(size)
        seen_height, seen_width = seen or self.crop
        left, top = self._offset(width, self.crop[1]), self._offset(height, self.crop[0])
        x, y = size[0] / width, size[1] / height
        return left * x, top * y, (left + seen_width) * x, (top + seen_height) * y

    def _offset(self, length: int, crop: int) -> int:
        if self.rounding == "floor":
            return (length - crop) // 2
        return round((length - crop) / 2) if length >= crop else -((crop - length) // 2)


def framing_of(processor: Any) -> Framing:
    """The Framing of a transformers image processor (resize to an edge or a size, centre crop).

    Raises ValueError if the processor gives pictures of varying sizes or pads them.
    """
    size, crop = getattr(processor, "size", None), getattr(processor, "crop_size", None)
    crops, resizes = bool(getattr(processor, "do_center_crop", None)), processor.do_resize
    edge, exact = _entry(size, "shortest_edge"), _height_width(size)
    odd = getattr(processor, "do_pad", None) or _entry(size, "longest_edge")
    if odd or not resizes or not (exact or (edge and crops)):
        raise ValueError(
            f"image processor {type(processor).__name__} with size {size}, crop_size "
            f"{crop if crops else None}, do_resize {resizes} gives no fixed input size; expected a "
            'size {"height", "width"}, or {"shortest_edge"} with do_center_crop. Correct its '
            "preprocessor_config.json."
        )
    resample = int(processor.resample)
    cut = _height_width(crop) if crops else exact
    if exact and cut:
        return Framing("squash", exact, cut, resample)
    if edge and cut:
        return Framing("shortest", (edge, edge), cut, resample)
    raise ValueError(f"image processor {type(processor).__name__}: crop_size {crop} is no size")


def _height_width(size: Any) -> tuple[int, int] | None:
    height, width = _entry(size, "height"), _entry(size, "width")
    return (int(height), int(width)) if height and width else None


def _entry(size: Any, name: str) -> int | None:
    return size.get(name) if isinstance(size, Mapping) else getattr(size, name, None)


_RESAMPLE = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}


def split_pipeline(
    pipeline: Any,
) -> tuple[Framing, Callable[[Image.Image], Float[Tensor, "channels height width"]]]:
    """A Compose to (its framing, its remaining steps).

    Understood: Resize or ResizeKeepRatio, then CenterCrop or CenterCropOrPad, as open_clip's and
    timm's evaluation transforms build them. Raises ValueError for anything else geometric.
    """
    steps = list(getattr(pipeline, "transforms", ()))
    names = [type(step).__name__ for step in steps]
    if not names or names[0] not in ("Resize", "ResizeKeepRatio"):
        raise ValueError(
            f"image pipeline {names or type(pipeline).__name__} does not begin with a resize; "
            "give open_clip's or timm's evaluation transform"
        )
    cropping = len(names) > 1 and names[1] in ("CenterCrop", "CenterCropOrPad")
    rest = steps[2 if cropping else 1 :]
    geometric = [n for n in names[len(steps) - len(rest) :] if "Crop" in n or "Resize" in n]
    if geometric:
        raise ValueError(f"image pipeline {names} has further geometric steps {geometric}")
    return _framing(steps[0], steps[1] if cropping else None), _Chain(rest)


class _Chain:
    def __init__(self, steps: list[Any]) -> None:
        self._steps = steps

    def __call__(self, image: Image.Image) -> Tensor:
        value: Any = image
        for step in self._steps:
            value = step(value)
        return value


def _framing(resize: Any, crop: Any) -> Framing:
    size = resize.size
    longest = getattr(resize, "longest", 0.0)
    if longest not in (0.0, 1.0):
        raise ValueError(f"ResizeKeepRatio with longest={longest} is not supported, only 0 or 1")
    if type(resize).__name__ == "ResizeKeepRatio":
        mode: Resize = "contain" if longest else "cover"
    else:
        mode = "shortest" if isinstance(size, int) or len(size) == 1 else "squash"
    if crop is None and mode != "squash":
        raise ValueError(f"a resize to {size} without a crop gives pictures of varying sizes")
    pair = _pair(size)
    fill = getattr(crop, "fill", 0)
    return Framing(
        mode,
        pair,
        pair if crop is None else _pair(crop.size),
        resample=_RESAMPLE[getattr(resize.interpolation, "value", resize.interpolation)],
        rounding="nearest",
        fill=(fill,) * 3 if isinstance(fill, int) else tuple(fill),
    )


def _pair(size: Any) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    return (size[0], size[0]) if len(size) == 1 else (int(size[0]), int(size[1]))
