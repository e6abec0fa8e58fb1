"""ConceptIndex: hand-made statistics, exemplars where the latent fires, strict files."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from sae.concepts.build import Item, _levels, build_index
from sae.concepts.index import ConceptIndex, histogram_edges
from sae.concepts.naming import name_latents
from sae.config import BackboneRef, SAEConfig
from sae.model import SparseAutoencoder
from sae.storage import ArtifactError


class FakeBackbone:
    """One CLS and a 2 × 2 grid; the activation of a token is (its picture's red level, token number)."""

    n_prefix, patch_grid = 1, (2, 2)

    def activations(self, images, layer):  # noqa: ARG002
        red = torch.tensor([float(image.getpixel((0, 0))[0]) for image in images])
        tokens = torch.arange(5.0)
        return torch.stack([red[:, None].expand(-1, 5), tokens.expand(len(images), -1)], dim=-1)

    def image_box(self, size):
        return (0.0, 0.0, float(size[0]), float(size[1]))


class Reds:
    """Images of rising red; the label says odd or even."""

    name = "reds"

    def __init__(self, levels: list[int]) -> None:
        self.levels = levels

    def __len__(self) -> int:
        return len(self.levels)

    def __getitem__(self, number: int) -> Item:
        level = self.levels[number]
        return Item(
            Image.new("RGB", (8, 8), (level, 0, 0)), "odd" if number % 2 else "even", f"red {level}"
        )


def make_sae() -> SparseAutoencoder:
    """Latent 0 = red / 10 on every token; latent 1 = (token number - 3) on token 4 alone; latent 2 dead."""
    ref = BackboneRef("fake", 0)
    sae = SparseAutoencoder(SAEConfig("relu", 2, 3, ref))
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.zero_()
        sae.W_enc[0, 0], sae.W_enc[1, 1] = 0.1, 1.0
        sae.b_enc.copy_(torch.tensor([0.0, -3.0, -1.0]))
    return sae.eval()


@pytest.fixture(scope="module")
def index() -> ConceptIndex:
    return build_index(
        Reds([0, 10, 20, 30] * 10), FakeBackbone(), make_sae(), batch=7, sae_sha256="ab"
    )


def test_statistics_are_the_hand_computed_ones(index):
    assert index.n_images == 40
    assert index.n_tokens == 200
    assert index.frequency.tolist() == [0.75, 1.0, 0.0]
    assert index.token_frequency.tolist() == pytest.approx([0.75, 0.2, 0.0])
    assert index.max_activation.tolist() == [3.0, 1.0, 0.0]
    assert index.mean_activation.tolist() == pytest.approx([2.0, 0.2, 0.0])
    assert index.dead.tolist() == [False, False, True]
    assert index.dense.tolist() == [True, True, False]


def test_histogram_counts_images_by_maximum(index):
    counts = np.array(index.concept(0).histogram)
    edges = histogram_edges()
    expected = np.histogram([1.0] * 10 + [2.0] * 10 + [3.0] * 10, edges)[0]
    assert counts.tolist() == expected.tolist()


def test_entropy_of_labels(index):
    """Latent 0's ten best all have red 30, whose numbers 3, 7 … are odd; latent 1 fires alike on all, so its
    first ten images, half of them odd, count equally."""
    assert index.entropy[0] == pytest.approx(0.0, abs=1e-6)
    assert index.entropy[1] == pytest.approx(np.log(2), abs=1e-6)
    assert index.entropy[2] == -1


def test_exemplars_fall_from_top_to_low_and_never_repeat(index):
    levels = index.concept(0).exemplars
    assert [e.label for e in levels["top"]] == ["red 30"] * 9
    shown = [e.image_id for rows in levels.values() for e in rows]
    assert len(shown) == len(set(shown)) == 27
    values = [e.activation for name in ("top", "middle", "low") for e in levels[name]]
    assert values == sorted(values, reverse=True)
    assert levels["low"][-1].activation == pytest.approx(1.0)


def test_firing_patches_are_the_patches_where_it_fires(index):
    first = index.concept(1).exemplars["top"][0]
    assert first.patches == [3]
    assert first.values == pytest.approx([1.0], abs=1e-3)
    assert sorted(index.concept(0).exemplars["top"][0].patches) == [0, 1, 2, 3]


def test_thumbnails_are_pictures_of_the_exemplars(index):
    exemplar = index.concept(0).exemplars["top"][0]
    with Image.open(io.BytesIO(index.thumbnail(exemplar.image_id))) as picture:
        assert picture.format == "WEBP"
        assert abs(picture.convert("RGB").getpixel((4, 4))[0] - 30) < 8


@pytest.mark.parametrize("count", [1, 5, 9, 10, 14, 18, 19, 27, 28, 500])
def test_levels_are_disjoint_and_ordered(count):
    ranks = np.concatenate(_levels(count))
    assert len(ranks) == len(set(ranks.tolist())) <= 27
    assert ranks.tolist() == sorted(ranks.tolist())
    assert ranks[0] == 0
    assert ranks.max() == (count - 1 if count > 9 else min(count, 9) - 1)


def test_save_and_load_give_equal_arrays(index, tmp_path):
    index.save_pretrained(tmp_path)
    again = ConceptIndex.from_pretrained(tmp_path)
    for field in ("frequency", "token_frequency", "mean_activation", "max_activation", "entropy"):
        assert np.array_equal(getattr(index, field), getattr(again, field))
    for latent in range(3):
        assert index.concept(latent) == again.concept(latent)


def test_names_come_from_the_word_nearest_to_the_exemplars(index):
    """Images of red 30 point along axis 1, all others along axis 0; latent 0's exemplars are red 30."""
    numbers = np.unique(index.exemplar_table("top")[0])
    numbers = numbers[numbers >= 0]
    features = np.array([np.eye(2)[int(n % 4 == 3)] for n in numbers])
    named = name_latents(index, ["dull", "bright"], np.eye(2), numbers, features, minimum=0.1)
    assert named.names[0] == "bright"
    assert named.name_sources[0] == "text tower"
    similarity = features[:, 1]
    score = (1 - similarity.mean()) / similarity.std()
    assert named.name_scores[0] == pytest.approx(score, abs=1e-3)
    assert named.names[2] == ""
    assert index.names[0] == ""


def test_weak_names_are_left_out(index):
    numbers = np.arange(40)
    features = np.array([np.eye(2)[int(n % 4 == 3)] for n in numbers])
    named = name_latents(index, ["dull", "bright"], np.eye(2), numbers, features, minimum=99.0)
    assert named.names == ["", "", ""]


def test_no_such_latent(index):
    with pytest.raises(IndexError, match="0 to 2"):
        index.concept(3)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("index.json", lambda d: d | {"format": 9}, "format 9"),
        ("index.json", lambda d: d | {"extra": 1}, "unknown key"),
        ("index.json", lambda d: d | {"grid": [0, 2]}, "grid"),
        ("index.json", lambda d: {k: v for k, v in d.items() if k != "d_sae"}, "d_sae"),
        ("index.json", lambda d: d | {"d_sae": 4}, "frequency"),
        ("names.json", lambda d: d | {"names": ["x"]}, "names"),
        ("captions.json", lambda d: d[:-1], "entries"),
    ],
)
def test_damage_is_refused(index, tmp_path, file, change, message):
    index.save_pretrained(tmp_path)
    path = tmp_path / "concepts" / file
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(ArtifactError, match=message):
        ConceptIndex.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "file", ["statistics.safetensors", "exemplars.safetensors", "images.safetensors"]
)
def test_missing_and_truncated_tensors_are_refused(index, tmp_path, file):
    index.save_pretrained(tmp_path)
    path = tmp_path / "concepts" / file
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ArtifactError, match=file):
        ConceptIndex.from_pretrained(tmp_path)
    path.unlink()
    with pytest.raises(ArtifactError, match="no such file"):
        ConceptIndex.from_pretrained(tmp_path)


def test_a_folder_without_an_index_says_so(tmp_path):
    with pytest.raises(ArtifactError, match="index.json"):
        ConceptIndex.from_pretrained(tmp_path)
