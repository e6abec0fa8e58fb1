"""A backbone family from outside the package, as docs/extending.md says: no CLS, a grid of 2 × 3."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from sae.backbones import Backbone
from sae.backbones.framing import Framing
from sae.backbones.loading import FAMILIES, register_family
from sae.backbones.tokens import TokenView
from sae.concepts.regions import sparse_codes
from sae.config import BackboneRef, SAEConfig
from sae.model import SparseAutoencoder
from tests.backbones.pictures import noise


class Mixer(nn.Module):
    """Colours of 8 × 8 patches through a few linear layers: (B, 3, 16, 24) to (B, 6, width)."""

    def __init__(self, width: int = 12, depth: int = 3) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, width, 8, 8)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))

    def forward(self, pixels):
        hidden = self.embed(pixels).flatten(2).transpose(1, 2)
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden


class MixerBackbone(Backbone):
    family = "mixer"
    weight_files = ("model.safetensors",)

    def __init__(self, model, image_processor=None, tokenizer=None, *, id="local", revision=None):
        assert image_processor is None
        assert tokenizer is None
        super().__init__(
            model,
            model.layers,
            Framing("squash", (16, 24), (16, 24)),
            id=id,
            revision=revision,
            d_model=model.embed.out_channels,
            patch_size=(8, 8),
            n_prefix=0,
            has_cls=False,
        )

    @classmethod
    def reads(cls, folder, config):  # noqa: ARG003
        return config.get("library") == "mixer"

    @classmethod
    def wraps(cls, model):
        return isinstance(model, Mixer)

    @classmethod
    def load(cls, source, config, *, id, revision, device, dtype, **_access):
        model = Mixer(config["width"])
        model.load_state_dict(load_file(f"{source}/model.safetensors"))
        model = model.to(device, dtype).eval().requires_grad_(False)
        return cls(model, id=id, revision=revision)

    def _pixels(self, framed):
        pixels = torch.from_numpy(np.stack([np.asarray(image) for image in framed]))
        return {"pixel_values": pixels.movedim(3, 1).float() / 255}

    def _forward(self, inputs):
        return self._vision(inputs["pixel_values"])

    def _image_features(self, inputs):
        return self._forward(inputs).mean(1)


@pytest.fixture
def registered():
    before = list(FAMILIES)
    yield register_family(MixerBackbone)
    FAMILIES[:] = before


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    save_file(Mixer().state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"library": "mixer", "width": 12}))
    return tmp_path


@pytest.mark.usefixtures("registered")
def test_it_is_read_from_a_folder_and_an_sae_sits_on_it(folder):
    backbone = Backbone.from_pretrained(folder)
    assert isinstance(backbone, MixerBackbone)
    images = [noise(40, 30), Image.new("L", (24, 16), 90)]
    x = backbone.activations(images, -2)
    assert x.shape == (2, 6, 12)
    assert TokenView(backbone, "all").kinds() == ("patch",) * 6
    with pytest.raises(ValueError, match="has no CLS token"):
        TokenView(backbone, "cls")
    sae = SparseAutoencoder(SAEConfig("relu", 12, 20, BackboneRef(str(folder), -2, "patches")))
    nn.init.normal_(sae.W_enc)
    values, latents = sparse_codes(images, backbone, sae)
    assert values.shape[:2] == latents.shape[:2] == (2, 6)
    with backbone.edit(-2, torch.zeros_like):
        assert not torch.equal(backbone.activations(images, -1), backbone._vision.layers[-1](x))
    assert backbone.image_features(images).shape == (2, 12)


@pytest.mark.usefixtures("registered")
def test_a_model_in_memory_is_wrapped():
    backbone = Backbone.from_model(Mixer(), id="mine")
    assert (backbone.family, backbone.id, backbone.patch_grid) == ("mixer", "mine", (2, 3))


def test_weights_are_asked_for_by_the_familys_names(folder, registered):
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    with pytest.raises(OSError, match=r"no model\.safetensors in .*never opened"):
        Backbone.from_pretrained(folder)
    assert registered is MixerBackbone


def test_without_it_the_folder_is_of_no_known_type(folder):
    with pytest.raises(ValueError, match="of type None, expected one of .*clip"):
        Backbone.from_pretrained(folder)


def test_a_family_needs_a_name_and_is_in_the_table_once(registered):
    assert register_family(registered) is registered
    assert FAMILIES.count(registered) == 1
    with pytest.raises(ValueError, match="has no name"):
        register_family(type("Nameless", (Backbone,), {}))
