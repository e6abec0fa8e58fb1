"""What the Latents tab is told of maps: those that are stored, why others are not there, what is near."""

import numpy as np
import pytest

from sae.concepts.atlas import MAPS
from sae.concepts.index import ConceptIndex
from sae.concepts.layout import MOST
from sae.ui.catalogue import Catalogue
from sae.ui.latents_desk import ADD_MAPS, LACKING, N_NEAR, LatentsDesk
from tests.small_page import D_SAE, small_world


def desk(index: ConceptIndex) -> LatentsDesk:
    backbone, _, _ = small_world()
    return LatentsDesk(backbone, None, Catalogue(index, D_SAE, (12, 12)))


@pytest.fixture(scope="module")
def index() -> ConceptIndex:
    """With places drawn by chance: what they are is not asked here."""
    _, _, made = small_world()
    chance, layout = np.random.default_rng(0), {}
    for by in MAPS:
        layout[f"{by}_xy"] = chance.integers(0, MOST, (D_SAE, 2)).astype(np.uint16)
        layout[f"{by}_groups"] = (np.arange(D_SAE) % 9 - 1).astype(np.int16)
    return ConceptIndex(made._content._replace(layout=layout))


def test_stored_maps_are_sent_with_the_groups_that_have_a_label(index):
    packed = desk(index).packed
    assert tuple(packed["maps"]) == MAPS
    assert packed["lacking"] == {}
    for by in MAPS:
        groups = packed["maps"][by]["groups"]
        labelled = [group for group in index.atlas.groups(by) if group.label]
        assert [(label, n) for label, n, _, _ in groups] == [(g.label, g.n) for g in labelled]


def test_a_map_that_is_not_there_has_a_sentence_and_a_command(index):
    bare = index._content._replace(layout={})
    lacking = desk(ConceptIndex(bare)).packed["lacking"]
    assert set(lacking) == set(MAPS)
    assert all(ADD_MAPS in why for why in lacking.values())
    alone = {**bare.neighbours, "cofiring_ids": np.full_like(bare.neighbours["cofiring_ids"], -1)}
    lacking = desk(ConceptIndex(bare._replace(neighbours=alone))).packed["lacking"]
    assert lacking["cofiring"] == LACKING["cofiring"]
    assert "patchlens index" in lacking["cofiring"]
    assert ADD_MAPS in lacking["meaning"]


def test_what_is_near_is_what_the_map_is_made_of(index):
    made = desk(index)
    latent = int(np.flatnonzero(~index.dead)[3])
    for by in ("cofiring", "decoder"):
        ids = [n.latent for n in index.neighbours(latent, by=by) if not index.dead[n.latent]]
        assert made.near({"latent": latent, "by": by}) == {"near": ids[:N_NEAR]}
    features = index.embeddings.astype(np.float32)
    near = made.near({"latent": latent, "by": "meaning"})["near"]
    cosines = features @ features[latent]
    others = [one for one in np.flatnonzero(~index.dead) if one != latent and features[one].any()]
    assert set(near) <= set(others)
    assert cosines[near].min() >= np.sort(cosines[others])[-N_NEAR] - 1e-6
    assert made.near({"latent": latent, "by": "frequency"}) == {"near": near}


@pytest.mark.parametrize("latent", [-1, D_SAE, None, "3", True, 1.5, []])
def test_no_such_concept_is_a_sentence(index, latent):
    with pytest.raises(ValueError, match="no such concept"):
        desk(index).near({"latent": latent, "by": "decoder"})
