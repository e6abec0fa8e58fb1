"""One pass over images: parts merge to the whole bit for bit, and bounded tables keep the right rows."""

import numpy as np
import pytest
from scipy import sparse

from sae.concepts.build.accumulators import (
    ExactSum,
    SparseCounts,
    Table,
    by_chance,
    falling,
    image_numbers,
    values_of,
)
from sae.concepts.build.gathering import Gathered, Settings, firings_of
from sae.concepts.build.partial import load_parts, parts_in, remove_parts, save_part
from sae.concepts.build.summary import (
    cofiring_neighbours,
    exemplars_of,
    statistics_of,
)
from sae.concepts.nearest import nearest_rows
from sae.errors import ArtifactError
from sae.metrics.monosemanticity import monosemanticity

N, TOKENS, K, D = 240, 9, 4, 50
SETTINGS = Settings(D, N, 7, tau=0.5, n_cofiring_images=100, n_cofiring=6)


def codes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    values = rng.gamma(1.0, 1.3, (N, TOKENS, K)).astype(np.float32) * (
        rng.random((N, TOKENS, K)) < 0.8
    )
    indices = np.argsort(rng.random((N, TOKENS, D)) ** np.linspace(0.2, 3, D), axis=2)[..., :K]
    return values, indices, rng.integers(-1, 7, N).astype(np.int32)


VALUES, INDICES, LABELS = codes()
EMBEDDINGS = np.random.default_rng(4).normal(size=(N, 5))
DECODER = np.ones((D, 2), np.float32)


def fired(numbers: np.ndarray, tau: float = 0.5):
    return firings_of(
        VALUES[numbers], INDICES[numbers], numbers, LABELS[numbers],
        patches=range(1, TOKENS), d_sae=D, tau=tau,
    )  # fmt: skip


def gathered(numbers: np.ndarray, batch: int, meter: bool = False) -> Gathered:
    found = Gathered(SETTINGS, d_embedding=5 if meter else None)
    for start in range(0, len(numbers), batch):
        part = numbers[start : start + batch]
        found.add(fired(part), EMBEDDINGS[part] if meter else None)
    return found


@pytest.fixture(scope="module")
def whole() -> Gathered:
    return gathered(np.arange(N), 32)


def dense() -> np.ndarray:
    out = np.zeros((N, TOKENS, D), np.float32)
    np.put_along_axis(out, INDICES, VALUES, axis=2)
    return out


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_two_halves_merge_to_the_bits_of_the_whole(whole, batch):
    rng = np.random.default_rng(batch)
    order = rng.permutation(N)
    one, two = gathered(order[:90], batch), gathered(order[90:], 17)
    two.merge(one)
    mine, other = whole.state(), two.state()
    assert mine.keys() == other.keys()
    for name, array in mine.items():
        assert array.dtype == other[name].dtype
        assert array.tobytes() == other[name].tobytes(), name


def test_monosemanticity_in_the_same_pass_merges_too():
    one, two = gathered(np.arange(100), 30, True), gathered(np.arange(100, N), 9, True)
    one.merge(two)
    found = statistics_of(one, DECODER)["monosemanticity"]
    expected = monosemanticity(dense().astype(np.float64).mean(1), EMBEDDINGS)
    assert found == pytest.approx(expected, abs=1e-6, nan_ok=True)
    assert one.meters["latents"].result().numpy() == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_statistics_equal_those_of_dense_latents(whole):
    latents, found = dense(), statistics_of(whole, DECODER)
    means, peaks = latents.astype(np.float64).mean(1), latents.max(1)
    fires = peaks > 0
    assert found["frequency"] == pytest.approx(fires.mean(0), rel=1e-6)
    assert found["token_frequency"] == pytest.approx((latents > 0).mean((0, 1)), rel=1e-6)
    assert found["mean_activation"] == pytest.approx(
        means.sum(0) / np.maximum(fires.sum(0), 1), rel=1e-6
    )
    patches = latents[:, 1:].astype(np.float64)
    expected = patches.mean(1).sum(0) / np.maximum((patches > 0).any(1).sum(0), 1)
    assert found["patch_mean_activation"] == pytest.approx(expected, rel=1e-6)
    assert found["max_activation"].tolist() == peaks.max(0).tolist()
    assert found["histogram"].sum(1).tolist() == fires.sum(0).tolist()


