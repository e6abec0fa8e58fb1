"""What a torchvision-style pipeline (of open_clip or timm) does to a picture, as a Framing.

The geometric steps become numbers; the rest (to tensor, normalise) stays the library's own.
"""

from collections.abc import Callable
from typing import Any

from PIL import Image
from torch import Tensor

from sae.backbones.framing import Framing, Resize

_RESAMPLE = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}


def split_pipeline(pipeline: Any) -> tuple[Framing, Callable[[Image.Image], Tensor]]:
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
