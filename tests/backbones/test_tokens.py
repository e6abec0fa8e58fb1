"""Which tokens are read, on towers with and without CLS, with registers, and on feature maps."""

import pytest
import torch

from sae.backbones.tokens import TokenView, inference_policy, n_random, random_positions
from tests.backbones.towers import CLIP, CONVOLUTION, DINO, REGISTERS_ONLY, SIGLIP, Tower

TOWERS = [CLIP, SIGLIP, DINO, REGISTERS_ONLY, CONVOLUTION]


def numbered(tower: Tower, n_prompts: int = 0) -> torch.Tensor:
    """Activations (1, tokens, 1) whose values are the positions."""
    n = tower.n_prefix + tower.patch_grid[0] * tower.patch_grid[1] + n_prompts
    return torch.arange(float(n)).view(1, n, 1)


@pytest.mark.parametrize(
    ("tower", "policy", "read", "patches", "kinds"),
    [
        (CLIP, "all", [0, 1, 2, 3, 4], [1, 2, 3, 4], "cpppp"),
        (CLIP, "patches", [1, 2, 3, 4], [1, 2, 3, 4], "pppp"),
        (CLIP, "cls", [0], [], "c"),
        (SIGLIP, "all", [0, 1, 2, 3], [0, 1, 2, 3], "pppp"),
        (SIGLIP, "patches", [0, 1, 2, 3], [0, 1, 2, 3], "pppp"),
        (DINO, "all", list(range(11)), [5, 6, 7, 8, 9, 10], "crrrrpppppp"),
        (DINO, "patches", [5, 6, 7, 8, 9, 10], [5, 6, 7, 8, 9, 10], "pppppp"),
        (DINO, "cls", [0], [], "c"),
        (REGISTERS_ONLY, "all", list(range(8)), [4, 5, 6, 7], "rrrrpppp"),
        (REGISTERS_ONLY, "patches", [4, 5, 6, 7], [4, 5, 6, 7], "pppp"),
        (CONVOLUTION, "all", list(range(15)), list(range(15)), "p" * 15),
        (CONVOLUTION, "patches", list(range(15)), list(range(15)), "p" * 15),
    ],
)
def test_what_is_read(tower, policy, read, patches, kinds):
    view, x = TokenView(tower, policy), numbered(tower)
    tokens = view.read(x)
    assert tokens.flatten().tolist() == read
    assert tokens[:, view.patches].flatten().tolist() == patches
    assert view.n_read == view.n_trained == len(read)
    assert view.reads_patches == bool(patches)
    assert view.reads_cls == (kinds[0] == "c")
    assert "".join(kind[0] for kind in view.kinds()) == kinds
    assert view.image == slice(0, x.shape[1])


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("policy", ["all", "patches", "cls"])
def test_what_is_read_can_be_put_back(tower, policy):
    if policy == "cls" and not tower.has_cls:
        with pytest.raises(ValueError, match="fake has no CLS token; use --tokens all or patches"):
            TokenView(tower, policy)
        return
    view, x = TokenView(tower, policy), numbered(tower, n_prompts=2)
    assert torch.equal(view.put(x, view.read(x)), x)
    changed = view.put(x.double(), -1 - view.read(x))
    assert changed.dtype == torch.float64
    assert (changed < 0).sum() == view.read(x).shape[1]
    assert torch.equal(view.read(changed), -1 - view.read(x).double())
    assert torch.equal(x, numbered(tower, n_prompts=2)), "the activations themselves stay"


def test_prompts_behind_the_image_are_read_only_with_all():
    x = numbered(CLIP, n_prompts=3)
    view = TokenView(CLIP, "all")
    assert view.read(x).shape[1] == 8
    assert x[:, view.image].flatten().tolist() == [0, 1, 2, 3, 4]
    assert view.kinds(8) == ("cls", *["patch"] * 4, *["register"] * 3)
    assert TokenView(CLIP, "patches").read(x).flatten().tolist() == [1, 2, 3, 4]


def test_random_tokens_are_drawn_in_training_and_all_read_afterwards():
    view = TokenView(DINO, "random:3")
    assert (view.policy, view.n_drawn, view.n_trained, view.n_read) == ("all", 3, 3, 11)
    assert (n_random("random:2"), n_random("all")) == (2, None)
    assert inference_policy("random:2") == "all"
    assert inference_policy("cls") == "cls"
    with pytest.raises(ValueError, match="--tokens random:5: fake has 4 tokens an image"):
        TokenView(SIGLIP, "random:5")
    many = random_positions([(0, n) for n in range(3000)], 2, 17)
    assert many.flatten().bincount(minlength=17).min() > 250


@pytest.mark.parametrize("policy", ["some", "random", "random:", "random:0", "random:-1", "all:2"])
def test_what_is_no_policy_is_refused(policy):
    with pytest.raises(ValueError, match=r"--tokens: invalid choice.*all, patches, cls, random:N"):
        TokenView(CLIP, policy)


def test_a_view_of_a_view_reads_the_same_tower():
    whole = TokenView(DINO, "random:3")
    assert TokenView(whole, "patches").span == TokenView(DINO, "patches").span == slice(5, 11)
