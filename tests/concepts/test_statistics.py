"""One table of statistics: what builds, stores, searches and shows them reads it; others may add to it."""

import base64

import numpy as np
import pytest

from sae.concepts import statistics
from sae.concepts.build.assembly import build_index
from sae.concepts.index import ConceptIndex
from sae.concepts.statistics import (
    HISTOGRAM,
    Doubt,
    Facts,
    Statistic,
    register_statistic,
    required,
    table,
)
from sae.hub import BUNDLED
from sae.ui.catalogue import Catalogue
from sae.ui.latents_desk import LatentsDesk
from tests.concepts.concept_parts import FakeBackbone, Reds, make_sae

SHOWN = ["frequency", "mean", "maximum", "entropy", "monosemanticity", "steerability"]


def unevenness(facts: Facts) -> np.ndarray:
    """Largest activation over the mean one of the images in which it fires; NaN for dead latents."""
    with np.errstate(invalid="ignore"):
        return facts.maximum * facts.images / facts.mean_sum


@pytest.fixture
def own(monkeypatch):
    """A statistic that is registered from outside, for one test."""
    monkeypatch.setattr(statistics, "_table", dict(statistics._table))
    one = Statistic(
        "unevenness",
        "Unevenness",
        "strongest against mean",
        compute=unevenness,
        column="Uneven",
        colour=True,
        doubt=Doubt("it is very uneven", above=4),
    )
    register_statistic(one)
    return one


def test_a_statistic_of_ones_own_is_built_stored_searched_and_in_tables(own, tmp_path):
    build_index(Reds([20, 10, 0]), FakeBackbone(), make_sae()).save_pretrained(tmp_path)
    index = ConceptIndex.from_pretrained(tmp_path)
    # latent 0 fires evenly with 2 and 1 on all 5 tokens, latent 1 with 1 on one token of 5
    expected = [2 / 1.5, 5.0, np.nan]
    assert index.statistics[own.name] == pytest.approx(expected, nan_ok=True)
    assert index.to_pandas()[own.name].tolist() == pytest.approx(expected, nan_ok=True)
    assert [hit.latent for hit in index.searcher.by_statistic(own.name)] == [1, 0]
    assert index.concept(1).statistics[own.name] == pytest.approx(5.0)


def test_a_statistic_of_ones_own_is_a_column_a_colour_and_on_the_card(own):
    index = build_index(Reds([20, 10, 0]), FakeBackbone(), make_sae())
    catalogue = Catalogue(index, 3, (2, 2))
    packed = LatentsDesk(FakeBackbone(), None, catalogue).packed
    figure = packed["figures"][own.name]
    codes = np.frombuffer(base64.b64decode(figure["codes"]), np.uint16)
    assert codes.tolist() == [0, 65534, 65535]
    assert (figure["low"], figure["high"]) == pytest.approx((4 / 3, 5.0))
    assert catalogue.card(0)["doubts"] == [
        "it fired on very few pictures, so its examples may mislead"
    ]
    assert catalogue.card(1)["doubts"][-1] == "it is very uneven"
    assert catalogue.card(2)["doubts"] == []
    about = next(one for one in catalogue.statistics() if one["name"] == own.name)
    assert (about["label"], about["column"]) == ("Unevenness", "Uneven")
    assert catalogue.card(1)["figures"][own.name] == pytest.approx(5.0)
    assert catalogue.card(2)["figures"][own.name] is None


def test_what_the_page_is_told_of_statistics():
    index = ConceptIndex.from_pretrained(BUNDLED / "sae")
    catalogue = Catalogue(index, len(index), index.grid)
    told = {one["name"]: one for one in catalogue.statistics()}
    assert list(told) == [*SHOWN[:5], "confidence", SHOWN[5]]
    assert f"{index.n_images:,} pictures" in told["frequency"]["explanation"]
    assert told["monosemanticity"]["explanation"].endswith("raw neurons 0.26)")
    assert set(told) == set(LatentsDesk(None, None, catalogue).packed["figures"])
    assert [name for name, one in told.items() if one["rising"]] == ["entropy"]
    assert catalogue.matching("#3", 2)[0] == 3
    assert Catalogue(None, 9, (2, 2)).statistics() == []


def test_an_index_with_a_statistic_that_nobody_knows_opens_too(own, tmp_path, monkeypatch):
    build_index(Reds([20, 10, 0]), FakeBackbone(), make_sae()).save_pretrained(tmp_path)
    monkeypatch.undo()
    assert own not in table()
    index = ConceptIndex.from_pretrained(tmp_path)
    assert own.name in index.to_pandas().columns
    assert [hit.latent for hit in index.searcher.by_statistic(own.name)] == [1, 0]


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    "wrong",
    [
        Statistic("unevenness", "again", ""),
        Statistic("other", "its name in links is taken", "", key="mean"),
        Statistic(HISTOGRAM, "no statistic", ""),
        Statistic("", "no name", ""),
        Statistic("necessary", "every index would need it", "", required=True),
    ],
    ids=lambda statistic: statistic.label,
)
def test_what_cannot_be_registered(wrong):
    before = table()
    with pytest.raises(ValueError, match="expected a new name"):
        register_statistic(wrong)
    assert table() == before


def test_numbers_of_a_wrong_shape_are_refused(monkeypatch):
    monkeypatch.setattr(statistics, "_table", dict(statistics._table))
    register_statistic(Statistic("wrong", "wrong", "", compute=lambda facts: facts.decoder))
    with pytest.raises(ValueError, match=r"'wrong' gives numbers of shape \(3, 2\)"):
        build_index(Reds([20]), FakeBackbone(), make_sae())


def test_the_bundled_index_has_every_required_statistic_and_knows_the_others():
    index = ConceptIndex.from_pretrained(BUNDLED / "sae")
    assert set(required()) <= set(index.statistics) <= {one.name for one in table()}
    assert list(index.to_pandas().columns)[7:9] == ["frequency", "token_frequency"]
    assert [one.short for one in table() if one.column] == SHOWN
