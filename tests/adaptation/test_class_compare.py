"""One class against another: shares and error sum to the margin, and switching off is what the model says."""

import pytest
import torch

from sae.adaptation.class_compare import ClassComparison
from tests.adaptation.test_class_shares import made
from tests.backbones.pictures import noise


def test_shares_sum_to_the_margin_and_switching_off_is_what_the_model_says() -> None:
    backbone, sae = made("timm_efficientnet")
    comparison = ClassComparison(backbone, sae)
    found = comparison.explain(noise(70, 50))
    logits = backbone.class_logits([noise(70, 50)])[0]
    assert torch.allclose(found.logits, logits, atol=1e-5)
    best = logits.topk(2).indices.tolist()
    assert found.classes == (f"class {best[0]}", f"class {best[1]}")
    (head,) = found.to_json()["heads"]
    total = head["start"] + sum(one["share"] for one in head["contributions"]) + head["residual"]
    assert total == pytest.approx(float(logits[best[0]] - logits[best[1]]), abs=1e-5)
    assert comparison.switched_off(found, []).score == pytest.approx(head["margin"], abs=1e-5)
    off = [one.latent for one in found.concepts[:3]]

    def without(x: torch.Tensor) -> torch.Tensor:
        return x - sae.encode(x)[..., off] @ sae.W_dec[off]

    with backbone.edit(-1, without):
        after = backbone.class_logits([noise(70, 50)])[0]
    switched = comparison.switched_off(found, off)
    assert switched.score == pytest.approx(float(after[best[0]] - after[best[1]]), abs=1e-5)
    assert switched.predictions[0].probability == pytest.approx(
        float(after.softmax(-1).max()), abs=1e-5
    )
    share = sum(one.share for one in found.concepts[:3])
    assert head["margin"] - switched.score == pytest.approx(share, abs=1e-5)


def test_maps_and_refusals() -> None:
    backbone, sae = made("timm_efficientnet")
    comparison = ClassComparison(backbone, sae, [f"name {n}" for n in range(40)])
    found = comparison.explain(noise(70, 50), ("class 5", "class 2"))
    top = found.concepts[0]
    assert top.name == f"name {top.latent}"
    assert found.maps(top.latent).shape == backbone.patch_grid
    assert found.maps(top.latent).max() == pytest.approx(top.activation)
    short = found.to_json(2)
    head = short["heads"][0]
    shown = sum(one["share"] for one in head["contributions"])
    assert head["start"] + shown + head["rest"] + head["residual"] == pytest.approx(head["margin"])
    with pytest.raises(ValueError, match="margin of 'class 5' and itself is 0"):
        comparison.explain(noise(9, 9), ("class 5", "class 5"))
    with pytest.raises(ValueError, match="no latent 40"):
        comparison.switched_off(found, [40])
    with pytest.raises(ValueError, match="not linear in layer -1"):
        ClassComparison(*made("timm_convnext"))
