"""Images to rows: token policies, and which positions random:N takes."""

from typing import Any

import pytest
import torch

from sae.backbones.tokens import TokenView, random_positions
from tests.training.training_parts import backbone, picture, pictures
from training.data.feeds import ImageFeed
from training.data.stream import Group

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
