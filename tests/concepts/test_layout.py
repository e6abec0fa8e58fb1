"""Maps of concepts: like ones lie together, twice the same, groups named by what they share, strict files."""

import json
from functools import cache

import numpy as np
import pytest
import torch

from sae.concepts.atlas import MAPS, MIN_NAMED, Atlas
from sae.concepts.build.assembly import build_index
from sae.concepts.content import LAYOUT, NOWHERE, IndexContent
from sae.concepts.index import ConceptIndex
from sae.concepts.layout import MOST, Places, places_of
from sae.concepts.nearest import nearest_rows
from sae.errors import ArtifactError
from sae.storage import SEAL, sealed
from tests.concepts.concept_parts import FakeBackbone, Reds, make_sae

N_KINDS, N_EACH = 6, 24
KIND = np.repeat(np.arange(N_KINDS), N_EACH)
N = len(KIND)


def directions() -> torch.Tensor:
    """A dictionary of six bundles of directions."""
    chance = np.random.default_rng(3)
    middles = np.linalg.qr(chance.standard_normal((32, N_KINDS)))[0].T
    return torch.from_numpy(middles[KIND] + 0.1 * chance.standard_normal((N, 32)))


def neighbours() -> tuple[np.ndarray, np.ndarray]:
    return nearest_rows(directions(), 12)


@cache
def bundles() -> Places:
    """The map of the whole dictionary."""
    return places_of(*neighbours(), np.ones(N, bool))


def nearest_on_map(xy: np.ndarray, k: int) -> np.ndarray:
    far = ((xy[:, None].astype(float) - xy[None].astype(float)) ** 2).sum(-1)
    np.fill_diagonal(far, np.inf)
    return np.argsort(far, axis=1, kind="stable")[:, :k]


def test_bundles_of_directions_lie_together_and_are_the_groups():
    places = bundles()
    assert (KIND[nearest_on_map(places.xy, 10)] == KIND[:, None]).all()
    assert places.xy.max() == MOST
    assert places.xy.min() == 0
    assert set(places.groups) - {-1} == set(range(places.groups.max() + 1))
    for group in range(places.groups.max() + 1):
        assert len(set(KIND[places.groups == group])) == 1, "a group is of one bundle"
    grouped = {KIND[one] for one in np.flatnonzero(places.groups >= 0)}
    assert grouped == set(range(N_KINDS)), "every bundle has a group"


def test_a_shuffled_dictionary_has_no_such_neighbours():
    ids, scores = neighbours()
    order = np.random.default_rng(0).permutation(N)
    places = places_of(order[ids[np.argsort(order)]], scores[np.argsort(order)], np.ones(N, bool))
    same = KIND[nearest_on_map(places.xy, 10)] == KIND[:, None]
    assert same.mean() < 0.4, "what is kept comes from the neighbours, not from the numbers"


def test_the_same_dictionary_gives_the_same_map():
    first, second = bundles(), places_of(*neighbours(), np.ones(N, bool))
    assert first.xy.tobytes() == second.xy.tobytes()
    assert first.groups.tobytes() == second.groups.tobytes()


def test_the_dead_and_the_lonely_have_no_place():
    ids, scores = neighbours()
    ids[5], scores[5] = -1, 0
    ids[ids == 5] = -1
    there = np.ones(N, bool)
    there[:3] = False
    places = places_of(ids, scores, there)
    nowhere = (places.xy == NOWHERE).all(1)
    assert np.flatnonzero(nowhere).tolist() == [0, 1, 2, 5]
    assert (places.groups[nowhere] == -1).all()
    assert ((places.xy == NOWHERE).any(1) == nowhere).all()


def test_one_latent_two_latents_and_none():
    for n in (0, 1, 2):
        ids = np.array([[1], [0]], np.int32)[:n]
        ids = np.where(ids < n, ids, -1)
        places = places_of(ids, np.ones((n, 1)), np.ones(n, bool))
        assert places.xy.shape == (n, 2)
        assert (places.groups == -1).all()


def content(names: list[str] | None = None, sure: float = 0.9) -> IndexContent:
    """An index's tables with the six bundles as decoder and as co-firing, and no text."""
    ids, scores = neighbours()
    named = [f"kind {kind}" for kind in KIND] if names is None else names
    texts = {"names": named, "sources": [""] * N, "scores": [0.0] * N, "confidences": [sure] * N}
    near = {"decoder_ids": ids, "decoder_cosines": scores.astype(np.float16)}
    near |= {"cofiring_ids": ids, "cofiring_scores": scores.astype(np.float16)}
    empty: dict = {}
    features = {"latents": np.zeros((N, 0), np.float16)}
    layout = {"decoder_xy": bundles().xy, "decoder_groups": bundles().groups}
    return IndexContent(empty, empty, empty, empty, near, features, empty, texts, [], [], layout)


def labels(made: IndexContent) -> list[str]:
    return [group.label for group in Atlas(made, np.zeros(N, bool)).groups("decoder")]