def test_label_entropy_and_spread_are_those_of_the_ten_reference_images(whole):
    found, means = statistics_of(whole, DECODER), dense().astype(np.float64).mean(1)
    for latent in range(D):
        best = np.argsort(-means[:, latent].astype(np.float32), kind="stable")[:10]
        if (means[best, latent] == 0).any() or (LABELS[best] < 0).any():
            assert found["entropy"][latent] == -1
            continue
        shares = np.bincount(LABELS[best], weights=means[best, latent])
        shares = shares[shares > 0] / shares.sum()
        expected = -(shares * np.log(shares)).sum()
        assert found["entropy"][latent] == pytest.approx(expected, abs=1e-5)
        assert found["label_std"][latent] == pytest.approx(LABELS[best].std(), abs=1e-5)
    assert (found["entropy"] >= 0).any()


def test_class_counts_are_tokens_above_tau(whole):
    keys, tokens = whole.class_tokens.items()
    found = np.zeros((D, 7), np.int64)
    found.ravel()[keys] = tokens
    above = (dense() > 0.5).sum(1)
    expected = np.stack([above[label == LABELS].sum(0) for label in range(7)], axis=1)
    assert found.tolist() == expected.tolist()


def test_exemplars_are_the_strongest_and_a_fair_sample(whole):
    peaks, found = dense().max(1), exemplars_of(whole)
    for latent in range(D):
        firing = np.flatnonzero(peaks[:, latent])
        best = firing[np.argsort(-peaks[firing, latent], kind="stable")][:9]
        assert found["image_ids"][latent, : len(best)].tolist() == best.tolist()
        there = found["image_ids"][latent, 9:] >= 0
        drawn = found["image_ids"][latent, 9:][there]
        assert len(drawn) == len(set(drawn)) == min(30, len(firing))
        assert set(drawn) <= set(firing)
        values = found["activations"][latent, 9:][there]
        assert values.tolist() == sorted(values, reverse=True)
        assert values.tolist() == peaks[drawn, latent].tolist()


def test_patches_are_those_that_fire_strongest_first(whole):
    latents, found = dense(), exemplars_of(whole)
    ends = np.cumsum(found["counts"])
    for flat in np.flatnonzero(found["image_ids"] >= 0)[::7]:
        latent = flat // found["image_ids"].shape[1]
        image = found["image_ids"].ravel()[flat]
        part = slice(ends[flat] - found["counts"].ravel()[flat], ends[flat])
        row = latents[image, 1:, latent]
        assert set(found["patches"][part].tolist()) == set(np.flatnonzero(row).tolist())
        assert found["values"][part].tolist() == sorted(row[row > 0].astype(np.float16))[::-1]


def test_an_image_is_taken_once():
    found = gathered(np.arange(4), 2)
    with pytest.raises(ValueError, match="twice"):
        found.add(fired(np.arange(3, 5)))
    with pytest.raises(ValueError, match="share images"):
        found.merge(gathered(np.arange(3, 6), 3))
    with pytest.raises(ValueError, match="do not fit"):
        found.merge(Gathered(Settings(D, N, 7)))


def test_parts_on_disk_go_on_where_they_stopped(whole, tmp_path):
    about = {"sae_sha256": "ab"}
    assert load_parts(tmp_path, SETTINGS, about) is None
    one, two = gathered(np.arange(60), 20), gathered(np.arange(60, N), 20)
    save_part(tmp_path, "b", two, about)
    save_part(tmp_path, "a", one, about)
    merged = load_parts(tmp_path, SETTINGS, about)
    for name, array in whole.state().items():
        assert array.tobytes() == merged.state()[name].tobytes()
    save_part(tmp_path, "merged", merged, about)  # the parts within it are then passed over
    assert load_parts(tmp_path, SETTINGS, about).n_images == N
    with pytest.raises(ArtifactError, match="sae_sha256 'ab'"):
        load_parts(tmp_path, SETTINGS, {"sae_sha256": "cd"})
    with pytest.raises(ArtifactError, match="tau"):
        load_parts(tmp_path, Settings(D, N, 7, tau=0.1), about)
    path = parts_in(tmp_path)[0]
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ArtifactError, match="Delete it"):
        load_parts(tmp_path, SETTINGS, about)
    told = []
    left = load_parts(tmp_path, SETTINGS, about, damaged=lambda *of: told.append(of))
    assert [where for where, _ in told] == [path]
    assert left.n_images == N  # of the others; the pass looks at what is missing again
    remove_parts(tmp_path)
    assert not tmp_path.exists()


