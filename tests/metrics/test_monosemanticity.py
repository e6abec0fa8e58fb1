"""The linear-time MonoSemanticity score against its definition by pairs of images."""

import numpy as np
import pytest
import torch
from scipy import sparse

from sae.metrics import monosemanticity
from sae.metrics.monosemanticity import MonosemanticityMeter


def by_pairs(latents: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
    """Equations 5–9 of Pach et al., pair by pair."""
    units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosines = np.triu(units @ units.T, 1)
    low, high = latents.min(0), latents.max(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = (latents - low) / (high - low)
        above = np.einsum("nk,nm,mk->k", scaled, cosines, scaled, optimize=True)
        below = np.einsum("nk,nm,mk->k", scaled, np.triu(np.ones_like(cosines), 1), scaled)
        return above / below


def example(n: int = 500, w: int = 40, d: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Sparse latents: one dead, one firing once, one twice, one on all images, and signed ones."""
    rng = np.random.default_rng(seed)
    latents = rng.exponential(size=(n, w)) * (rng.random((n, w)) < 0.05)
    latents[:, 0] = 0
    latents[:, 1] = 0
    latents[7, 1] = 3.0
    latents[:, 2] = 0
    latents[[3, 400], 2] = [2.0, 1e-4]
    latents[:, 3] = rng.normal(size=n) + 5
    latents[:, 4] = rng.normal(size=n)
    latents[:, 5] *= -1
    latents[:, 6] = 4.2
    latents[:, 7] = rng.normal(size=n) * 1e-3 + 1000
    return latents, rng.normal(size=(n, d)) + 0.3


LATENTS, EMBEDDINGS = example()
EXPECTED = by_pairs(LATENTS, EMBEDDINGS)
FORMS = {
    "numpy": lambda a: a,
    "torch": torch.from_numpy,
    "COO": lambda a: torch.from_numpy(a).to_sparse_coo(),
    "CSC": lambda a: torch.from_numpy(a).to_sparse_csc(),
    "CSR": lambda a: torch.from_numpy(a).to_sparse_csr(),
    "scipy CSR": sparse.csr_array,
    "scipy CSC": sparse.csc_matrix,
    "scipy COO": sparse.coo_array,
}


@pytest.mark.filterwarnings("ignore:Sparse (CSR|CSC|invariant)")
@pytest.mark.parametrize("form", FORMS)
def test_equals_the_definition(form):
    found = monosemanticity(FORMS[form](LATENTS), EMBEDDINGS)
    assert isinstance(found, torch.Tensor if form in ("torch", "COO", "CSR", "CSC") else np.ndarray)
    found = np.asarray(found)
    assert found.dtype == np.float64
    assert np.flatnonzero(np.isnan(found)).tolist() == [0, 1, 6]
    assert np.nanmax(np.abs(found - EXPECTED)) < 1e-9


@pytest.mark.parametrize("batch", [1, 7, 64])
@pytest.mark.parametrize("as_sparse", [False, True])
def test_batches_add_up(batch, as_sparse):
    meter = MonosemanticityMeter(40, 24)
    for start in range(0, 500, batch):
        part = LATENTS[start : start + batch]
        meter.update(
            sparse.csr_array(part) if as_sparse else part, EMBEDDINGS[start : start + batch]
        )
    assert np.nanmax(np.abs(meter.result().numpy() - EXPECTED)) < 1e-9
    above = (LATENTS.min(0) < LATENTS).sum(0)
    assert meter.n_active.tolist() == above.tolist()


def test_two_halves_equal_the_whole_and_states_go_on():
    whole, first, second = (MonosemanticityMeter(40, 24) for _ in range(3))
    whole.update(LATENTS, EMBEDDINGS)
    first.update(sparse.csr_array(LATENTS[:200]), EMBEDDINGS[:200])
    second.update(LATENTS[200:], EMBEDDINGS[200:])
    expected_second = second.result()
    again = MonosemanticityMeter.from_state({k: v.clone() for k, v in first.state().items()})
    again.merge(second)
    assert torch.allclose(second.result(), expected_second, atol=1e-12, equal_nan=True)
    assert torch.allclose(again.result(), whole.result(), atol=1e-12, equal_nan=True)
    assert again.n_images == 500
    assert again.n_active.tolist() == whole.n_active.tolist()
    empty = MonosemanticityMeter(40, 24)
    empty.merge(again)
    again.merge(MonosemanticityMeter(40, 24))
    assert torch.equal(empty.result().nan_to_num(), again.result().nan_to_num())


def test_two_images_give_their_cosine_whatever_their_activations():
    embeddings = np.array([[1.0, 0, 0], [0.6, 0.8, 0], [0, 0, 1.0]])
    for small in (1.0, 1e-3, 1e-6):
        latents = np.array([[1.0], [small], [0.0]])
        assert abs(monosemanticity(latents, embeddings)[0] - 0.6) < 1e-8


def test_summary_counts_and_filters():
    meter = MonosemanticityMeter(40, 24)
    meter.update(LATENTS, EMBEDDINGS)
    found = meter.summary(min_active_images=10)
    assert (found.n_images, found.n_latents, found.n_dead, found.n_single) == (500, 40, 2, 1)
    scores, active = EXPECTED[~np.isnan(EXPECTED)], meter.n_active.numpy()
    assert found.unfiltered.n == 37
    assert found.unfiltered.mean == pytest.approx(scores.mean())
    assert found.unfiltered.best == pytest.approx(scores.max())
    assert found.unfiltered.quantiles[0.5] == pytest.approx(np.median(scores))
    often = EXPECTED[(active >= 10) & ~np.isnan(EXPECTED)]
    assert found.filtered.n == len(often) == 36
    assert found.filtered.best == pytest.approx(often.max())
    nothing = MonosemanticityMeter(2, 3).summary()
    assert nothing.unfiltered.n == 0
    assert np.isnan(nothing.unfiltered.mean)


def test_duplicates_and_stored_zeros_mean_their_sum():
    places = torch.tensor([[0, 0, 1, 2], [0, 0, 0, 0]])
    latents = torch.sparse_coo_tensor(
        places, torch.tensor([1.0, 1, 2, 0]), (4, 1), check_invariants=True
    )
    embeddings = np.random.default_rng(0).normal(size=(4, 3))
    expected = by_pairs(np.array([[2.0], [2], [0], [0]]), embeddings)
    assert monosemanticity(latents, embeddings).numpy() == pytest.approx(expected)


def test_half_precision_and_integers_are_taken():
    latents = (LATENTS[:, 8:12] * 8).round()
    expected = by_pairs(latents, EMBEDDINGS)
    for form in (torch.from_numpy(latents).half(), latents.astype(np.int32)):
        assert np.asarray(monosemanticity(form, EMBEDDINGS)) == pytest.approx(expected)


@pytest.mark.usefixtures("wrong_shapes")
@pytest.mark.parametrize(
    ("latents", "embeddings", "words"),
    [
        (np.ones((3, 2)), np.ones((4, 2)), "expected"),
        (np.ones(3), np.ones((3, 2)), r"\(n_images, n_latents\)"),
        (np.full((3, 2), np.nan), np.ones((3, 2)), "not finite"),
        (np.ones((3, 2)), np.zeros((3, 2)), "zero or not finite"),
    ],
)
def test_bad_input_is_named(latents, embeddings, words):
    with pytest.raises(ValueError, match=words):
        monosemanticity(latents, embeddings)


def test_meters_of_other_shapes_do_not_merge():
    with pytest.raises(ValueError, match="cannot be merged"):
        MonosemanticityMeter(2, 3).merge(MonosemanticityMeter(2, 4))
    with pytest.raises(ValueError, match="positive"):
        MonosemanticityMeter(0, 3)
