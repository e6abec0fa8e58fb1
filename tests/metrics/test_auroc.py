"""AUROC against its definition by pairs."""

import numpy as np
import pytest

from sae.metrics.auroc import auroc, average_ranks


def by_pairs(scores: np.ndarray, labels: np.ndarray) -> float:
    above = scores[labels][:, None] - scores[~labels][None, :]
    return float(((above > 0) + 0.5 * (above == 0)).mean())


def test_equals_the_definition_with_ties():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(120, 7)).round(1), rng.random((120, 3)) < 0.2
    expected = [[by_pairs(scores[:, s], labels[:, c]) for c in range(3)] for s in range(7)]
    assert np.allclose(auroc(scores, labels, chunk=2), expected, atol=1e-12)


def test_known_answers():
    scores = np.array([[0.0, 1, 5], [0, 2, 5], [1, 3, 5], [2, 4, 5]])
    labels = np.array([[False], [False], [True], [True]])
    assert auroc(scores, labels).ravel().tolist() == [1.0, 1.0, 0.5]
    assert auroc(-scores, labels).ravel().tolist() == [0.0, 0.0, 0.5]


def test_ranks_share_ties():
    assert average_ranks(np.array([[3.0], [1], [3], [2]])).ravel().tolist() == [3.5, 1, 3.5, 2]


def test_one_sided_labels_are_nan():
    assert np.isnan(auroc(np.ones((3, 1)), np.ones((3, 1), bool))).all()


@pytest.mark.usefixtures("wrong_shapes")
def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"\(n, s\)"):
        auroc(np.ones((3, 1)), np.ones((4, 1), bool))