def test_meters_are_kept_in_parts(tmp_path):
    part = gathered(np.arange(50), 20, True)
    save_part(tmp_path, "a", part, {})
    again = load_parts(tmp_path, SETTINGS, {})
    assert np.array_equal(
        again.meters["latents"].result(), part.meters["latents"].result(), equal_nan=True
    )


def test_sums_do_not_depend_on_order():
    rng = np.random.default_rng(0)
    latent, values = rng.integers(0, 5, 4000), rng.random(4000) * 10.0 ** rng.integers(-9, 6, 4000)
    one, two = ExactSum(5), ExactSum(5)
    one.add(latent, values)
    order = rng.permutation(4000)
    for part in np.array_split(order, 13):
        two.add(latent[part], values[part])
    assert one.value().tobytes() == two.value().tobytes()
    expected = np.bincount(latent, weights=values)
    assert one.value() == pytest.approx(expected, rel=1e-12)


def test_tables_keep_the_n_best_whatever_the_order():
    rng = np.random.default_rng(1)
    latent, values = rng.integers(0, 6, 500), rng.integers(0, 40, 500).astype(np.float32)
    ranks = falling(values, np.arange(500))
    table = Table(6, 8, {"doubled": ((), np.float32)})
    for part in np.array_split(rng.permutation(500), 9):
        table.offer(
            latent[part], ranks[part], lambda rows, part=part: {"doubled": 2 * values[part][rows]}
        )
        table.state()
    state = table.state()
    for row in range(6):
        mine = np.flatnonzero(latent == row)
        best = mine[np.lexsort((mine, -values[mine]))][:8]
        assert image_numbers(state["ranks"])[row].tolist() == best.tolist()
        assert values_of(state["ranks"])[row].tolist() == values[best].tolist()
        assert state["doubled"][row].tolist() == (2 * values[best]).tolist()


def test_chance_is_fair_and_the_same_everywhere():
    ranks = by_chance(np.arange(20_000))
    chosen = image_numbers(np.sort(ranks)[:2000])
    assert abs(chosen.mean() - 10_000) < 400
    assert len(set(ranks.tolist())) == 20_000
    assert by_chance(np.array([7]))[0] == ranks[7]


def test_sparse_counts_add_up():
    counts, rng = SparseCounts(), np.random.default_rng(2)
    keys, amounts = rng.integers(0, 2**40, 300) % 97, rng.integers(1, 9, 300)
    for part in np.array_split(np.arange(300), 4):
        counts.add(keys[part], amounts[part])
    found = counts.items()
    assert found[0].tolist() == sorted(set(keys.tolist()))
    assert found[1].tolist() == [int(amounts[keys == key].sum()) for key in found[0]]


def test_neighbours_equal_the_dense_matrices():
    import torch

    rows = torch.randn(30, 8, generator=torch.Generator().manual_seed(0))
    ids, cosines = nearest_rows(rows, 5)
    unit = torch.nn.functional.normalize(rows, dim=1)
    full = (unit @ unit.T).fill_diagonal_(-2)
    assert ids.tolist() == full.topk(5).indices.tolist()
    assert cosines == pytest.approx(full.topk(5).values.numpy(), abs=1e-6)
    rng = np.random.default_rng(5)
    latents = np.stack([rng.permutation(20)[:6] for _ in range(40)]).astype(np.int32)
    latents[::3, 4:] = -1
    there = np.zeros((40, 20))
    for row, found in zip(there, latents, strict=True):
        row[found[found >= 0]] = 1
    both = there.T @ there
    score = both / np.sqrt(np.outer(np.diag(both), np.diag(both)))
    np.fill_diagonal(score, 0)
    ids, scores = cofiring_neighbours(latents, 20, 3)
    assert scores == pytest.approx(-np.sort(-score, axis=1)[:, :3], abs=1e-6)
    assert np.take_along_axis(score, ids.astype(int), 1) == pytest.approx(scores, abs=1e-6)
    assert nearest_rows(rows[:1], 3)[0].tolist() == [[-1, -1, -1]]


def test_rows_of_sparse_codes_are_those_of_dense_ones():
    found = fired(np.arange(20, 40))
    latents = dense()[20:40]
    image, latent = np.nonzero(latents.max(1))
    assert found.image.tolist() == image.tolist()
    assert found.latent.tolist() == latent.tolist()
    assert found.number.tolist() == (image + 20).tolist()
    assert found.maximum.tolist() == latents.max(1)[image, latent].tolist()
    matrix = sparse.csr_array((found.total, (found.image, found.latent)), shape=(20, D))
    assert matrix.toarray() == pytest.approx(latents.sum(1), rel=1e-5)
