"""Search finds by name, meaning, picture, region, latent and statistic, in any script."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from sae.concepts.build.assembly import build_index
from sae.concepts.build.naming import name_by_text
from sae.concepts.index import ConceptIndex
from sae.concepts.search import NameSearch
from sae.errors import ImageError
from tests.concepts.concept_parts import FakeBackbone, Reds, make_sae


class Blind(FakeBackbone):
    has_text = False


@pytest.fixture(scope="module")
def index() -> ConceptIndex:
    """Latents 0 and 1 fire on red pictures, 2 to 5 never."""
    built = build_index(Reds([40, 90, 200] * 8), FakeBackbone(), make_sae(3))
    return name_by_text(built, FakeBackbone(), ["red", "green"])


def names(found: list) -> list[tuple[str, float]]:
    return [(hit.name, round(hit.score, 2)) for hit in found]


def test_names_by_whole_words_and_their_beginnings_never_from_within():
    names = ["striped cat", "cat", "", "catfish", "scat", "dog", "cat", "cat-flap", "big catfish"]
    search = NameSearch(names, np.arange(9))
    expected = [(6, 1.0), (1, 1.0), (7, 0.9), (0, 0.8), (3, 0.75), (8, 0.7)]
    assert search.find("cat", 9) == expected
    assert NameSearch(["sky background"], np.zeros(1)).find("round", 9) == []
    assert search.find("CAT ", 2) == [(6, 1.0), (1, 1.0)]
    assert search.find("zebra", 3) == []


def test_numbers_are_names_too_and_order_says_who_comes_first_among_equals():
    search = NameSearch(["route 2", "cat", "", "2", "cat"], np.array([0, 0.2, 0, 0, 0.9]))
    assert search.find("2", 9) == [(2, 1.0), (3, 1.0), (0, 0.8)]
    assert search.find("#4", 9) == [(4, 1.0)]
    assert search.find("5", 9) == []
    assert search.order.tolist() == [3, 2, 5, 0, 1]
    assert [row for row, _ in search.find("cat", 9)] == [4, 1]


def test_names_spelt_alike_come_below_all_others():
    search = NameSearch(["stripes background", "snow background", "tiger"], np.zeros(3))
    found = search.find("striped", 3)
    assert [entry for entry, _ in found] == [0]
    assert 0 < found[0][1] < NameSearch.LITERAL


@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("чайка", "ЧАЙ"),
        ("縞模様", "縞"),
        ("straße", "STRASSE"),
        ("قطة", "قط"),
        ("é", "e\u0301"),
        ("🦊", "🦊"),
    ],
)
def test_names_in_other_scripts(index, name, query):
    named = index.with_names([name, "x", "", "", "", ""], [""] * 6, [1.0] * 6, [1.0] * 6)
    assert named.searcher.by_name(query)[0].name == name


def test_text_goes_by_name_first_then_by_meaning(index):
    found = index.search("red", k=2, backbone=FakeBackbone())
    assert [(hit.latent, hit.name, hit.by) for hit in found] == [
        (0, "red", "name"),
        (1, "red", "name"),
    ]
    meant = index.search("red colour", k=3, backbone=FakeBackbone())
    assert [hit.by for hit in meant] == ["meaning", "meaning"]
    direction = FakeBackbone().text_features(["red", ""]).numpy()
    expected = index.embeddings[0].astype(np.float32) @ (direction[0] - direction[1])
    assert meant[0].score == pytest.approx(expected, abs=1e-3)
    green = index.searcher.by_meaning("green", 1, backbone=FakeBackbone())
    assert green[0].score < 0.1


def test_words_that_the_tower_does_not_know_are_searched_by_spelling(index):
    assert index.searcher.by_meaning("unheard of", backbone=FakeBackbone()) == []
    assert index.searcher.by_meaning("<<>>", backbone=FakeBackbone()) == []
    known = index.searcher.unknown_words("<red> unheard red", backbone=FakeBackbone())
    assert known == ["unheard"]
    found = index.search("ret", backbone=FakeBackbone())
    assert [(hit.name, hit.by) for hit in found] == [("red", "name"), ("red", "name")]


def test_pictures_and_regions_by_features(index):
    picture = Image.new("RGB", (8, 8), (200, 0, 0))
    found = index.search(picture, k=2, backbone=FakeBackbone())
    assert {hit.by for hit in found} == {"image"}
    part = index.searcher.like_image(picture, 2, patches=[0, 1], backbone=FakeBackbone())
    assert {hit.by for hit in part} == {"region"}
    for wrong in ([], [4], [-1]):
        with pytest.raises(ValueError, match="0 to 3"):
            index.searcher.like_image(picture, patches=wrong, backbone=FakeBackbone())


def test_what_fires_in_a_region(index):
    picture = Image.new("RGB", (8, 8), (100, 0, 0))
    given = {"backbone": FakeBackbone(), "sae": make_sae(3)}
    found = index.searcher.fires_on(picture, 5, patches=[3], **given)
    everywhere = index.searcher.fires_on(picture, 5, patches=[0], **given)
    assert found == everywhere == []  # both latents are always on
    calm = ConceptIndex(index._content)
    calm.dense = np.zeros(6, bool)
    found = calm.searcher.fires_on(picture, 5, patches=[3], **given)
    assert [(hit.latent, round(hit.score, 3)) for hit in found] == [(1, 1.0), (0, 0.5)]
    assert [h.latent for h in calm.searcher.fires_on(picture, 5, patches=[0], **given)] == [0]


def test_an_sae_of_the_summary_token_is_asked_for_whole_pictures_alone(index):
    sae = make_sae(3)
    sae.cfg = replace(sae.cfg, backbone=replace(sae.cfg.backbone, tokens="cls"))
    given = {"backbone": FakeBackbone(), "sae": sae}
    calm = ConceptIndex(index._content)
    calm.dense = np.zeros(6, bool)
    picture = Image.new("RGB", (8, 8), (100, 0, 0))
    assert [hit.latent for hit in calm.searcher.fires_on(picture, **given)] == [0]
    with pytest.raises(ValueError, match="CLS token alone"):
        calm.searcher.fires_on(picture, patches=[0], **given)


def test_near_a_latent(index):
    assert [hit.latent for hit in index.searcher.near(0, 1)] == [1]
    assert index.searcher.near(0, 3, by="cofiring")[0].latent == 1
    assert 0 not in [hit.latent for hit in index.searcher.near(0, 3, by="meaning")]
    with pytest.raises(IndexError, match="0 to 5"):
        index.searcher.near(6, by="meaning")
    with pytest.raises(ValueError, match="cofiring"):
        index.searcher.near(0, by="magic")


def test_statistics_sort_and_filter(index):
    found = index.searcher.by_statistic("max_activation")
    assert [hit.latent for hit in found] == [0, 1]
    assert found[0].score == 20.0
    assert [h.latent for h in index.searcher.by_statistic("max_activation", falling=False)] == [
        1,
        0,
    ]
    some = index.searcher.by_statistic("confidence", where={"max_activation": (0.5, 2)})
    assert [hit.latent for hit in some] == [1]
    extra = index.with_statistics({"steerability": [np.nan, 0.4, 1, 1, 1, 1]})
    assert [hit.latent for hit in extra.searcher.by_statistic("steerability")] == [1]
    with pytest.raises(ValueError, match="no statistic 'colour'"):
        index.searcher.by_statistic("colour")


@pytest.mark.parametrize("query", ["", "  ", None, 3, ["red"]])
def test_nothing_to_search_for(index, query):
    with pytest.raises(ValueError, match="Nothing to search for"):
        index.search(query)


def test_k_must_be_a_number_of_concepts(index):
    for k in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match="at least 1"):
            index.search("red", k)
    assert len(index.search("red", 10_000, backbone=FakeBackbone())) == 2


def test_without_a_text_tower_names_alone_are_searched():
    built = build_index(Reds([40, 90]), Blind(), make_sae())
    named = built.with_names(["striped", "", ""], ["labels", "", ""], [1.0, 0, 0], [1.0, 0, 0])
    assert names(named.search("striped", k=5)) == [("striped", 1.0)]
    assert named.search("ocean") == []
    with pytest.raises(ValueError, match="no text tower"):
        named.searcher.by_meaning("striped")
    with pytest.raises(ValueError, match="no text tower"):
        named.search(Image.new("RGB", (4, 4)))


def test_a_tower_of_another_width_is_refused(index):
    class Wide(FakeBackbone):
        def text_features(self, texts):
            import torch

            return torch.eye(7)[[len(text) % 7 for text in texts]]

    with pytest.raises(ValueError, match="width 7"):
        index.searcher.by_meaning("something red", backbone=Wide())


def test_a_damaged_picture_is_an_image_error():
    with pytest.raises(ImageError):
        Reds([-1])[0]
