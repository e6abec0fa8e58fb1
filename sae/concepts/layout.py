"""Where concepts lie on a map on which like ones are neighbours, and the groups that they form there.

Knows latents' nearest neighbours and numbers; knows no names, files or screens (`sae.concepts.atlas` joins
them). A map is t-SNE over the graph of nearest neighbours that an index holds already, so that it takes
memory of the order of its latents and the time of some hundred passes over them; the same graph gives the
same map. Groups are the densest spots of a map, by HDBSCAN; most concepts need not be in any.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int, Int16, Num, UInt16
from scipy import sparse

from sae.concepts.content import NOWHERE

MOST = NOWHERE - 1
"""The largest coordinate."""
MIN_GROUP = 8
"""Concepts that a group has at least."""
_SMOOTHINGS = 200
_EXAGGERATED, _STEPS = 250, 500
_BIG = 5000
_DENSE = 5
"""Neighbours that a place's density is measured by."""


class Places(NamedTuple):
    """One map."""

    xy: UInt16[np.ndarray, "d_sae 2"]
    """0 to MOST across and down, or NOWHERE twice."""
    groups: Int16[np.ndarray, " d_sae"]
    """Number of the group, -1 for none."""


def places_of(
    ids: Int[np.ndarray, "d_sae n"],
    scores: Num[np.ndarray, "d_sae n"],
    there: Bool[np.ndarray, " d_sae"],
) -> Places:
    """The map of the latents `there`, from their nearest neighbours: ids, -1 for none, and scores.

    Latents of which no other is a neighbour get no place.
    """
    graph = _graph(ids, scores, there)
    linked = np.flatnonzero(np.diff(graph.indptr))
    xy = np.full((len(ids), 2), NOWHERE, np.uint16)
    groups = np.full(len(ids), -1, np.int16)
    if len(linked):
        points = _points(sparse.csr_array(graph[linked][:, linked]))
        xy[linked], groups[linked] = _in_square(points), _groups(points)
    return Places(xy, groups)


def _graph(ids: np.ndarray, scores: np.ndarray, there: np.ndarray) -> sparse.csr_array:
    """How much two latents attract each other: what each gives its neighbours sums up to 1."""
    row, column = np.nonzero((ids >= 0) & there[:, None])
    other = ids[row, column]
    kept = there[other]
    row, other = row[kept], other[kept]
    weight = np.maximum(scores[row, column[kept]].astype(np.float64), 1e-6)
    given = np.bincount(row, weights=weight, minlength=len(ids))
    graph = sparse.csr_array((weight / given[row], (row, other)), shape=(len(ids), len(ids)))
    return sparse.csr_array(graph + graph.T)


def _points(graph: sparse.csr_array) -> Float64[np.ndarray, "n 2"]:
    """t-SNE (van der Maaten 2008) of a symmetric graph, begun from its slowest waves."""
    from openTSNE import TSNEEmbedding
    from openTSNE.affinity import Affinities

    affinities = Affinities()
    affinities.P = sparse.csr_matrix(graph / graph.sum())
    start = _waves(graph)
    way = {"negative_gradient_method": "fft" if len(start) > _BIG else "bh"}
    settings: dict[str, Any] = {**way, "n_jobs": 1, "learning_rate": "auto"}
    points = TSNEEmbedding(start, affinities, **settings)
    for steps, exaggeration, momentum in ((_EXAGGERATED, 12, 0.5), (_STEPS, 1, 0.8)):
        points = points.optimize(steps, exaggeration=exaggeration, momentum=momentum)
    return np.asarray(points, np.float64)


def _waves(graph: sparse.csr_array) -> Float64[np.ndarray, "n 2"]:
    """Two numbers a node that change least along the graph: random ones, smoothed again and again."""
    weight = np.asarray(graph.sum(axis=0)).ravel()
    chance = np.random.default_rng(0)
    waves = chance.standard_normal((len(weight), 2))
    for _ in range(_SMOOTHINGS):
        waves = (waves + (graph @ waves) / weight[:, None]) / 2
        waves -= np.average(waves, axis=0, weights=weight)
        waves, _ = np.linalg.qr(waves) if len(waves) > 2 else (waves, None)
    size = np.maximum(waves.std(axis=0), 1e-12)
    # what hangs together with nothing else would lie in one point
    return 1e-4 * (waves / size + 0.01 * chance.standard_normal(waves.shape))


def _in_square(points: Float64[np.ndarray, "n 2"]) -> UInt16[np.ndarray, "n 2"]:
    """Points as coordinates 0 to MOST, centred, with one scale for both axes."""
    low, high = points.min(axis=0), points.max(axis=0)
    room = max(float((high - low).max()), 1e-12)
    share = (points - (low + high) / 2) / room + 0.5
    return np.rint(np.clip(share, 0, 1) * MOST).astype(np.uint16)


def _groups(points: Float64[np.ndarray, "n 2"]) -> Int16[np.ndarray, " n"]:
    """HDBSCAN (Campello 2013); small and many, as they are to be read from near."""
    smallest = max(MIN_GROUP, round(len(points) ** 0.5 / 4))
    if len(points) < 2 * smallest:
        return np.full(len(points), -1, np.int16)
    from sklearn.cluster import HDBSCAN

    model = HDBSCAN(
        min_cluster_size=smallest,
        min_samples=_DENSE,
        cluster_selection_method="leaf",
        copy=True,
    )
    return np.minimum(model.fit_predict(points), np.iinfo(np.int16).max).astype(np.int16)
