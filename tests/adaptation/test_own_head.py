"""A head from outside the package, as docs/extending.md says: registered, made, saved and loaded."""

import argparse
import inspect
import json

import pytest
import torch
from torch import nn

from sae.adaptation import files
from sae.adaptation.files import load_head, save_head
from sae.adaptation.heads import HEADS, CoOpHead, Head, LinearHead, register_head, template_features
from sae.errors import ArtifactError
from sae.world.tasks import TASKS, task
from tests.adaptation.small import CLASSES, TEMPLATES, pictures, small_parts


class ShiftedHead(Head):
    """Zero-shot with a learned weight for each width of the features."""

    kind, label = "shifted", "Shifted words"
    learning_rate, epochs = 1e-2, 3

    def __init__(self, class_names, *, templates, d_proj):
        super().__init__(class_names, templates=templates, d_proj=d_proj)
        self.gain = nn.Parameter(torch.ones(d_proj))

    @classmethod
    def fresh(cls, parts, words, options):  # noqa: ARG003
        return cls(words.base, templates=words.templates, d_proj=parts.d_proj)

    def class_weights(self, parts, class_names):
        return template_features(parts, class_names, self.settings["templates"]) * self.gain


@pytest.fixture
def registered():
    yield register_head(ShiftedHead)
    HEADS.pop("shifted", None)


@pytest.fixture(scope="module")
def parts():
    return small_parts()


def test_it_is_saved_and_loaded_by_its_kind(parts, registered, tmp_path):
    words = argparse.Namespace(base=CLASSES, templates=TEMPLATES, start="", lead="", tail="")
    head = HEADS["shifted"].fresh(parts, words, None)
    with torch.no_grad():
        head.gain.copy_(torch.linspace(0, 2, 16))
    save_head(tmp_path, head, parts)
    assert json.loads((tmp_path / "config.json").read_text())["kind"] == "shifted"
    again = load_head(tmp_path, parts).head
    assert isinstance(again, registered)
    images = parts.image_features(pictures(2))
    torch.testing.assert_close(
        again.classifier(parts).logits(images), head.classifier(parts).logits(images)
    )


def test_it_is_listed_with_its_label(parts, registered, tmp_path):
    head = registered(CLASSES, templates=TEMPLATES, d_proj=16)
    save_head(tmp_path / TASKS[0].name / "shifted", head, parts)
    shown = files.list_tasks(tmp_path)[0]["heads"]
    assert [(row["name"], row["label"]) for row in shown] == [
        ("zero_shot", "Zero-shot (as it is)"),
        ("shifted", "Shifted words"),
    ]
    assert files.open_head(TASKS[0].name, "shifted", parts, tmp_path).head.kind == "shifted"


@pytest.mark.parametrize("damaged", [False, True])
def test_a_head_that_knows_its_own_classes_only_is_listed_as_one(parts, request, tmp_path, damaged):
    @register_head
    class OwnClasses(ShiftedHead):
        kind, label, any_classes = "own_classes", "Of its own", False

    request.addfinalizer(lambda: HEADS.pop("own_classes"))
    root = tmp_path / TASKS[0].name
    save_head(root / "own_classes", OwnClasses(CLASSES, templates=TEMPLATES, d_proj=16), parts)
    save_head(root / "linear", LinearHead(CLASSES, d_proj=16), parts)
    for specific in (False, True):
        coop = CoOpHead(CLASSES, d_text=32, class_specific=specific)
        save_head(root / f"coop_{specific}", coop, parts)
    if damaged:  # is told when it is chosen: nobody can say what it takes
        (root / "linear" / "config.json").write_text("{", encoding="utf-8")
    rows = files.list_tasks(tmp_path)[0]["heads"]
    assert {row["name"]: row["any_classes"] for row in rows} == {
        "zero_shot": True,
        "own_classes": False,
        "linear": damaged,
        "coop_False": True,
        "coop_True": False,
    }


def test_without_it_the_file_says_which_kinds_are_known(parts, tmp_path):
    save_head(tmp_path, ShiftedHead(CLASSES, templates=TEMPLATES, d_proj=16), parts)
    with pytest.raises(ArtifactError, match="shifted.*zero_shot, coop, vpt, maple, linear"):
        load_head(tmp_path, parts)


def test_what_cannot_be_registered():
    with pytest.raises(ValueError, match="'coop' is CoOpHead's; give another kind"):
        register_head(type("Other", (ShiftedHead,), {"kind": "coop"}))
    for wrong in ({"kind": "my head"}, {"label": ""}, {"kind": None}):
        with pytest.raises(ValueError, match="expected a name such as"):
            register_head(type("Other", (ShiftedHead,), wrong))


def test_every_head_is_told_in_one_table(parts):
    assert list(HEADS) == ["zero_shot", "coop", "vpt", "maple", "linear"]
    options = argparse.Namespace(n_ctx=2, depth=None, class_specific=False, position="end")
    for kind, head in HEADS.items():
        made = head.fresh(parts, _words(), options)
        assert made.kind == kind
        assert head.label
        assert head.weight_decay_share > 0
        learns = "n_ctx" in made.settings
        assert head.usual_n_ctx == (
            inspect.signature(head).parameters["n_ctx"].default if learns else None
        )
        assert bool(head.epochs) == bool(head.learning_rate) == bool(list(made.parameters()))


def _words():
    known = task("wider")
    names = {"base": CLASSES, "templates": known.templates, "start": "a photo"}
    return argparse.Namespace(**names, lead="of", tail="")
