"""A head from outside the package, as docs/extending.md says: registered, made, saved and loaded."""

import argparse
import json

import pytest
import torch
from torch import nn

from sae.adaptation import files
from sae.adaptation.files import load_head, save_head
from sae.adaptation.heads import HEADS, Head, register_head, template_features
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
        assert bool(head.epochs) == bool(head.learning_rate) == bool(list(made.parameters()))


def _words():
    known = task("wider")
    names = {"base": CLASSES, "templates": known.templates, "start": "a photo"}
    return argparse.Namespace(**names, lead="of", tail="")
