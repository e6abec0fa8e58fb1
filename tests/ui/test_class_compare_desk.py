"""What the server answers to the Compare tab of a classifier, without Gradio."""

from pathlib import Path

import pytest

from sae import Backbone, SparseAutoencoder
from sae.adaptation.class_compare import ClassComparison
from sae.concepts.index import ConceptIndex
from sae.ui.analysis import Analyst
from sae.ui.catalogue import Catalogue
from sae.ui.class_compare_desk import ClassCompareDesk
from sae.ui.concepts_desk import ConceptsDesk
from sae.ui.dispatch import Dispatch
from sae.ui.python_code import Models, Opened, class_compare_code
from tests.small_classifier import CLASSES, save

PICTURE = {"kind": "exemplar", "data": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="module")
def desk(folder: Path) -> ClassCompareDesk:
    sae = SparseAutoencoder.from_pretrained(folder)
    backbone = Backbone.of(sae.cfg.backbone)
    index = ConceptIndex.from_pretrained(folder)
    analyst = Analyst(backbone, sae)
    catalogue = Catalogue(index, sae.cfg.d_sae, analyst.grid)
    comparison = ClassComparison(backbone, sae, index.names)
    return ClassCompareDesk(comparison, ConceptsDesk(analyst, catalogue), catalogue)


def test_shares_sum_to_the_margin_and_one_that_is_off_is_gone(desk, monkeypatch):
    dispatch = Dispatch()
    desk.offer(dispatch)
    asked = {"picture": PICTURE, "classes": [3, 1]}
    shown = dispatch.ask({"way": "class_explain", **asked})
    assert shown["classes"] == ["rocket", "tiger cat"]
    assert shown["numbers"] == [3, 1]
    (head,) = shown["heads"]
    total = sum(one["share"] for one in head["contributions"])
    total += head["start"] + head["rest"] + head["residual"]
    assert total == pytest.approx(head["margin"], abs=1e-5)
    first = shown["concepts"][0]
    assert first["activations"][0] == pytest.approx(shown["maps"]["scale"][0])
    with monkeypatch.context() as patched:
        patched.setattr(desk.comparison.backbone, "_forward", lambda _: pytest.fail("run again"))
        off = dispatch.ask({"way": "class_off", "off": [first["latent"]], **asked})
    assert off["scores"][0] == pytest.approx(head["margin"] - first["shares"][0], abs=1e-5)
    assert "problem" in dispatch.ask({"way": "class_off", "off": [10**6], **asked})
    for classes in ([1], [1, 99], ["cat", 1], [True, 0]):
        problem = dispatch.ask({"way": "class_explain", "picture": PICTURE, "classes": classes})
        assert "6 classes" in problem["problem"]
    same = dispatch.ask({"way": "class_explain", "picture": PICTURE, "classes": [1, 1]})
    assert same["problem"] == "The margin of 'tiger cat' and itself is 0; give two classes."
    assert dispatch.ask({"way": "compare_words"})["words"] == list(CLASSES)


def test_the_python_says_the_same(desk, folder):
    found = desk.comparison.explain(desk.concepts.picture(PICTURE), ("rocket", "tulip"))
    off = [found.concepts[0].latent]
    opened, models = Opened("picture", ()), Models(str(folder), None, True)
    code = class_compare_code(models, opened, ("rocket", "tulip"), off)
    said: list[tuple] = []
    names = {"picture": desk.concepts.picture(PICTURE), "print": lambda *row: said.append(row)}
    exec(compile(code, "taken", "exec"), names)
    assert said[0][:2] == ("rocket", "tulip")
    assert said[0][2] == pytest.approx(found.attribution.score)
    assert said[-1][0] == pytest.approx(desk.comparison.switched_off(found, off).score)
