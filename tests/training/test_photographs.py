"""Names from a classifier's opinion, on hand-made numbers; the wider words of ImageNet's classes."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from sae.backbones import Backbone
from sae.backbones.classes import IMAGENET_WORDS, wider_words
from sae.config import BackboneRef, SAEConfig
from sae.model import SparseAutoencoder
from sae.ui.gallery import read_examples
from tests.tiny_models import tiny
from training.photographs import words
from training.photographs.examples import keep_examples
from training.photographs.figures import best_of_classes
from training.photographs.looking import LATENTS, look
from training.photographs.names import (
    BORDER,
    confidences,
    judge,
    name_latents,
    shuffled,
    word_probabilities,
)
from training.photographs.threshold import with_threshold

CLASSES = ("tench", "beagle", "collie", "sax")
WIDER = {"animal": (0, 1, 2), "dog": (1, 2)}
DATA = """  1 This software and database
00000001 03 n 01 entity 0 000 | that which is
00000002 05 n 02 dog 0 domestic_dog 0 001 @ 00000001 n 0000 | a canine
00000003 05 n 01 beagle 0 001 @ 00000002 n 0000 | a small hound
00000004 05 n 01 collie 0 002 @ 00000002 n 0000 %p 00000001 n 0000 | a sheepdog
"""


def test_a_name_needs_the_decoder_and_the_regions() -> None:
    """Latents: beagle in both; dogs; regions alone; decoder alone; a border; dead; too few exemplars."""
    effects = np.array(
        [[0, 9, 1, 0], [0, 5, 5, 0], [9, 0, 0, 0], [0, 0, 0, 9]] + 3 * [[0, 9, 0, 0]], float
    )
    regions = np.array(
        [[0, 0.9, 0.1, 0], [0.1, 0.45, 0.45, 0], [0, 0, 0, 1], [0.3, 0.3, 0.1, 0.3]]
        + 3 * [[0, 1, 0, 0]]
    )
    n_regions = np.array([9, 9, 9, 9, 9, 9, 2.0])
    border, dead = np.array([0, 0, 0, 0, 0.99, 0, 0]), np.arange(7) == 5
    named = name_latents(effects, regions, n_regions, border, dead, CLASSES, WIDER)
    assert named.words == ["beagle", "dog", "", "", BORDER, "", ""]
    assert named.shares[:2].tolist() == pytest.approx([0.9, 0.9])


def test_a_names_confidence_is_its_balanced_accuracy_on_other_photos() -> None:
    said = np.zeros((40, 4))
    said[:10, 1], said[10:, 3] = 0.9, 0.9
    fires = np.zeros((40, 3), bool)
    fires[:10, 0] = True  # with the word
    fires[:5, 1], fires[10:15, 1] = True, True  # half of each
    fires[:3, 2] = True  # on too few photos
    probabilities = word_probabilities(said, CLASSES, WIDER)
    judged = judge(["dog", "beagle", "beagle"], probabilities, fires)
    assert judged.accuracy[:2].tolist() == pytest.approx([1.0, (0.5 + 25 / 30) / 2])
    assert np.isnan(judged.accuracy[2])
    out = np.full((3, 10), -1)
    out[0, :5] = np.arange(5)  # its exemplars do not count: five are left
    assert judge(["dog", "", ""], probabilities, fires, left_out=out).accuracy[0] == 1.0
    out[0] = np.arange(10)
    assert np.isnan(judge(["dog", "", ""], probabilities, fires, left_out=out).accuracy[0])
    named = name_latents(
        np.eye(3, 4), np.zeros((3, 4)), np.zeros(3), np.zeros(3), np.zeros(3, bool), CLASSES, {}
    )
    assert confidences(named, np.array([1.0, 0.9, np.nan]), 0.4).tolist() == pytest.approx(
        [1, 0.8, 0]
    )


def test_shuffled_names_are_others() -> None:
    own = ["dog", "sax", "", "dog", "tench"]
    dealt = shuffled(own, dict.fromkeys(["dog", "sax", "tench"]))
    assert dealt[2] == ""
    assert not any(a == b for a, b in zip(dealt, own, strict=True) if b)


def test_the_best_unit_is_chosen_on_one_set_and_measured_on_another() -> None:
    labels = np.array([0, 0, 1, 1])
    first = np.array([[2, 0], [1, 0], [0, 1], [0, 2.0]])
    second = np.array([[1, 0], [0, 1], [0, 1], [0, 2.0]])
    best, scores = best_of_classes((first, labels), (second, labels), 2)
    assert best.tolist() == [0, 1]
    assert scores.tolist() == [0.75, 0.875]


def test_a_look_gives_what_the_classifier_says_of_lit_regions() -> None:
    """Equal to a computation by hand, photo by photo."""
    backbone = Backbone.from_model(tiny("timm_efficientnet").model)
    layer = backbone.n_layers - 1
    width = backbone.at(layer).d_model
    cfg = SAEConfig("topk", width, 6, BackboneRef("tiny", layer), k=2)
    torch.manual_seed(0)
    sae = SparseAutoencoder(cfg)
    with torch.no_grad():
        sae.W_enc.copy_(torch.randn(width, 6))
    photos = [Image.effect_noise((64, 64), 40 + 30 * number).convert("RGB") for number in range(5)]
    seen = look(photos, backbone, sae, {"raw neurons": lambda x: x}, n_exemplars=2)
    x = torch.cat([backbone.activations([photo], layer) for photo in photos])
    assert np.allclose(seen.firing["raw neurons"], x.amax(1), atol=1e-5)
    assert np.allclose(seen.firing[LATENTS], sae.encode(x).detach().amax(1), atol=1e-4)
    assert np.allclose(seen.said, backbone.class_logits(photos).softmax(1), atol=1e-5)
    z = sae.encode(x).detach()
    for latent in range(6):
        order = z[:, :, latent].amax(1).argsort(descending=True)[:2]
        assert set(seen.exemplars[latent]) - {-1} <= set(order.tolist())
        pooled = [
            (z[n, :, latent] @ x[n]) / z[n, :, latent].sum()
            for n in seen.exemplars[latent]
            if n >= 0
        ]
        if pooled:
            weights, bias = backbone.class_readout(layer)
            by_hand = (torch.stack(pooled) @ weights.T + bias).softmax(1).mean(0)
            assert np.allclose(seen.regions[latent], by_hand, atol=1e-4)


def test_a_threshold_lets_as_many_latents_fire_on_average() -> None:
    """Those of all tokens that are largest, not so many of each."""
    sae = SparseAutoencoder(SAEConfig("topk", 3, 3, BackboneRef("tiny", 0), k=1))
    with torch.no_grad():
        sae.W_enc.copy_(torch.eye(3))
        sae.W_dec.copy_(torch.eye(3))
    tokens = torch.tensor([[4.0, 5, 6], [0.1, 0, 0], [0, 1, 0]])
    made = with_threshold(sae, tokens, 1)
    assert (made.cfg.architecture, made.cfg.threshold) == ("batch_topk", 1.0)
    assert made.encode(tokens).tolist() == [[4, 5, 6], [0, 0, 0], [0, 0, 0]]
    with pytest.raises(ValueError, match="only 5 latents are positive"):
        with_threshold(sae, tokens, 2)


def test_wider_words_come_from_wordnets_hierarchy(tmp_path) -> None:  # noqa: ANN001
    (tmp_path / "data.noun").write_text(DATA, encoding="latin-1")
    nouns = words.read_nouns(tmp_path / "data.noun")
    found = words.wider_words(["00000003", "00000004"], {"dog": "domestic dog"}, *nouns)
    assert found == {"dog": [0, 1]}
    with pytest.raises(ValueError, match="'beagle' stands for 0"):
        words.wider_words(["00000003", "00000004"], {"beagle": "beagle"}, *nouns)


def test_imagenets_wider_words() -> None:
    timm = pytest.importorskip("timm")
    from sae.backbones.classes import class_words

    with torch.device("meta"):
        classes = class_words(timm.create_model("tf_efficientnet_lite0"))
    wider = wider_words(classes)
    assert {classes[number] for number in wider["piano"]} == {"grand piano", "upright"}
    assert len(wider["dog"]) == 118
    assert "dalmatian" in {classes[number] for number in wider["dog"]}
    assert wider_words(classes[:-1]) == wider_words(classes[::-1]) == {}
    content = json.loads(IMAGENET_WORDS.read_text(encoding="utf-8"))
    assert set(content["words"]) == set(words.listed())


def test_the_examples_are_those_that_are_there(tmp_path):
    (tmp_path / "train" / "llama").mkdir(parents=True)
    keep_examples(tmp_path, tmp_path / "sae")
    assert read_examples(tmp_path / "sae") == ()
    Image.new("RGB", (300, 200), (200, 90, 20)).save(tmp_path / "train" / "llama" / "09.jpg")
    keep_examples(tmp_path, tmp_path / "sae")
    (llama,) = read_examples(tmp_path / "sae")
    assert llama.title == "Llama"
    with Image.open(llama.file) as kept:
        assert kept.size == (192, 128)
