"""Replays: shortcuts are of one thread, nest, and leave nothing behind."""

import threading

import pytest
import torch
from torch import nn

from sae.backbones.vlm_replay import capture, replaying


class AddOne(nn.Module):
    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden + 1


@pytest.fixture
def stack() -> nn.Sequential:
    return nn.Sequential(*[AddOne() for _ in range(5)])


def test_earlier_layers_are_free_and_later_ones_run(stack):
    x = torch.zeros(1, 2, 3)
    kept = capture(list(stack), 2, lambda: stack(x), also=(0, 4))
    assert kept.hidden.unique().item() == 3
    assert {n: h.unique().item() for n, h in kept.earlier.items()} == {0: 1}
    with replaying(list(stack), 2, kept, torch.full((2, 2, 3), 10.0)):
        assert stack(torch.zeros(2, 2, 3)).unique().item() == 12
    with replaying(list(stack), 2, kept, kept.hidden * 10, last=3):
        assert stack(x).unique().item() == 31
    assert stack(x).unique().item() == 5
    assert not any("forward" in layer.__dict__ for layer in stack)


def test_layers_read_besides_give_what_they_gave(stack):
    x = torch.zeros(1, 2, 3)
    kept = capture(list(stack), 2, lambda: stack(x), also=(0, 1))
    read = []
    stack[1].register_forward_hook(lambda _m, _a, out: read.append(out))
    with replaying(list(stack), 2, kept, torch.zeros(2, 2, 3)):
        stack(torch.zeros(2, 2, 3))
    assert torch.equal(read[0], kept.earlier[1].repeat(2, 1, 1))


def test_other_threads_run_everything(stack):
    x = torch.zeros(1, 2, 3)
    kept = capture(list(stack), 3, lambda: stack(x))
    elsewhere: list[float] = []
    with replaying(list(stack), 3, kept, kept.hidden * 0):
        thread = threading.Thread(target=lambda: elsewhere.append(stack(x).unique().item()))
        thread.start()
        thread.join()
        assert stack(x).unique().item() == 1
    assert elsewhere == [5]


def test_a_forward_that_was_replaced_before_comes_back(stack):
    def before(hidden: torch.Tensor) -> torch.Tensor:
        return hidden + 100

    stack[1].forward = before
    x = torch.zeros(1, 2, 3)
    kept = capture(list(stack), 2, lambda: stack(x))
    with pytest.raises(KeyError), replaying(list(stack), 2, kept, kept.hidden):
        raise KeyError
    assert stack[1].forward is before
    assert stack(x).unique().item() == 104
