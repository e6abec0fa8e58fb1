"""The way in for the app: explanations that add up, toggles, free words, names that are not paths."""

import json

import pytest
import torch

from sae.adaptation import files
from sae.adaptation.compare import Comparison
from sae.adaptation.files import save_head
from sae.adaptation.heads import MapleHead, VPTHead, ZeroShotHead
from sae.world.tasks import SPLITS, TASKS, task
from tests.adaptation.small import CLASSES, TEMPLATES, pictures, small_lens, small_parts


@pytest.fixture(scope="module")
def comparison():
    parts = small_parts()
    names = [f"concept {i}" for i in range(64)]
    return Comparison(parts.backbone, small_lens(parts).sae, names)


@pytest.fixture(scope="module")
def pair(comparison):
    torch.manual_seed(2)
    zero = ZeroShotHead(CLASSES, templates=TEMPLATES)
    maple = MapleHead(CLASSES, d_text=32, d_vision=32, depth=3, tail="")
    return zero.classifier(comparison.parts), maple.classifier(comparison.parts)


def test_contributions_and_residual_are_the_margin(comparison, pair):
    found = comparison.explain_with(pictures(1)[0], pair, classes=("cat", "dog"))
    answer = found.to_json()
    json.dumps(answer, allow_nan=False)
    assert answer["classes"] == ["cat", "dog"]
    for number, head in enumerate(answer["heads"]):
        total = head["start"] + sum(row["share"] for row in head["contributions"])
        assert total + head["residual"] == pytest.approx(head["margin"], abs=1e-6)
        parts = head["residual_parts"]
        assert sum(parts.values()) == pytest.approx(head["residual"], abs=1e-4)
        logits = {row["class"]: row["logit"] for row in head["predictions"]}
        assert logits["cat"] - logits["dog"] == pytest.approx(head["margin"], abs=1e-3)
        assert sum(row["probability"] for row in head["predictions"]) == pytest.approx(1, abs=1e-5)
        short = found.to_json(top=3)["heads"][number]
        total = short["start"] + sum(row["share"] for row in short["contributions"])
        total += short["rest"] + short["residual"]
        assert total == pytest.approx(head["margin"], abs=1e-6)
    assert answer["concepts"][0]["name"].startswith("concept ")
    kinds = ("both", "first", "second", "neither")
    assert sum(len(found.changed(kind)) for kind in kinds) == len(found.concepts)


def test_the_default_margin_is_of_what_the_heads_predict(comparison, pair):
    found = comparison.explain_with(pictures(1)[0], pair)
    best = [side.predictions(1)[0].class_name for side in found.sides]
    assert found.classes[0] == best[1]
    if best[0] != best[1]:
        assert found.classes[1] == best[0]
    same = comparison.explain_with(pictures(1)[0], (pair[0], pair[0]))
    assert same.classes[1] == same.sides[0].predictions(2)[1].class_name
    assert same.sides[0].reading is same.sides[1].reading


def test_switching_concepts_off(comparison, pair):
    found = comparison.explain_with(pictures(1)[0], pair)
    nothing = comparison.switched_off(found, [])
    for side, predictions in zip(found.sides, nothing.predictions, strict=True):
        assert predictions == side.predictions()
    for number, side in enumerate(found.sides):
        assert nothing.scores[number] == pytest.approx(side.attribution.score, abs=1e-4)
    off = comparison.switched_off(found, [found.concepts[0].latent])
    assert off.scores != nothing.scores
    with pytest.raises(ValueError, match="no latent 64"):
        comparison.switched_off(found, [64])


def test_maps_are_the_latents_over_the_patches(comparison, pair):
    found = comparison.explain_with(pictures(1)[0], pair)
    latent = found.concepts[0].latent
    maps = found.maps(latent)
    assert maps.shape == (2, 4, 4)
    for number, side in enumerate(found.sides):
        dense = comparison.lens.sae.encode(side.reading.hidden)[0, 1:17, latent]
        torch.testing.assert_close(maps[number].flatten(), dense)
        assert found.concepts[0].activations[number] == pytest.approx(float(dense.max()))


@pytest.mark.parametrize("tokens", ["patches", "cls"])
def test_an_sae_of_some_tokens_is_compared_by_what_it_reads(comparison, pair, tokens):
    sae = small_lens(comparison.parts, tokens=tokens).sae
    found = Comparison(comparison.parts.backbone, sae).explain_with(pictures(1)[0], pair)
    latent, maps = found.concepts[0].latent, found.maps(found.concepts[0].latent)
    assert maps.shape == (2, 4, 4)
    for number, side in enumerate(found.sides):
        read = slice(0, 1) if tokens == "cls" else slice(1, 17)
        dense = sae.encode(side.reading.hidden)[0, read, latent]
        assert found.concepts[0].activations[number] == pytest.approx(float(dense.max()))
        shown = dense if tokens == "patches" else torch.zeros(16)  # CLS has no place
        torch.testing.assert_close(maps[number].flatten(), shown)


