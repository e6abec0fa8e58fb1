"""The best linear decoder leaves nothing of what a code holds, and everything of what it does not."""

import numpy as np
import pytest
from scipy import sparse

from sae.metrics.decoding import best_linear_fvu


def tokens(n: int, seed: int) -> tuple[sparse.csr_array, np.ndarray]:
    """Sparse codes, and activations that are linear in them with an offset."""
    rng = np.random.default_rng(seed)
    codes = rng.random((n, 12)) * (rng.random((n, 12)) < 0.3)
    rows = np.random.default_rng(9).normal(size=(12, 5))
    return sparse.csr_array(codes), codes @ rows + 7


def test_a_code_that_holds_all_leaves_nothing():
    left = best_linear_fvu(*tokens(400, 0), *tokens(300, 1), ridge=1e-9)
    assert left < 1e-6


def test_a_code_of_chance_leaves_all():
    _, x = tokens(4000, 0)
    _, held = tokens(3000, 1)
    rng = np.random.default_rng(2)
    noise, other = (sparse.csr_array(rng.random((n, 12))) for n in (4000, 3000))
    assert best_linear_fvu(noise, x, other, held) == pytest.approx(1, abs=0.02)


def test_it_is_the_least_squares_of_numpy():
    codes, x = tokens(200, 0)
    held_codes, held = tokens(100, 1)
    rng = np.random.default_rng(3)
    x, held = x + rng.normal(size=x.shape), held + rng.normal(size=held.shape)
    with_one = [np.c_[c.toarray(), np.ones(c.shape[0])] for c in (codes, held_codes)]
    fitted = np.linalg.lstsq(with_one[0], x, rcond=None)[0]
    left = np.square(held - with_one[1] @ fitted).sum() / np.square(held - held.mean(0)).sum()
    assert best_linear_fvu(codes, x, held_codes, held, ridge=0) == pytest.approx(left)


def test_units_that_never_fire_do_not_end_it():
    codes, x = tokens(100, 0)
    wider = sparse.csr_array(sparse.hstack([codes, sparse.csr_array((100, 4))]))
    assert best_linear_fvu(wider, x, wider, x) == pytest.approx(0, abs=1e-3)


def test_other_shapes_are_refused():
    codes, x = tokens(50, 0)
    with pytest.raises(ValueError, match="a row a token"):
        best_linear_fvu(codes, x[:-1], codes, x)
    with pytest.raises(ValueError, match="the same units"):
        best_linear_fvu(codes, x, codes[:, :5], x)
