"""Counts, groups and correlation on numbers worked out by hand."""

import pytest
import torch

from sae.adaptation.lens import HookedActivations
from sae.sparse import SparseLatents
from training.tasks.comparing import (
    add_class_counts,
    correlation,
    image_counts,
    overlap,
    scatter_points,
)


def reading_of(values, indices) -> HookedActivations:
    values = torch.tensor(values)
    return HookedActivations(
        torch.zeros(len(values), 2, 4), SparseLatents(values, torch.tensor(indices))
    )


def test_counts_are_tokens_above_tau():
    reading = reading_of(
        [[[0.5, 0.1], [0.3, 0.0]], [[0.2, 0.9], [0.0, 0.0]]], [[[2, 1], [2, 0]], [[1, 3], [0, 0]]]
    )
    assert image_counts(reading, 4).tolist() == [[0, 0, 2, 0], [0, 0, 0, 1]]
    counts = torch.zeros(2, 4, dtype=torch.int64)
    add_class_counts(counts, reading, torch.tensor([1, 1]))
    assert counts.tolist() == [[0, 0, 0, 0], [0, 0, 2, 1]]


def test_groups_by_the_papers_bounds():
    # pooled and sorted: 9 9 8 7 | 3 2 1 ...; the 4th is 7, the 6th is 2
    first = torch.tensor([[9, 8, 1, 0, 3]])
    second = torch.tensor([[9, 0, 7, 0, 2]])
    found = overlap(first, second, upper_rank=4, lower_rank=6)
    assert found == (1.0, 1.0, 1.0)
    same = overlap(first, first, upper_rank=4, lower_rank=6)
    assert same == (2.0, 0.0, 0.0)
    assert overlap(torch.zeros(2, 9), torch.zeros(2, 9)) == (0.0, 0.0, 0.0)


def test_correlation():
    first = torch.tensor([[1, 2, 0, 3], [0, 0, 0, 0]])
    assert correlation(first, 2 * first) == pytest.approx(1.0)
    assert correlation(first, torch.tensor([[3, 2, 0, 1]])) == pytest.approx(-1.0)
    assert correlation(torch.zeros(1, 4), torch.zeros(1, 4)) == 0.0


def test_scatter_points_are_the_most_frequent():
    first = torch.tensor([[5, 0, 1], [0, 0, 0]])
    second = torch.tensor([[5, 2, 0], [0, 9, 0]])
    points = scatter_points(first, second, ("a", "b"), top=1)
    assert points == [[1, 1, 0, 9], [0, 0, 5, 5]]
    assert len(scatter_points(first, second, ("a", "b"))) == 4
    with pytest.raises(ValueError, match="class names"):
        scatter_points(first, second, ("a",))