def test_free_words(comparison, pair):
    found = comparison.match(pictures(1)[0], "a photo of the cat", pair, against="two dog")
    assert found.classes is None
    assert "rather than" in found.question
    scale, parts = comparison.parts.scale, comparison.parts
    for side, score in zip(found.sides, comparison.switched_off(found, []).scores, strict=True):
        image = parts.image_features(pictures(1), side.classifier.prompts)[0]
        texts = parts.backbone.text_features(["a photo of the cat", "two dog"])
        expected = scale * float(
            (texts[0] - texts[1]) @ torch.nn.functional.normalize(image, dim=-1)
        )
        assert side.attribution.score == pytest.approx(expected, abs=1e-3)
        assert score == pytest.approx(expected, abs=1e-3)
    for wrong in ("", " ", "x" * 300, "zebra"):
        with pytest.raises(ValueError, match="words"):
            comparison.match(pictures(1)[0], wrong, pair)


def test_wrong_questions_are_refused(comparison, pair):
    image = pictures(1)[0]
    with pytest.raises(ValueError, match="no class 'pig'"):
        comparison.explain_with(image, pair, classes=("cat", "pig"))
    with pytest.raises(ValueError, match="give two classes"):
        comparison.explain_with(image, pair, classes=("cat", "cat"))
    other = comparison.for_classes(("cat", "two"), TEMPLATES)
    with pytest.raises(ValueError, match="different classes"):
        comparison.explain_with(image, (pair[0], other))
    for name in ("../fluent", "nothing"):
        with pytest.raises(ValueError, match="no bundled task"):
            comparison.classifier(name, "zero_shot")
    for name in ("../zero_shot", "magic", ""):
        with pytest.raises(ValueError, match="has no head"):
            comparison.classifier("fluent", name)
    with pytest.raises(ValueError, match="base or novel"):
        comparison.classifier("fluent", "zero_shot", "all")


def test_heads_of_a_folder_are_listed_zero_shot_first(comparison, tmp_path):
    parts = comparison.parts
    names = [each.name for each in TASKS]
    for kind in ("vpt", "mine"):
        save_head(
            tmp_path / names[0] / kind, VPTHead(CLASSES, d_vision=32, templates=TEMPLATES), parts
        )
    assert files.head_names(names[0], tmp_path) == ["zero_shot", "vpt", "mine"]
    assert files.head_names(names[1], tmp_path) == ["zero_shot"]
    assert [each["name"] for each in files.list_tasks(tmp_path)] == names
    assert files.accuracies(names[0], "vpt", tmp_path) == {}
    assert files.results(names[0], tmp_path) == {}
    own = Comparison(parts.backbone, comparison.lens.sae, root=tmp_path)
    assert own.with_classes(names[0], "mine", ("cat", "two")).class_names == ("cat", "two")
    with pytest.raises(ValueError, match="was trained on"):
        files.open_head(names[0], "vpt", wider_parts(), tmp_path)


def wider_parts():
    """The bundled CLIP: other shapes."""
    from sae.backbones import Backbone
    from sae.backbones.prompting import ClipParts

    return ClipParts(Backbone.from_pretrained("bundled"))


def test_bundled_tasks_draw_what_they_promise():
    assert len(TASKS) >= 3
    for each in TASKS:
        assert not set(each.base) & set(each.novel)
        for split in SPLITS:
            few = each.few_shot(split, 2, seed=0)
            again = each.few_shot(split, 2, seed=0)
            assert (few.images == again.images).all()
            assert few.images.shape == (2 * len(each.classes(split)), 96, 96, 3)
            assert len(set(few.labels.tolist())) == len(each.classes(split))
            other = each.test(split, 5)
            assert not (other.images[0] == few.images[0]).all()
            assert len(other.pictures()) == 5
    with pytest.raises(ValueError, match="no bundled task"):
        task("magic")
    for wrong in (0, 10**6):
        with pytest.raises(ValueError, match="were asked for"):
            task("wider").few_shot("base", wrong, seed=0)
        with pytest.raises(ValueError, match="were asked for"):
            task("wider").test("base", wrong)


def test_every_class_name_is_in_the_bundled_vocabulary():
    parts = wider_parts()
    for each in TASKS:
        for split in SPLITS:
            made = ZeroShotHead(each.classes(split), templates=each.templates).classifier(parts)
            assert len(made.class_names) == len(each.classes(split))
