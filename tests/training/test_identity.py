"""What tells backbones apart, and the copies that only preprocess, for every family."""

import json
import pickle

import pytest
import torch

from sae.backbones import Backbone
from tests.backbones.pictures import noise
from tests.tiny_models import TINY, tiny
from training.data.store.manifest import preprocessing_of, weights_sha256


@pytest.fixture(scope="module", params=list(TINY))
def backbone(request: pytest.FixtureRequest) -> Backbone:
    made = tiny(request.param)
    return Backbone.from_model(made.model, made.image_processor, made.tokenizer, id="tiny")


def test_a_copy_without_the_model_is_small_and_preprocesses_the_same(backbone: Backbone) -> None:
    light = pickle.loads(pickle.dumps(backbone.without_model()))
    assert len(pickle.dumps(light)) < 10_000
    images = [noise(64, 40, seed=1), noise(33, 91, seed=2)]
    for name, values in backbone.preprocess(images).items():
        assert torch.equal(light.preprocess(images)[name], values)
    assert backbone.activations(images, 0).shape[0] == 2
    assert light.needed_size((640, 400)) == backbone.needed_size((640, 400))


def test_the_description_of_preprocessing_is_json(backbone: Backbone) -> None:
    found = preprocessing_of(backbone)
    assert json.loads(json.dumps(found)) == found
    assert found["black"] != found["red"]


def test_the_hash_is_of_the_weights_not_of_their_dtype() -> None:
    made = tiny("clip")
    whole = Backbone.from_model(made.model, made.image_processor)
    before = weights_sha256(whole)
    made.model.to(torch.bfloat16)
    assert weights_sha256(whole) == before
    with torch.no_grad():
        made.model.vision_model.encoder.layers[2].mlp.fc2.bias[3] += 0.5
    assert weights_sha256(whole) != before