def test_a_group_is_called_after_the_names_that_its_concepts_agree_on():
    made = content()
    atlas = Atlas(made, np.zeros(N, bool))
    groups = atlas.groups("decoder")
    for number, group in enumerate(groups):
        members = np.flatnonzero(atlas.group_of("decoder") == number)
        assert group.label == f"kind {KIND[members[0]]}"
        assert group.n == len(members)
        middle = np.median(atlas.places("decoder")[members], axis=0)
        assert (group.x, group.y) == pytest.approx(tuple(middle))
    assert len(groups) >= N_KINDS


def test_a_group_without_agreement_is_called_nothing():
    assert not any(labels(content(sure=0.6))), "guesses name no group"
    assert not any(labels(content([f"name {n}" for n in range(N)])))
    assert not any(labels(content([""] * N)))
    place = np.arange(N) % N_EACH
    few = [
        f"kind {kind}" if at < MIN_NAMED - 1 else "" for kind, at in zip(KIND, place, strict=True)
    ]
    assert not any(labels(content(few)))
    pairs = [f"{'one' if at % 2 else 'two'} {kind}" for kind, at in zip(KIND, place, strict=True)]
    assert {tuple(sorted(label.split(", ")))[0][:3] for label in labels(content(pairs))} <= {
        "one",
        "two",
    }


def test_maps_that_cannot_be_made_are_not_offered():
    atlas = Atlas(content(), np.zeros(N, bool))
    assert atlas.possible == ("cofiring", "decoder")
    with pytest.raises(ValueError, match="maps by cofiring, decoder; got 'meaning'"):
        atlas.places("meaning")
    with pytest.raises(ValueError, match="got 'x'"):
        atlas.places("x")


@pytest.fixture(scope="module")
def index() -> ConceptIndex:
    made = build_index(Reds([0, 10, 20, 30] * 10), FakeBackbone(), make_sae(), batch=7)
    assert made.atlas.stored == ()
    return made


def test_maps_are_kept_bit_for_bit_and_through_new_names(index, tmp_path):
    index.with_layout().save_pretrained(tmp_path)
    again = ConceptIndex.from_pretrained(tmp_path)
    assert again.atlas.stored == index.atlas.possible == MAPS
    named = again.with_names(["a"] * 3, [""] * 3, [0.0] * 3)
    for by in MAPS:
        for other in (again, named):
            assert np.array_equal(other.atlas.places(by), index.atlas.places(by), equal_nan=True)
            assert np.array_equal(other.atlas.group_of(by), index.atlas.group_of(by))
    assert np.isnan(again.atlas.places("decoder")[2]).all(), "latent 2 is dead"
    assert not np.isnan(again.atlas.places("decoder")[:2]).any()


def test_an_index_of_an_older_version_opens_and_makes_its_maps_when_asked(index, tmp_path):
    index.with_layout().save_pretrained(tmp_path)
    index.save_pretrained(tmp_path)
    assert not (tmp_path / "concepts" / LAYOUT).exists(), "nothing of the newer index stays"
    old = ConceptIndex.from_pretrained(tmp_path)
    assert old.atlas.stored == ()
    assert old.atlas.places("decoder").shape == (3, 2)


def _damaged(arrays: dict, name: str, value: object) -> dict:
    changed = {key: array.copy() for key, array in arrays.items()}
    changed[name] = value(changed[name]) if callable(value) else value
    return changed


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("decoder_xy", lambda a: a.astype(np.int32), "decoder_xy int32"),
        ("decoder_xy", lambda a: a[:2], "decoder_xy uint16"),
        ("decoder_xy", lambda a: np.where([[0, 1]] * 3, a, np.uint16(NOWHERE)), "half a place"),
        ("decoder_groups", lambda a: a + np.int16(2), "gaps in decoder_groups"),
        ("decoder_groups", lambda a: a + np.int16(9), "outside its range"),
        ("decoder_groups", lambda a: a.astype(np.int32), "decoder_groups int32"),
        ("other_xy", np.zeros((3, 2), np.uint16), "no array 'other_groups'"),
    ],
)
def test_maps_that_do_not_fit_are_refused(index, tmp_path, name, value, message):
    broken = index._content._replace(layout=_damaged(index.atlas.table(), name, value))
    with pytest.raises(ArtifactError, match=message):
        ConceptIndex(broken).save_pretrained(tmp_path)


def test_no_altered_map_loads_and_a_lost_one_is_missed(index, tmp_path):
    index.with_layout().save_pretrained(tmp_path)
    path = tmp_path / "concepts" / LAYOUT
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    for place in range(start, len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ArtifactError, match=r"layout\.safetensors: found"):
            ConceptIndex.from_pretrained(tmp_path)
    path.unlink()
    with pytest.raises(ArtifactError, match=r"layout\.safetensors: found no such file"):
        ConceptIndex.from_pretrained(tmp_path)


def test_a_hash_of_an_unknown_file_is_refused(index, tmp_path):
    index.with_layout().save_pretrained(tmp_path)
    path = tmp_path / "concepts" / "index.json"
    said = json.loads(path.read_text())
    said["sha256"]["other.safetensors"] = "0"
    path.write_text(json.dumps(sealed({k: v for k, v in said.items() if k != SEAL})))
    with pytest.raises(ArtifactError, match="unknown key"):
        ConceptIndex.from_pretrained(tmp_path)
