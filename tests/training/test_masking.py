"""Edits and sweeps: nothing changed is nothing changed, and the fast way equals the naive way."""

import pytest
import torch

from sae.adaptation.classifier import accuracy
from sae.adaptation.heads import VPTHead
from sae.adaptation.lens import ERROR_TERMS, ConceptLens, image_sums
from sae.config import INPUT_NORMS
from tests.adaptation.small import CLASSES, TEMPLATES, pictures, small_lens, small_parts
from training.tasks.masking import (
    families_of,
    masked_hidden,
    nested_sums,
    ranks_of,
    sweep,
    usual_ks,
)


@pytest.fixture(scope="module")
def parts():
    return small_parts()


@pytest.fixture(scope="module")
def classifier(parts):
    torch.manual_seed(4)
    head = VPTHead(CLASSES, d_vision=32, templates=TEMPLATES, n_ctx=2, depth=3)
    return head.classifier(parts)


@pytest.mark.parametrize("tokens", ["all", "patches", "cls"])
def test_nothing_switched_off_leaves_the_logits_bit_for_bit(parts, classifier, tokens):
    lens = small_lens(parts, tokens=tokens)
    images = parts.backbone.preprocess(pictures(3))
    reading = lens.read(images, classifier.prompts)
    with torch.no_grad():
        plain = classifier.logits(parts.image_features(images, classifier.prompts))
    hidden = lens.edited(reading, torch.ones(64, dtype=torch.bool), "per_token")
    assert torch.equal(classifier.logits(lens.features(hidden, classifier.prompts)), plain)
    unused = torch.ones(64, dtype=torch.bool)
    unused[[i for i in range(64) if i not in reading.latents.indices.unique()]] = False
    hidden = lens.edited(reading, unused, "per_token")
    assert torch.equal(classifier.logits(lens.features(hidden, classifier.prompts)), plain)


@pytest.mark.parametrize("error", ERROR_TERMS)
@pytest.mark.parametrize("tokens", ["all", "patches", "cls"])
@pytest.mark.parametrize("norm", INPUT_NORMS)
def test_edits_equal_the_dense_formula(parts, classifier, error, tokens, norm):
    lens = small_lens(parts, tokens=tokens, input_norm=norm)
    reading = lens.read(pictures(2), classifier.prompts)
    keep = torch.rand(2, 64, generator=torch.Generator().manual_seed(0)) < 0.5
    x = lens.view.read(reading.hidden)
    latents = lens.sae.encode(x)
    expected = lens.sae.decode(latents * keep[:, None], like=x)
    if error == "per_token":
        expected = expected + x - lens.sae.decode(latents, like=x)
    if error == "scalar":
        expected = expected + 0.25
    whole = reading.hidden.clone()
    whole[:, lens.view.span] = expected
    found = lens.edited(reading, keep, error, 0.25)
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-4)
    # and so do nested sums at the k that splits the same way
    for row in range(2):
        one = reading.pick(slice(row, row + 1))
        k = int(keep[row].sum())
        sums = nested_sums(lens, one, ranks_of(keep[row].float()), [k, 64])
        again = masked_hidden(lens, one, sums[:, :, 0], sums[:, :, -1], error, 0.25)
        torch.testing.assert_close(again, whole[row : row + 1], rtol=1e-4, atol=1e-4)


def naive(lens: ConceptLens, classifier, images, keep: torch.Tensor) -> torch.Tensor:
    """The whole model once, with a hook that encodes, masks and decodes densely."""
    edit = lens.parts.backbone.edit(
        lens.layer, lambda h: lens.sae.decode(lens.sae.encode(h) * keep[:, None])
    )
    with edit, torch.no_grad():
        return classifier.logits(lens.parts.image_features(images, classifier.prompts))


@pytest.mark.slow
def test_a_sweep_equals_whole_forwards_with_hooks(parts, classifier):
    lens = small_lens(parts)
    images = parts.backbone.preprocess(pictures(12))
    labels = torch.arange(12) % 4
    counts = torch.randint(0, 9, (4, 64), generator=torch.Generator().manual_seed(0))
    reading = lens.read(images, classifier.prompts)
    families, ks = families_of(counts), (1, 5, 20, 64)
    found = sweep(lens, classifier, reading, labels, families, ks)
    with torch.no_grad():
        logits = classifier.logits(parts.image_features(images, classifier.prompts))
    assert torch.equal(found["plain"], logits.argmax(-1))
    used = {"oracle": labels, "predicted": found["plain"]}
    zero = torch.zeros(12, dtype=torch.long)
    for family in families:
        for number, k in enumerate(ks):
            on = family.ranks[used.get(family.name, zero)] < k
            for name, keep in (("on", on), ("off", ~on)):
                expected = naive(lens, classifier, images, keep).argmax(-1)
                assert torch.equal(found[f"{family.name}/none/{name}"][number], expected)


def test_with_all_on_and_the_error_term_a_sweep_predicts_as_without(parts, classifier):
    lens = small_lens(parts)
    reading = lens.read(pictures(8), classifier.prompts)
    families = families_of(torch.ones(4, 64, dtype=torch.int64))
    labels = torch.zeros(8, dtype=torch.long)
    found = sweep(lens, classifier, reading, labels, families, (3, 64), ("per_token",))
    for family in ("oracle", "predicted", "dataset", "random"):
        assert torch.equal(found[f"{family}/per_token/on"][-1], found["plain"])


def test_a_scalar_error_term_does_nothing(parts, classifier):
    lens = small_lens(parts)
    reading = lens.read(pictures(2), classifier.prompts)
    keep = torch.arange(64) % 2 == 0
    without, shifted = (lens.edited(reading, keep, error, 0.7) for error in ("none", "scalar"))
    torch.testing.assert_close(shifted, without + 0.7)
    found = [lens.features(hidden, classifier.prompts) for hidden in (without, shifted)]
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


def test_rankings_and_controls():
    assert ranks_of(torch.tensor([0.1, 0.5, 0.3])).tolist() == [2, 0, 1]
    counts = torch.tensor([[0, 5, 0, 1], [0, 1, 7, 0]])
    by_name = {family.name: family.ranks for family in families_of(counts)}
    assert by_name["oracle"].tolist()[0][:2] == [2, 0]
    assert by_name["dataset"][0].argsort().tolist()[:2] == [2, 1]
    assert by_name["random"][0, 0] == 3  # a latent that never fires comes last
    assert usual_ks(300) == (1, 2, 5, 10, 20, 50, 100, 200, 300)
    assert accuracy(torch.eye(4), torch.tensor([0, 1, 2, 0])) == 0.75


def test_image_sums_and_errors(parts):
    values, indices = torch.tensor([[[1.0, 2.0], [4.0, 0.0]]]), torch.tensor([[[3, 1], [3, 0]]])
    assert image_sums(values, indices, 5).tolist() == [[0, 2, 0, 5, 0]]
    lens = small_lens(parts)
    reading = lens.read(pictures(2))
    x = reading.hidden
    assert lens.mean_error(reading) == pytest.approx(float((x - lens.sae(x)).mean()), abs=1e-6)
    with pytest.raises(ValueError, match="expected one of"):
        lens.edited(reading, torch.ones(64, dtype=torch.bool), "some")


def test_an_sae_of_another_width_is_refused(parts):
    from tests.tiny_saes import tiny_sae

    with pytest.raises(ValueError, match="load the SAE of this backbone"):
        ConceptLens(parts, tiny_sae("topk"))
