"""Images to rows: token policies, and which positions random:N takes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from sae.backbones import Backbone
from sae.backbones.tokens import TokenView, random_positions
from tests.tiny_saes import ARCHITECTURES
from tests.training.training_parts import backbone, config, picture, pictures
from training.data.feeds import ImageFeed, held_out_activations
from training.data.sources import open_whole
from training.data.stream import Group
from training.launch import StopRequest
from training.loop.run import Run

MODEL = backbone()


def feed(tokens: str, **changes: Any) -> ImageFeed:
    fields = {"tokens": tokens, "image_batch": 4, "seed": 0, "workers": 0, **changes}
    return ImageFeed(MODEL, 1, pictures(), **fields)


def rows(made: ImageFeed, places: list[int]) -> torch.Tensor:
    found = next(made.read(iter([Group(0, 0, places)]))).rows
    made.close()
    return found


@pytest.mark.parametrize(("policy", "n"), [("all", 17), ("patches", 16), ("cls", 1)])
def test_token_policies(policy: str, n: int) -> None:
    activations = MODEL.activations([picture(0), picture(1)], 1)
    view = TokenView(MODEL, policy)
    chosen = view.read(activations)
    assert chosen.shape == (2, n, 32)
    assert view.n_trained == feed(policy).rows_per_place == n
    start = 1 if policy == "patches" else 0
    assert torch.equal(chosen, activations[:, start : start + n])
    assert torch.equal(rows(feed(policy), [0, 1]), chosen.flatten(0, 1))


def test_random_tokens_follow_from_the_seed_and_the_image_alone() -> None:
    found = rows(feed("random:3"), [0, 1]).view(2, 3, 32)
    whole = MODEL.activations([picture(0), picture(1)], 1)
    for image in range(2):
        positions = random_positions([(0, 0, image)], 3, 17)[0]
        assert len(set(positions.tolist())) == 3
        assert torch.equal(found[image], whole[image, positions])
    other = rows(feed("random:3"), [7, 1]).view(2, 3, 32)
    torch.testing.assert_close(other[1], found[1])
    assert not torch.equal(rows(feed("random:3", seed=1), [1]), found[1])


def test_what_a_backbone_does_not_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="--tokens random:18: local has 17 tokens an image"):
        feed("random:18")
    monkeypatch.setattr(MODEL, "has_cls", False)
    with pytest.raises(ValueError, match="local has no CLS token; use --tokens all or patches"):
        feed("cls")


def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backbone gives NaN at one token of a black picture."""
    real = Backbone.activations

    def activations(self: Backbone, images: Any, layer: int) -> torch.Tensor:
        x = real(self, images, layer).clone()
        inputs = images if isinstance(images, dict) else self.preprocess(images)
        x[inputs["pixel_values"].flatten(1).std(1) < 1, -1, 0] = float("nan")
        return x

    monkeypatch.setattr(Backbone, "activations", activations)


def with_a_black_one(folder: Path) -> Path:
    for number in range(12):
        shown = Image.new("RGB", (32, 32)) if number == 7 else picture(number)
        shown.save(folder / f"{number:02}.png")
    return folder


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_training_stops_with_the_layer_and_the_file(
    architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch)
    source, _ = open_whole(str(with_a_black_one(tmp_path)))
    source = replace(source, numbers=np.arange(12))
    settings = config(tmp_path / "out", arch=architecture, layer=1)
    made = Run(settings, Accelerator(cpu=True), MODEL, source, StopRequest())
    with pytest.raises(ValueError, match=r"layer 1 of local gives NaN or infinity for 07\.png"):
        made.start()
    assert not (tmp_path / "out" / "config.json").exists()
    with pytest.raises(ValueError, match=r"layer 1 of local gives NaN or infinity for 07\.png"):
        list(held_out_activations(source, MODEL, 1, "all", image_batch=4))
