"""Sparse selection and decoding as tensors, apart from any SAE."""

import pytest
import torch

from sae.sparse import (
    SparseLatents,
    decode_sparse,
    keep_above,
    largest_above,
    largest_k,
    tokens_per_chunk,
)

H = torch.tensor([[0.5, -1.0, 2.0, 1.0], [-1.0, -2.0, -3.0, -4.0], [3.0, 0.0, 3.5, 0.1]])


def test_largest_k_empties_what_is_not_positive() -> None:
    found = largest_k(H, 2)
    assert found.values.tolist() == [[2.0, 1.0], [0.0, 0.0], [3.5, 3.0]]
    assert found.indices.tolist() == [[2, 3], [0, 0], [2, 0]]


def test_largest_above_a_scalar_and_a_vector() -> None:
    assert largest_above(H, 0.5).values.tolist() == [[2.0, 1.0], [0.0, 0.0], [3.5, 3.0]]
    vector = torch.tensor([4.0, 0.0, 0.0, 0.05])
    found = largest_above(H, vector, max_active=1)
    assert found.values.tolist() == [[2.0], [0.0], [3.5]]
    assert torch.equal(
        keep_above(H, vector), torch.tensor([[0, 0, 2.0, 1.0], [0, 0, 0, 0], [0, 0, 3.5, 0.1]])
    )


def test_nothing_above_the_threshold() -> None:
    found = largest_above(H, 10.0)
    assert found.values.shape == found.indices.shape == (3, 0)
    assert decode_sparse(found, torch.ones(4, 2)).tolist() == [[0.0, 0.0]] * 3


def test_join_pads_to_the_widest() -> None:
    one = SparseLatents(torch.ones(1, 1), torch.ones(1, 1, dtype=torch.long))
    two = SparseLatents(torch.ones(2, 3), torch.ones(2, 3, dtype=torch.long))
    joined = SparseLatents.join([one, two])
    assert joined.values.tolist() == [[1, 0, 0], [1, 1, 1], [1, 1, 1]]
    assert joined.indices.tolist() == [[1, 0, 0], [1, 1, 1], [1, 1, 1]]


def test_decode_sums_decoder_rows() -> None:
    latents = SparseLatents(torch.tensor([[[2.0, 1.0, 0.0]]]), torch.tensor([[[1, 0, 0]]]))
    W_dec = torch.tensor([[1.0, 0.0], [0.0, 10.0]])
    assert decode_sparse(latents, W_dec).tolist() == [[[1.0, 20.0]]]


@pytest.mark.parametrize(("d_sae", "tokens"), [(1024, 16384), (49_152, 341), (10_000_000, 32)])
def test_a_chunk_stays_within_its_budget(d_sae: int, tokens: int) -> None:
    assert tokens_per_chunk(d_sae) == tokens
