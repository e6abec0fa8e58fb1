"""What a classifier says under edits: sums where it is linear, equal to the model run with the edits."""

from pathlib import Path

import pytest
import torch

from sae.backbones import Backbone
from sae.model import SparseAutoencoder
from sae.steering import ClassSteerer, Edit, Scope, class_candidates
from tests.adaptation.test_class_shares import made
from tests.backbones.pictures import noise
from tests.tiny_models import tiny

EDITS = (
    Edit(3, "set", 2.0, "raw"),
    Edit(7, "ablate"),
    Edit(1, "add", 0.5, "raw", Scope("patches")),
)


def steerer_of(family: str) -> ClassSteerer:
    backbone, sae = made(family)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        limits = torch.rand(40) + 0.5
    return ClassSteerer(backbone, sae, max_activation=limits)


def run_with(steerer: ClassSteerer, latent: int, raw: float) -> torch.Tensor:
    """Probabilities of the model itself with a latent set to `raw` on every token."""
    sae: SparseAutoencoder = steerer.sae

    def changed(x: torch.Tensor) -> torch.Tensor:
        return x + (raw - sae.encode(x)[..., latent, None]) * sae.W_dec[latent]

    with steerer.backbone.edit(-1, changed):
        return steerer.backbone.class_logits([noise(70, 50)])[0].softmax(-1)


@pytest.mark.parametrize("family", ["timm_efficientnet", "timm_resnet", "timm_convnext"])
def test_edits_are_the_model_run_with_them(family: str) -> None:
    steerer = steerer_of(family)
    assert (steerer.readout is None) == (family == "timm_convnext")
    seen = steerer.prepare(noise(70, 50))
    whole = steerer.backbone.class_logits([noise(70, 50)])[0].softmax(-1)
    same = steerer.classify(seen)
    assert torch.allclose(same.before, whole, atol=1e-5)
    assert torch.allclose(same.after, whole, atol=1e-5)
    found = steerer.classify(seen, [Edit(3, "set", 2.0, "raw")])
    assert torch.allclose(found.after, run_with(steerer, 3, 2.0), atol=1e-5)
    many = steerer.classify(seen, EDITS)
    hidden = seen.activations.edited(EDITS)
    with steerer.backbone.edit(-1, lambda _: hidden):
        other = steerer.backbone.class_logits([noise(70, 50)])[0].softmax(-1)
    assert torch.allclose(many.after, other, atol=1e-5)


def test_the_control_is_another_latent_of_the_same_size() -> None:
    steerer = steerer_of("timm_efficientnet")
    seen = steerer.prepare(noise(70, 50))
    found = steerer.classify(seen, {3: 1.0}, control=True)
    assert found.control_latent not in (None, 3)
    change = seen.activations.change([Edit(3, "set", 1.0, "max")])
    direction = steerer.sae.W_dec.detach()[found.control_latent]
    direction = torch.nn.functional.normalize(direction, dim=0)
    moved = change.norm(dim=-1, keepdim=True) * direction
    expected = steerer.logits(seen, moved)[0].softmax(-1)
    assert torch.allclose(found.control, expected, atol=1e-6)
    assert float(moved.detach().norm()) == pytest.approx(float(change.norm()), rel=1e-5)
    rows = found.top(2, 1)
    assert [row.before for row in rows[:2]] == sorted(found.before.tolist())[::-1][:2]
    assert rows[0].control == pytest.approx(float(found.control[found.before.argmax()]))


def test_a_ladder_gives_at_every_dose_what_that_dose_gives_alone() -> None:
    steerer = steerer_of("timm_efficientnet")
    seen = steerer.prepare(noise(70, 50))
    ladder = steerer.ladder(seen, {3: 2.0, 5: -1.0}, (-2.0, 0.0, 3.0), word="class 4")
    assert ladder.original == steerer.class_names[int(seen.logits.argmax())]
    for row in ladder.doses:
        alone = steerer.classify(seen, {3: 2.0 * row.dose, 5: -row.dose} if row.dose else {})
        assert row.p_word == pytest.approx(float(alone.after[4]), abs=1e-6)
        assert row.best == steerer.class_names[int(alone.after.argmax())]
    turned = [row.dose for row in ladder.doses if row.best != ladder.original]
    assert ladder.flip == min(turned, key=abs, default=None)


@pytest.mark.parametrize("less", [False, True])
def test_all_concepts_are_ranked_by_what_they_truly_do(less: bool) -> None:
    steerer = steerer_of("timm_efficientnet")
    seen = steerer.prepare(noise(70, 50))
    found = class_candidates(steerer, seen, "class 4", less=less, n=5)
    alone = [
        float(steerer.classify(seen, [edit]).after[4])
        for latent in range(40)
        for edit in (Edit(latent, "set", 1.0, "max"), Edit(latent, "ablate"))
    ]
    best = sorted(alone, reverse=not less)[:5]
    assert [one.after for one in found] == pytest.approx(best, abs=1e-6)
    for one in found:
        assert one.predicted == pytest.approx(one.actual, abs=1e-4)


def test_where_it_is_not_linear_the_gradient_chooses_and_the_model_is_run() -> None:
    steerer = steerer_of("timm_convnext")
    seen = steerer.prepare(noise(70, 50))
    small = class_candidates(steerer, seen, "class 4", dose=0.01, latents=[8], n=2)
    for one in small:
        after = steerer.classify(seen, [one.edit]).after[4]
        assert one.after == pytest.approx(float(after), abs=1e-6)
        assert one.predicted == pytest.approx(one.actual, rel=0.2, abs=1e-3)


def test_words_mean_classes_and_unknown_ones_are_one_sentence() -> None:
    steerer = steerer_of("timm_efficientnet")
    assert steerer.numbers(" Class  4 ") == [4]
    assert steerer.numbers("class") == list(range(len(steerer.class_names)))
    steerer.wider = {"beast": (1, 5)}
    seen = steerer.prepare(noise(70, 50))
    shares = seen.logits.softmax(-1)
    best, *_ = class_candidates(steerer, seen, "Beast", n=1)
    assert best.before == pytest.approx(float(shares[1] + shares[5]), abs=1e-6)
    with pytest.raises(
        ValueError, match="no class 'dog' among the 7 of this classifier; .*such as class 0"
    ):
        steerer.numbers("dog")
    backbone, sae = made("timm_efficientnet")
    with pytest.raises(ValueError, match="need each latent's maximum"):
        class_candidates(ClassSteerer(backbone, sae), noise(9, 9), "class 1")
    with pytest.raises(ValueError, match="ends without a classifier"):
        ClassSteerer(Backbone.from_model(tiny("timm").model), sae)


def test_it_is_loaded_with_the_saes_own_backbone(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    model = timm.create_model("test_efficientnet", num_classes=7).eval()
    folder = tmp_path / "tower"
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text('{"architecture": "test_efficientnet", "num_classes": 7}')
    backbone = Backbone.from_pretrained(folder)
    _, sae = made("timm_efficientnet")
    assert sae.cfg.d_in == backbone.at(-1).d_model
    ref = type(sae.cfg.backbone)(str(folder), -1)
    cfg = type(sae.cfg)("topk", sae.cfg.d_in, 40, ref, k=4)
    SparseAutoencoder(cfg).save_pretrained(tmp_path / "sae")
    loaded = ClassSteerer.from_pretrained(tmp_path / "sae")
    assert loaded.class_names == tuple(f"class {n}" for n in range(7))
    assert loaded.units == "raw"
