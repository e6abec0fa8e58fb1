"""Shares of concepts in the margins of a backbone's own classifier: exact, and equal to switching off."""

import pytest
import torch

from sae.adaptation.class_shares import class_shares
from sae.backbones import Backbone
from sae.backbones.classes import class_words
from sae.config import BackboneRef, SAEConfig
from sae.model import SparseAutoencoder
from tests.backbones.pictures import noise
from tests.tiny_models import tiny


def made(family: str, architecture: str = "topk") -> tuple[Backbone, SparseAutoencoder]:
    backbone = Backbone.from_model(tiny(family).model).at(-1)
    keep = {"k": 4} if architecture == "topk" else {}
    where = BackboneRef("tiny", -1)
    sae = SparseAutoencoder(SAEConfig(architecture, backbone.d_model, 40, where, **keep))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for parameter in sae.parameters():
            parameter.data.normal_(0, 0.1)
    return backbone, sae


@pytest.mark.parametrize("architecture", ["topk", "relu"])
@pytest.mark.parametrize("family", ["timm_efficientnet", "timm_resnet"])
def test_shares_and_error_sum_to_the_models_own_margin(family: str, architecture: str) -> None:
    backbone, sae = made(family, architecture)
    logits = backbone.class_logits([noise(70, 50)])[0]
    found = class_shares(backbone, sae, noise(70, 50), "class 2", "class 5")
    assert found.exact
    assert found.score == pytest.approx(float(logits[2] - logits[5]), abs=1e-5)
    assert found.start + found.explained + found.error == pytest.approx(found.score, abs=1e-5)
    assert len(found.latents) > 3


def test_a_share_is_what_switching_the_concept_off_takes_away() -> None:
    backbone, sae = made("timm_efficientnet")
    found = class_shares(backbone, sae, noise(70, 50), "class 2", "class 5")
    before = backbone.class_logits([noise(70, 50)])[0]
    for latent in found.latents[:3].tolist():

        def without(x: torch.Tensor, latent: int = latent) -> torch.Tensor:
            return x - sae.encode(x)[..., latent, None] * sae.W_dec[latent]

        with backbone.edit(-1, without):
            after = backbone.class_logits([noise(70, 50)])[0]
        change = float((before[2] - before[5]) - (after[2] - after[5]))
        assert found.share(latent) == pytest.approx(change, abs=1e-5)


def test_where_it_is_not_linear_it_says_so() -> None:
    backbone, sae = made("timm_convnext")  # a norm lies between the average and the classifier
    assert len(backbone.classes) == 7
    with pytest.raises(ValueError, match="not linear in layer -1"):
        class_shares(backbone, sae, noise(9, 9), "class 0", "class 1")
    backbone, sae = made("timm_resnet")
    assert backbone.class_readout(-2) is None
    with pytest.raises(ValueError, match="no class 'dog'; .* knows class 0"):
        class_shares(backbone, sae, noise(9, 9), "dog", "class 1")


def test_without_a_classifier_there_are_no_logits() -> None:
    backbone = Backbone.from_model(tiny("timm").model)
    assert backbone.classes == ()
    with pytest.raises(ValueError, match="ends without a classifier"):
        backbone.class_logits([noise(9, 9)])


def test_imagenets_classes_are_plain_words_and_all_different() -> None:
    timm = pytest.importorskip("timm")
    words = class_words(timm.create_model("test_resnet", num_classes=1000))
    assert len(set(words)) == len(words) == 1000
    assert (words[0], words[251]) == ("tench", "dalmatian")
    assert [word for word in words if "(" in word] == [
        "crane (large long-necked wading bird of marshes)",
        "crane (lifts and moves heavy objects)",
        "maillot (tights for dancers or gymnasts)",
        "maillot (a woman's one-piece bathing suit)",
    ]
