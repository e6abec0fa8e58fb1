"""What ships in sae/bundled/heads: whole, small, of the bundled CLIP, and as good as it says."""

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoTokenizer, CLIPModel

from sae.adaptation import files
from sae.adaptation.classifier import accuracy, classify
from sae.adaptation.compare import Comparison
from sae.backbones import Backbone
from sae.model import SparseAutoencoder
from sae.storage import read_sealed
from sae.world.tasks import TASKS, task

EXPECTED = ["zero_shot", "coop", "vpt", "maple"]


@pytest.fixture(scope="module")
def comparison():
    sae = SparseAutoencoder.from_pretrained("bundled")
    return Comparison(Backbone.from_pretrained("bundled"), sae)


def test_every_task_has_its_heads_within_a_megabyte():
    assert [files.head_names(each.name) for each in TASKS] == [EXPECTED] * len(TASKS)
    sizes = [path.stat().st_size for path in files.ROOT.rglob("*") if path.is_file()]
    assert sum(sizes) <= 1 << 20


@pytest.mark.parametrize("name", [each.name for each in TASKS])
def test_heads_are_as_good_as_their_metrics_say(comparison, name):
    examples = task(name).test("base", 60)
    inputs = comparison.parts.backbone.preprocess(examples.pictures())
    labels = torch.from_numpy(examples.labels)
    for head in EXPECTED:
        metrics = read_sealed(files.ROOT / name / head / "metrics.json")
        assert len(metrics["seeds"]) == (1 if head == "zero_shot" else 3)
        classifier = comparison.classifier(name, head)
        with torch.no_grad():
            features = comparison.parts.image_features(inputs, classifier.prompts, cls_only=True)
        found = accuracy(classifier.logits(features), labels)
        assert found == pytest.approx(metrics["seeds"][0]["base"], abs=0.2)  # 60 pictures of 600


@pytest.mark.parametrize("name", [each.name for each in TASKS])
def test_zero_shot_logits_are_those_of_plain_transformers(comparison, name):
    found, folder = task(name), files.ROOT.parent / "clip"
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32)
    texts = [text.format(kind) for kind in found.base for text in found.templates]
    words = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    inputs = comparison.parts.backbone.preprocess(found.test("base", 12).pictures())
    with torch.no_grad():
        text = model.get_text_features(words["input_ids"], words["attention_mask"]).pooler_output
        mean = F.normalize(text, dim=-1).unflatten(0, (len(found.base), -1)).mean(1)
        image = model.get_image_features(inputs["pixel_values"]).pooler_output
        image, weights = F.normalize(image, dim=-1), F.normalize(mean, dim=-1)
        expected = image @ weights.T * model.logit_scale.exp()
    ours = classify(comparison.parts, comparison.classifier(name, "zero_shot"), inputs)
    # logits of up to 30 in float32, whose last bit is 2e-6
    torch.testing.assert_close(ours, expected, rtol=5e-7, atol=1e-5)


@pytest.mark.parametrize("name", [each.name for each in TASKS])
def test_task_level_results_are_there(comparison, name):
    for head in EXPECTED[1:]:
        found = comparison.results(name, head)
        assert found["heads"] == ["zero_shot", head]
        assert found["base"]["scatter"]["class_names"] == list(task(name).base)
        assert all(len(point) == 4 for point in found["base"]["scatter"]["points"])
        masking = found["masking"][head]
        for family in ("oracle", "predicted", "dataset", "random"):
            curve = masking["curves"][f"{family}/per_token/on"]
            assert len(curve) == len(masking["ks"])
            assert curve[-1] == masking["plain"]
    assert comparison.results(name, "magic") is None


@pytest.mark.parametrize(
    ("name", "head"),
    [("fluent", "vpt"), ("fluent", "maple"), ("wider", "maple"), ("texture", "vpt")],
)
def test_a_gain_from_existing_concepts_comes_with_its_control(comparison, name, head):
    base = comparison.results(name, head)["base"]
    found, gain = base["chance"], base["gain"]
    shares = found["per_token"]
    assert shares["images"] == 1200
    assert shares["gain"] == pytest.approx(gain["second"] - gain["first"], abs=0.05)
    for part in ("existing", "random", "difference"):
        value, low, high = shares[part]
        assert low <= value <= high
    new, random = found["removed"]["new mass"], found["removed"]["random mass"]
    assert random == pytest.approx(new, rel=0.05)


def test_prompts_help_where_they_should():
    """Issue: MaPLe or VPT at least 10 points above zero-shot on base on two tasks or more."""
    better = 0
    for each in TASKS:
        base = {head: files.accuracies(each.name, head)["base"]["mean"] for head in EXPECTED}
        better += max(base["vpt"], base["maple"]) - base["zero_shot"] >= 0.1
    assert better >= 2
