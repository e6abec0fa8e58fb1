"""The shuffled stream: what is in it, and that it can be taken up anywhere."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image

from sae.images import ImageError
from tests.training_parts import backbone, picture, pictures
from training.activations import ActivationStream, Stopped, chosen_tokens, tokens_per_image
from training.sources import ImageSource

MODEL = backbone()
SMALL = {"tokens": "all", "batch_size": 20, "buffer": 3, "image_batch": 2, "seed": 0}


def stream(source: ImageSource | None = None, **changes: Any) -> ActivationStream:
    return ActivationStream(MODEL, 1, source or pictures(), **{**SMALL, **changes})


def take(made: ActivationStream, n: int) -> torch.Tensor:
    return torch.cat(list(itertools.islice(made, n)))


def test_a_round_is_a_shuffle_of_its_images() -> None:
    made = stream()
    tokens = take(made, 3)
    whole = MODEL.activations([picture(n) for n in range(4)], 1).flatten(0, 1)[:60]
    assert tokens.shape == (60, 32)
    assert not torch.allclose(tokens, whole)
    key = slice(0, 3)
    found = tokens[tokens[:, key].norm(dim=1).argsort()]
    torch.testing.assert_close(found, whole[whole[:, key].norm(dim=1).argsort()])
    assert made.n_images == 4


@pytest.mark.parametrize("taken", [1, 3, 4, 8])
def test_it_goes_on_from_any_batch(taken: int) -> None:
    straight = take(stream(), 12).split(20)
    first, second = stream(), stream()
    take(first, taken)
    second.position = replace(first.position)
    assert torch.equal(take(second, 12 - taken), torch.cat(straight[taken:]))


def test_seeds_and_ranks_differ() -> None:
    assert not torch.equal(take(stream(), 3), take(stream(seed=1), 3))
    one, two = (stream(rank=r, world=2) for r in (0, 1))
    seen: list[list[int]] = [[], []]
    for made, numbers in zip((one, two), seen, strict=True):
        made.source = replace(
            made.source, load=lambda n, numbers=numbers: numbers.append(n) or picture(n)
        )
        take(made, 3)
    assert seen[0][:4] == [0, 2, 4, 6]
    assert seen[1][:4] == [1, 3, 5, 7]


@pytest.mark.parametrize(("policy", "n"), [("all", 17), ("patches", 16), ("cls", 1)])
def test_token_policies(policy: str, n: int) -> None:
    activations = MODEL.activations([picture(0), picture(1)], 1)
    chosen = chosen_tokens(activations, MODEL, policy)
    assert chosen.shape == (2, n, 32)
    assert tokens_per_image(MODEL, policy) == n
    start = 1 if policy == "patches" else 0
    assert torch.equal(chosen, activations[:, start : start + n])
    assert take(stream(tokens=policy), 4).shape == (80, 32)


def test_cls_of_a_backbone_without_one() -> None:
    class Headless:
        id, has_cls = "headless", False

    with pytest.raises(ValueError, match="headless has no CLS token; use --tokens all"):
        chosen_tokens(torch.zeros(1, 4, 2), Headless(), "cls")


def test_unreadable_images_are_left_out_up_to_a_share() -> None:
    def load(number: int) -> Image.Image:
        if number == 1:
            raise ImageError("1.png is cut off.")
        return picture(number)

    made = stream(ImageSource("some", load))
    assert take(made, 6).shape == (120, 32)
    assert made.n_unreadable == 1

    def none(number: int) -> Image.Image:
        raise ImageError(f"{number}.png is cut off.")

    with pytest.raises(ImageError, match=r"12 of 12 images could not be read \(the last: 11.png"):
        take(stream(ImageSource("none", none)), 1)


def test_it_stops_while_filling() -> None:
    made = stream(should_stop=lambda: made.n_images >= 6)
    assert take(made, 3).shape == (60, 32)
    position = replace(made.position)
    with pytest.raises(Stopped):
        take(made, 1)
    assert (position.round, position.batch) == (0, 3)
