"""What the server answers to the Steer tab of a classifier, without Gradio."""

from pathlib import Path

import pytest

from sae import Backbone, SparseAutoencoder
from sae.concepts.index import ConceptIndex
from sae.steering import ClassSteerer, Edit, SteerRequest
from sae.ui.analysis import Analyst
from sae.ui.catalogue import Catalogue
from sae.ui.class_desk import MAX_SEEN, ClassDesk
from sae.ui.concepts_desk import ConceptsDesk
from sae.ui.dispatch import Dispatch
from sae.ui.options import load, parse
from sae.ui.python_code import Models, Opened, classes_code
from tests.small_classifier import CLASSES, save

PICTURE = {"kind": "exemplar", "data": 3}


def request(*edits: dict) -> dict:
    return {"prompt": "describe the image", "edits": list(edits), "error_term": True}


def asked(way: str, *edits: dict, **more: object) -> dict:
    return {"way": way, "picture": PICTURE, "steer": request(*edits), **more}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="module")
def desk(folder: Path) -> ClassDesk:
    sae = SparseAutoencoder.from_pretrained(folder)
    backbone = Backbone.of(sae.cfg.backbone)
    index = ConceptIndex.from_pretrained(folder)
    analyst = Analyst(backbone, sae)
    catalogue = Catalogue(index, sae.cfg.d_sae, analyst.grid)
    steerer = ClassSteerer(backbone, sae, index=index)
    return ClassDesk(steerer, ConceptsDesk(analyst, catalogue), catalogue)


@pytest.fixture(scope="module")
def dispatch(desk: ClassDesk) -> Dispatch:
    dispatch = Dispatch()
    desk.offer(dispatch)
    return dispatch


def test_bars_are_the_librarys_answer_and_come_without_the_tower(desk, dispatch, monkeypatch):
    plain = dispatch.ask(asked("bars"))
    assert plain["control"] is None
    assert plain["original"] == plain["classes"][0]["name"] in CLASSES
    seen = desk.steerer.prepare(desk.concepts.picture(PICTURE))
    monkeypatch.setattr(desk.steerer.backbone, "_forward", lambda _: pytest.fail("run again"))
    edit = {"latent": 5, "mode": "set", "strength": 1.5}
    moved = dispatch.ask(asked("bars", edit))
    expected = desk.steerer.classify(seen, [Edit(5, "set", 1.5)], control=True).to_json(6)
    assert {name: moved[name] for name in expected} == expected
    assert len(desk._seen) == 1 <= MAX_SEEN


def test_what_keeps_a_class_from_being_said_is_switched_off_where_it_fires(desk, dispatch):
    word = dispatch.ask(asked("bars"))["original"]
    found = dispatch.ask(asked("class_candidates", word=word, less=True))
    seen = desk.steerer.prepare(desk.concepts.picture(PICTURE))
    values, indices = seen.activations.code
    firing = set(indices[values > 0].tolist())
    assert found["means"] == [word]
    assert found["found"]
    for one in found["found"]:
        assert one["latent"] in firing
        assert one["edit"]["strength"] == 0
        assert one["after"] < one["before"]
    more = dispatch.ask(asked("class_candidates", word="CAT"))
    assert more["means"] == ["tabby cat", "tiger cat"]
    ranked = [one["after"] for one in more["found"]]
    assert ranked == sorted(ranked, reverse=True)


def test_an_unknown_class_is_one_sentence(dispatch):
    edit = {"latent": 5, "strength": 1.0}
    for way in ("class_candidates", "class_ladder"):
        problem = dispatch.ask(asked(way, edit, word="school bas"))["problem"]
        assert problem.startswith("There is no class 'school bas' among the 6 of this classifier;")
        assert problem.endswith("such as school bus.")
    ladder = dispatch.ask(asked("class_ladder", edit, word="rocket"))
    assert [row["dose"] for row in ladder["doses"]] == [-2, -1, 0, 1, 2]
    assert dispatch.ask({"way": "class_words"})["words"] == list(CLASSES)


def test_the_python_says_what_the_page_says(desk, dispatch, folder):
    edit = {"latent": 5, "mode": "set", "strength": 1.5}
    opened = Opened("picture", ())
    code = classes_code(
        Models(str(folder), None, True), opened, SteerRequest.from_json(request(edit))
    )
    said: list[tuple] = []
    names = {"picture": desk.concepts.picture(PICTURE), "print": lambda *row: said.append(row)}
    exec(compile(code, "taken", "exec"), names)
    shown = dispatch.ask(asked("bars", edit))["classes"]
    assert said[0] == pytest.approx(tuple(shown[0].values()))


def test_a_classifier_without_a_language_model_is_what_the_tab_asks(folder):
    loaded = load(parse(["--sae", str(folder), "--device", "cpu"], {}))
    assert isinstance(loaded.steerer, ClassSteerer)
    assert loaded.steerer.units == "max"
