"""What the server answers to the Compare tab, without Gradio."""

from pathlib import Path

import pytest
import torch

from sae import Backbone, SparseAutoencoder
from sae.adaptation.compare import Comparison
from sae.adaptation.files import ROOT
from sae.ui.analysis import Analyst
from sae.ui.catalogue import Catalogue
from sae.ui.compare_desk import N_SAMPLES, CompareDesk
from sae.ui.concepts_desk import ConceptsDesk
from sae.ui.dispatch import Dispatch

ASKED = {
    "picture": {"kind": "task", "data": ["fluent", "base", 3]},
    "task": "fluent",
    "split": "base",
    "heads": ["zero_shot", "zero_shot"],
}


def desk_of(sae: SparseAutoencoder, root: Path = ROOT) -> CompareDesk:
    backbone = Backbone.from_pretrained("bundled")
    analyst = Analyst(backbone, sae)
    catalogue = Catalogue(None, sae.cfg.d_sae, analyst.grid)
    comparison = Comparison(backbone, sae, root=root)
    return CompareDesk(comparison, ConceptsDesk(analyst, catalogue), catalogue)


def asking(sae: SparseAutoencoder) -> Dispatch:
    dispatch = Dispatch()
    desk_of(sae).offer(dispatch)
    return dispatch


@pytest.fixture(scope="module")
def dispatch() -> Dispatch:
    return asking(SparseAutoencoder.from_pretrained("bundled"))


def test_a_picture_in_which_nothing_fires_has_no_concepts_and_is_no_problem():
    sae = SparseAutoencoder.from_pretrained("bundled")
    with torch.no_grad():
        sae.b_enc.fill_(-1e6)
    answer = asking(sae).ask({"way": "explain", **ASKED})
    assert "problem" not in answer
    assert answer["concepts"] == []
    assert answer["maps"] == {"codes": "", "scale": []}


def test_the_tab_opens_with_the_reference_and_a_head_that_every_split_takes(tmp_path):
    sae = SparseAutoencoder.from_pretrained("bundled")
    setup = desk_of(sae).setup()
    first, second = setup["heads"]
    assert first == setup["reference"] == "zero_shot"
    for task in setup["tasks"]:
        assert {head["name"]: head["any_classes"] for head in task["heads"]}[second]
    bare = desk_of(sae, tmp_path).setup()  # no head was trained yet
    assert bare["heads"] == ["zero_shot", "zero_shot"]


@pytest.mark.parametrize("off", [None, "5", [10**9], [-1], ["x"], [True], [[1]]])
def test_only_latents_are_switched_off(dispatch, off):
    problem = dispatch.ask({"way": "off", "off": off, **ASKED})
    assert problem == {"problem": "No concepts were named to switch off."}


@pytest.mark.parametrize("number", [-1, N_SAMPLES, "3", None, 1.5, True])
def test_only_pictures_of_the_task_are_shown(dispatch, number):
    asked = {"way": "sample", "task": "fluent", "split": "base", "number": number}
    assert dispatch.ask(asked) == {
        "problem": f"Pictures of a task are numbered from 0 to {N_SAMPLES - 1}."
    }
