"""What the Compare tab is answered, on small random heads."""

import json

import pytest
import torch

from sae.adaptation.compare import Comparison
from sae.adaptation.heads import ZeroShotHead
from sae.ui.catalogue import Catalogue
from sae.ui.compare_desk import CompareDesk
from tests.adaptation.small import CLASSES, TEMPLATES, pictures, small_lens, small_parts


class OnePicture:
    """The desk of the Concepts tab, as far as it is asked here."""

    def picture(self, _request: object):
        return pictures(1)[0]


def test_a_picture_in_which_nothing_fires_has_no_concepts_and_no_maps(monkeypatch):
    parts = small_parts()
    sae = small_lens(parts).sae
    with torch.no_grad():
        sae.b_enc.fill_(-1e6)
    comparison = Comparison(parts.backbone, sae)
    head = ZeroShotHead(CLASSES, templates=TEMPLATES).classifier(comparison.parts)
    desk = CompareDesk(comparison, OnePicture(), Catalogue(None, sae.cfg.d_sae, (4, 4)))
    explained = comparison.explain_with(pictures(1)[0], (head, head))
    monkeypatch.setattr(desk, "_explain", lambda _image, _fields: explained)
    answer = desk._explain_json({"picture": {}})
    assert json.loads(json.dumps(answer, allow_nan=False))["concepts"] == []
    assert answer["maps"] == {"codes": "", "scale": []}
    for side in answer["heads"]:  # the whole margin is what no concept explains
        assert side["residual"] == pytest.approx(side["margin"], abs=1e-6)
