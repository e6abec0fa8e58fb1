"""Checkpoints of every family in folders, and what is said of those that cannot be read."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sae.backbones import Backbone
from sae.errors import HubNotCached
from tests.backbones.pictures import noise
from tests.tiny_models import TRANSFORMERS, save_open_clip, save_timm, tiny

VIT_SMALL = Path(__file__).resolve().parents[3] / "shared" / "models" / "vit-small"
FAMILIES = {
    "clip_vision": "clip",
    "clip_projection": "clip",
    "dinov2_registers": "dinov2",
    "vit_larger": "vit",
}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_saved_models_load_by_their_config(name: str, tmp_path: Path) -> None:
    made = tiny(name)
    original = Backbone.from_model(made.model, made.image_processor, made.tokenizer)
    loaded = Backbone.from_pretrained(made.save(tmp_path / name))
    assert loaded.family == FAMILIES.get(name, name)
    assert (loaded.id, loaded.revision) == (str(tmp_path / name), None)
    assert (loaded.patch_grid, loaded.n_prefix) == (made.patch_grid, made.n_prefix)
    assert not any(parameter.requires_grad for parameter in loaded._vision.parameters())
    assert torch.equal(
        loaded.activations([noise(50, 70)], -2), original.activations([noise(50, 70)], -2)
    )
    features = [backbone.image_features([noise(9, 9)]) for backbone in (loaded, original)]
    assert torch.allclose(*features, atol=1e-6)
    assert loaded.image_box((70, 50)) == original.image_box((70, 50))
    if made.has_text:
        texts = ["a photo of a cat", "two dog on grass"]
        features = [backbone.text_features(texts) for backbone in (loaded, original)]
        assert torch.allclose(*features, atol=1e-6)


@pytest.mark.parametrize("name", ["timm", "open_clip"])
def test_folders_of_timm_and_open_clip_load(name: str, tmp_path: Path) -> None:
    made = tiny(name)
    save = save_timm if name == "timm" else save_open_clip
    folder = save(made.model, tmp_path / name)
    backbone = Backbone.from_pretrained(folder)
    original = Backbone.from_model(made.model, tokenizer=made.tokenizer)
    assert backbone.family == name
    assert torch.equal(
        backbone.activations([noise(50, 70)], 1), original.activations([noise(50, 70)], 1)
    )
    if name == "open_clip":
        assert Backbone.from_pretrained(f"hf-hub:{folder}").family == name
        assert torch.equal(backbone.text_features(["a cat"]), original.text_features(["a cat"]))
    if name in ("open_clip", "timm"):  # other names would let the library prefer a pickle
        for weights in folder.glob("*.safetensors"):
            weights.rename(folder / "other.safetensors")
        (folder / "pytorch_model.bin").write_bytes(b"pickle")
        with pytest.raises(OSError, match="pickled weights"):
            Backbone.from_pretrained(folder)
    for weights in folder.glob("*.safetensors"):
        weights.rename(folder / "weights.bin")
    with pytest.raises(OSError, match="pickled weights"):
        Backbone.from_pretrained(folder)


def test_dtype_and_processor_config(tmp_path: Path) -> None:
    made = tiny("clip")
    folder = made.save(tmp_path)
    backbone = Backbone.from_pretrained(folder, dtype=torch.bfloat16)
    assert backbone.activations([noise(40, 40)], 0).dtype == torch.bfloat16
    # Processors say which class and backend wrote them; the Pillow one is used all the same.
    config = json.loads((folder / "preprocessor_config.json").read_text())
    config |= {"image_processor_type": "CLIPImageProcessorFast", "size": {"shortest_edge": 40}}
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    assert Backbone.from_pretrained(folder).image_box((40, 40)) == (4, 4, 36, 36)
    # transformers 5 may nest it in processor_config.json.
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": config}))
    assert Backbone.from_pretrained(folder).image_box((40, 40)) == (4, 4, 36, 36)


def test_incomplete_weights_are_refused(tmp_path: Path) -> None:
    folder = tiny("dinov2").save(tmp_path)
    weights = load_file(folder / "model.safetensors")
    name = next(key for key in weights if "layer.1" in key)
    del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(OSError, match="lack 1 tensors"):
        Backbone.from_pretrained(folder)


def test_unreadable_models_are_explained(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no config.json"):
        Backbone.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(OSError, match="not valid JSON"):
        Backbone.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(OSError, match="expected an object"):
        Backbone.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="of type 'bert', expected one of .*dinov2"):
        Backbone.from_pretrained(tmp_path)
    for name in ("nobody/nothing-here", "./no/such/folder", "hf-hub:nobody/x", "timm/nothing"):
        with pytest.raises(HubNotCached, match="is no folder here.*not in the local cache"):
            Backbone.from_pretrained(name, local_files_only=True)
    with pytest.raises(OSError, match="no open_clip_config.json"):
        Backbone.from_pretrained(f"hf-hub:{tmp_path}")
    with pytest.raises(ValueError, match="of type None"):
        Backbone.from_model(torch.nn.Linear(2, 2))


def test_wrong_arguments_are_explained() -> None:
    made = tiny("clip")
    backbone = Backbone.from_model(made.model, made.image_processor, made.tokenizer)
    for images in ([], noise(4, 4), ["cat.png"], [noise(4, 4), None]):
        with pytest.raises(ValueError, match="expected"):
            backbone.preprocess(images)
    for texts in ([], "a cat", [1]):
        with pytest.raises(ValueError, match="list of one or more strings"):
            backbone.text_features(texts)


def test_timm_takes_no_tokenizer() -> None:
    with pytest.raises(ValueError, match="takes no tokenizer"):
        Backbone.from_model(tiny("timm").model, tokenizer=object())


def test_image_processors_are_guessed_from_the_config() -> None:
    for name in TRANSFORMERS:
        backbone = Backbone.from_model(tiny(name).model)
        assert not backbone.has_text
        assert backbone.activations([noise(30, 40)], 0).shape[0] == 1


@pytest.mark.skipif(not VIT_SMALL.is_dir(), reason="the real model is not on this machine")
def test_a_real_vision_transformer() -> None:
    backbone = Backbone.from_pretrained(VIT_SMALL)
    assert (backbone.family, backbone.n_layers, backbone.d_model) == ("dinov2", 12, 384)
    assert (backbone.patch_grid, backbone.n_prefix) == ((16, 16), 1)
    assert backbone.image_box((512, 256)) == (144, 16, 368, 240)
    inputs = backbone.preprocess([noise(300, 200), noise(200, 300)])
    with torch.no_grad():
        expected = backbone._model(**inputs, output_hidden_states=True).hidden_states
    for layer in (0, 9, -1):
        got = backbone.activations(inputs, layer)
        assert got.shape == (2, 257, 384)
        assert torch.equal(got, expected[layer if layer < 0 else layer + 1])


@pytest.mark.skipif(not VIT_SMALL.is_dir(), reason="the real model is not on this machine")
def test_a_missing_image_processor_is_said(tmp_path: Path) -> None:
    shutil.copy(VIT_SMALL / "config.json", tmp_path)
    (tmp_path / "model.safetensors").symlink_to(VIT_SMALL / "model.safetensors")
    with pytest.raises(OSError, match="preprocessor_config.json"):
        Backbone.from_pretrained(tmp_path)
