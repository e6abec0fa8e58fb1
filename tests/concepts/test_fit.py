"""What is usual for a lens's own pictures: by hand, and in a file that is read strictly."""

import json

import numpy as np
import pytest

from sae.backbones.tokens import TokenView
from sae.concepts.fit import FILE, Fit, Look, fit_of, look_of, looks
from sae.errors import ArtifactError
from sae.ui.analysis import Analyst
from sae.ui.catalogue import Catalogue
from sae.ui.concepts_desk import ConceptsDesk
from sae.ui.dispatch import Dispatch
from sae.ui.lenses import Lens, Lenses
from tests.small_page import picture, small_world

OWN = [Look(0.1 + number / 1000, 10.0 + number / 10) for number in range(100)]


def test_a_look_by_hand():
    look = look_of(np.array([1.0, 1.0]), np.array([4.0, 6.0]), np.array([0, 3, 1, 2, 5, 4, 9.0]))
    assert look == pytest.approx((0.2, (9 + 5 + 4 + 3 + 2) / 5))
    assert look_of(np.zeros(2), np.zeros(2), np.zeros(0)) == (0, 0)


def test_limits_are_of_the_held_out_pictures_and_percentiles_of_the_own():
    held_out = [Look(one.unexplained + 0.5, one.strongest - 5) for one in OWN]
    fit = fit_of(OWN, held_out)
    assert sum(map(fit.is_outside, held_out)) == 2  # the highest share left, and the weakest
    assert not any(map(fit.is_outside, OWN))
    assert fit.usual() == pytest.approx((1 - 0.19405, 1 - 0.10495))
    assert fit.is_outside(Look(float("nan"), 12.0))
    with pytest.raises(ValueError, match="at least 20"):
        fit_of(OWN[:3], held_out)


def test_the_file_is_read_strictly(tmp_path):
    fit = fit_of(OWN, OWN)
    assert Fit.beside(tmp_path) is None
    fit.save(tmp_path)
    same = Fit.beside(tmp_path)
    assert same is not None
    assert same.most_unexplained == fit.most_unexplained
    np.testing.assert_allclose(same.strongest, fit.strongest, atol=1e-6)
    rows = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps({**rows, "least_strongest": 0.0}))
    with pytest.raises(ArtifactError):
        Fit.beside(tmp_path)


def test_the_page_measures_what_the_command_measured():
    backbone, sae, index = small_world()
    catalogue = Catalogue(index, sae.cfg.d_sae, TokenView(backbone, "patches").patch_grid)
    desk = ConceptsDesk(Analyst(backbone, sae), catalogue)
    (look,) = looks([picture(3)], backbone, sae, catalogue.always_on)
    assert desk.look(picture(3)) == pytest.approx(look, rel=0.01)  # the page's code has 8 bits


def test_a_foreign_picture_is_told_and_the_lens_that_knows_it_is_offered():
    backbone, sae, index = small_world()

    def asked(limit: float, of_other: float) -> dict:
        lenses = Lenses((Lens("one", "One", ""), Lens("two", "Two", "")))
        for name, most in (("one", limit), ("two", of_other)):
            desk = ConceptsDesk(Analyst(backbone, sae), Catalogue(index, sae.cfg.d_sae, (12, 12)))
            lenses.add(
                name, desk, fit_of(OWN, OWN)._replace(most_unexplained=most, least_strongest=0.0)
            )
        dispatch = Dispatch(lenses.turns)
        lenses.desks["one"].offer(dispatch)
        return dispatch.ask({"way": "open", "kind": "example", "data": "tiger"})

    assert asked(9.0, 9.0)["foreign"] is None
    told = asked(0.0, 9.0)["foreign"]
    assert "unlike those that this lens knows" in told["sentence"]
    assert told["other"] == {"name": "two", "title": "Two", "address": "two/"}
    assert asked(0.0, 0.0)["foreign"]["other"] is None
