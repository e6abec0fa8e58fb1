"""Heads: what they compute, what they refuse, and that files keep every bit."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch.nn.modules.module import register_module_parameter_registration_hook

from sae.adaptation.classifier import checked_classes, classify
from sae.adaptation.files import load_head, save_head
from sae.adaptation.heads import HEADS, CoOpHead, LinearHead, MapleHead, VPTHead, ZeroShotHead
from sae.backbones.text import checked_templates
from sae.errors import ArtifactError
from sae.storage import SEAL, sealed
from tests.adaptation.small import CLASSES, TEMPLATES, pictures, small_parts


@pytest.fixture(scope="module")
def parts():
    return small_parts()


def every_head():
    torch.manual_seed(3)
    yield ZeroShotHead(CLASSES, templates=TEMPLATES)
    yield CoOpHead(CLASSES, d_text=32, n_ctx=3, position="middle", tail="")
    yield CoOpHead(CLASSES, d_text=32, n_ctx=2, class_specific=True, tail="")
    yield VPTHead(CLASSES, d_vision=32, templates=TEMPLATES, n_ctx=2, depth=3)
    yield MapleHead(CLASSES, d_text=32, d_vision=32, depth=3, lead="of a", tail="")
    linear = LinearHead(CLASSES, d_proj=16)
    torch.nn.init.normal_(linear.weight)
    torch.nn.init.normal_(linear.offset)
    yield linear


def test_zero_shot_logits_are_those_of_plain_transformers(parts):
    model, tokenizer = parts.backbone._model, parts.backbone._tokenizer
    images = pictures(5)
    pixels = parts.backbone.preprocess(images)["pixel_values"]
    with torch.no_grad():
        rows = []
        for name in CLASSES:
            texts = [template.format(name) for template in TEMPLATES]
            words = tokenizer(texts, padding=True, return_tensors="pt")
            text = model.get_text_features(
                input_ids=words["input_ids"], attention_mask=words["attention_mask"]
            ).pooler_output
            mean = (text / text.norm(dim=-1, keepdim=True)).mean(0)
            rows.append(mean / mean.norm())
        image = model.get_image_features(pixel_values=pixels).pooler_output
        image = image / image.norm(dim=-1, keepdim=True)
        expected = model.logit_scale.exp() * image @ torch.stack(rows).T
    head = ZeroShotHead(CLASSES, templates=TEMPLATES).classifier(parts)
    torch.testing.assert_close(classify(parts, head, images), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_coop_with_the_words_embeddings_is_the_plain_prompt(parts, position):
    # With context "a photo" taken from the embedding itself, the prompt is ordinary text.
    head = CoOpHead(("cat", "red dog"), d_text=32, n_ctx=2, position=position, tail="")
    head.start_from(parts, "a photo of")
    texts = {
        "end": ["a photo cat", "a photo red dog"],
        "middle": ["a cat photo", "a red dog photo"],
        "front": ["cat a photo", "red dog a photo"],
    }[position]
    weights = head.classifier(parts).weights
    torch.testing.assert_close(weights, parts.backbone.text_features(texts), rtol=1e-5, atol=1e-6)


def test_maple_keeps_the_fixed_words_and_prompts_the_vision_tower(parts):
    torch.manual_seed(0)
    head = MapleHead(("cat", "dog"), d_text=32, d_vision=32, depth=1, lead="of a", tail="")
    head.start_from(parts, "a photo of a")
    made = head.classifier(parts)
    expected = parts.backbone.text_features(["a photo of a cat", "a photo of a dog"])
    torch.testing.assert_close(made.weights, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(made.prompts.shallow, F.linear(head.ctx, head.proj.weight, head.proj.bias))


def test_gradients_reach_every_learned_tensor(parts):
    images = parts.backbone.preprocess(pictures(2))
    for head in every_head():
        names = list(head.class_names)
        features = parts.image_features(images, head.vision_prompts(), cls_only=True)
        logits = F.normalize(features, dim=-1) @ head.class_weights(parts, names).T
        loss = (logits + head.bias(len(names))).pow(2).sum()
        if list(head.parameters()):
            loss.backward()
        for name, parameter in head.named_parameters():
            # a text prompt behind the last text block reaches the loss through vision alone
            assert parameter.grad is not None, (head.kind, name)
            assert parameter.grad.abs().sum() > 0, (head.kind, name)


def test_save_and_load_give_equal_bits(parts, tmp_path):
    images = parts.backbone.preprocess(pictures(2))
    for number, head in enumerate(every_head()):
        folder = tmp_path / str(number)
        save_head(folder, head, parts, task="pets")
        stored = load_head(folder, parts)
        assert stored.task == "pets"
        assert stored.head.class_names == CLASSES
        before, after = head.classifier(parts), stored.head.classifier(parts)
        assert torch.equal(classify(parts, before, images), classify(parts, after, images))
    assert {json.loads(p.read_text())["kind"] for p in tmp_path.glob("*/config.json")} == set(HEADS)


def resealed(config):
    """The config as an author would have written it."""
    return sealed({name: value for name, value in config.items() if name != SEAL})


def damage(folder, what):
    config = json.loads((folder / "config.json").read_text())
    if what == "weights":
        data = bytearray((folder / "head.safetensors").read_bytes())
        data[-1] ^= 1
        (folder / "head.safetensors").write_bytes(data)
        return
    if what == "missing":
        (folder / "head.safetensors").unlink()
        return
    changes = {
        "kind": {"kind": "magic"},
        "format": {"format": 9},
        "key": {"extra": 1},
        "settings": {"settings": {"d_text": 32, "depth": -4, "d_vision": 32}},
        "huge": {"settings": config["settings"] | {"depth": 10**9}},
        "classes": {"class_names": ["cat"]},
        "shape": {"settings": config["settings"] | {"n_ctx": 5}},
    }
    (folder / "config.json").write_text(json.dumps(resealed(config | changes[what])))


@pytest.mark.parametrize(
    "what", ["weights", "missing", "kind", "format", "key", "settings", "huge", "classes", "shape"]
)
def test_damaged_files_are_refused(parts, tmp_path, what):
    head = MapleHead(CLASSES, d_text=32, d_vision=32, depth=2, tail="")
    save_head(tmp_path, head, parts)
    damage(tmp_path, what)
    with pytest.raises(ArtifactError):
        load_head(tmp_path, parts)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("coop", {"class_names": list(reversed(CLASSES))}),
        ("coop", {"settings": {"position": "front"}}),
        ("coop", {"settings": {"tail": "!"}}),
        ("vpt", {"settings": {"templates": ["a {}"]}}),
        ("maple", {"task": "other"}),
        ("maple", {"backbone": {"fingerprint": None}}),
    ],
)
def test_no_altered_head_loads(parts, tmp_path, kind, change):
    head = next(head for head in every_head() if head.kind == kind)
    save_head(tmp_path, head, parts)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    for name, value in change.items():
        config[name] = config[name] | value if isinstance(value, dict) else value
    path.write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match="something in it was altered"):
        load_head(tmp_path)
    path.write_text(json.dumps({k: v for k, v in config.items() if k != SEAL}))
    with pytest.warns(UserWarning, match="older PatchLens"):
        load_head(tmp_path)


@pytest.mark.parametrize(
    "settings",
    [
        {"depth": 60_000},
        {"n_ctx": 60_000},
        {"d_text": 65_536, "d_vision": 65_536},
        {"depth": 1000, "d_text": 1000, "d_vision": 1000},
        {"n_ctx": 10**30},
        {"n_ctx": True},
        {"lead": 3},
        {"tail": None},
        {"unknown": 1},
    ],
)
def test_sizes_that_a_head_claims_are_not_made_before_its_file_has_them(parts, tmp_path, settings):
    head = MapleHead(CLASSES, d_text=32, d_vision=32, depth=2, tail="")
    save_head(tmp_path, head, parts)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["settings"] |= settings
    path.write_text(json.dumps(config if 10**30 in settings.values() else resealed(config)))
    made = []
    hook = register_module_parameter_registration_hook(lambda _m, _n, p: made.append(p))
    with hook, pytest.raises(ArtifactError):
        load_head(tmp_path)
    assert all(parameter.is_meta for parameter in made)  # 25 s and gigabytes before
    assert len(made) < 10_000


def test_templates_say_nothing_but_where_the_name_goes():
    for wrong in ("{} {x}", "{} {0.__class__}", "{} {", "{}}"):
        with pytest.raises(ValueError, match="exactly one"):
            checked_templates([wrong])


def test_nan_weights_are_refused(parts, tmp_path):
    head = CoOpHead(CLASSES, d_text=32, tail="")
    head.ctx.data[0, 0] = float("nan")
    save_head(tmp_path, head, parts)
    with pytest.raises(ArtifactError, match="finite"):
        load_head(tmp_path)


def test_a_head_of_another_backbone_is_refused(parts, tmp_path):
    save_head(tmp_path, VPTHead(CLASSES, d_vision=32, templates=TEMPLATES), parts)
    other = small_parts()
    with torch.no_grad():
        other.backbone._model.visual_projection.weight.add_(0.1)
    with pytest.raises(ValueError, match="has the same shape"):
        load_head(tmp_path, other)
    config = json.loads((tmp_path / "config.json").read_text())
    config["backbone"]["n_vision_layers"] = 12
    (tmp_path / "config.json").write_text(json.dumps(resealed(config)))
    with pytest.raises(ValueError, match="was trained on"):
        load_head(tmp_path, parts)


def test_class_names():
    assert checked_classes([" 猫 ", "собака", "ein  Hund"]) == ("猫", "собака", "ein Hund")
    for wrong, message in (
        (["cat"], "with one class"),
        ([], "got 0 classes"),
        (["cat", " "], "empty name"),
        (["cat", "Cat"], "are the same"),
        ("cat", "list of class names"),
        (["cat", 3], "list of class names"),
        ([str(i) for i in range(3000)], "at most"),
    ):
        with pytest.raises(ValueError, match=message):
            checked_classes(wrong)
    for wrong in ((), ("a cat",), ("{} and {}",), "a {}"):
        with pytest.raises(ValueError, match="template"):
            checked_templates(wrong)


def test_other_classes_where_the_head_allows_them(parts):
    coop = CoOpHead(CLASSES, d_text=32, tail="")
    assert coop.classifier(parts, ("cat", "two dog")).weights.shape == (2, 16)
    for head in (LinearHead(CLASSES, d_proj=16), CoOpHead(CLASSES, d_text=32, class_specific=True)):
        with pytest.raises(ValueError, match="knows only the classes"):
            head.classifier(parts, ("cat", "two dog"))
    with pytest.raises(ValueError, match="does not know"):
        ZeroShotHead(("cat", "猫"), templates=TEMPLATES).classifier(parts)
