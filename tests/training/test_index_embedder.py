"""MonoSemanticity in an index: any image encoder, EfficientNet-Lite0 among them, raw neurons beside."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sae.backbones import Backbone
from sae.backbones.image_encoder import image_encoder, timm_shapes
from sae.concepts.build.image_pass import untrained_beside
from sae.concepts.index import ConceptIndex
from sae.metrics.monosemanticity import monosemanticity
from sae.metrics.untrained import CHANCE, NAMES, RANDOM_TOKENS
from sae.model import SparseAutoencoder
from tests.training.index_parts import make_world, words
from training.embedder import main as convert
from training.index import main
from training.indexing.labelled import open_labelled

pytest.importorskip("timm")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("index"))


@pytest.fixture(scope="module")
def efficientnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """EfficientNet-Lite0 with random weights, made from a .pth file as the package has one."""

    pytest.importorskip("timm")
    from training.embedder import main as convert

    folder = tmp_path_factory.mktemp("efficientnet")
    generator = torch.Generator().manual_seed(0)
    named = {
        f"_layer.{number}": torch.rand(shape, generator=generator) * 0.1
        for number, shape in enumerate(timm_shapes("tf_efficientnet_lite0").values())
    }
    torch.save({**named, "_bn.num_batches_tracked": torch.tensor(1)}, folder / "weights.pth")
    convert(["--weights", str(folder / "weights.pth"), "--out", str(folder)])
    return folder


def test_monosemanticity_by_an_embedder(
    world: Path, efficientnet: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    more = ("--embedder", str(efficientnet), "--n-images", "12", "--no-thumbnails")
    main(words(world, tmp_path, *more))
    figures = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    index = ConceptIndex.from_pretrained(tmp_path)
    assert index.n_images == 12
    assert index.embedder == efficientnet.name
    scores = index.statistics["monosemanticity"]
    assert figures["monosemanticity_mean"] == pytest.approx(float(np.nanmean(scores)))
    assert np.nanmax(np.abs(scores)) <= 1
    # raw neurons beside it: the same measure on the backbone's mean activations
    data, encode = open_labelled(str(world / "data"), 12), image_encoder(str(efficientnet))
    images = [data[number].image for number in range(12)]
    backbone = Backbone.from_pretrained(str(world / "clip"))
    neurons = backbone.activations(images, -2).mean(1)
    expected = monosemanticity(neurons, encode(images)).mean()
    assert index.neuron_monosemanticity["mean"] == pytest.approx(float(expected), abs=1e-6)
    assert figures["monosemanticity_mean_of_neurons"] == index.neuron_monosemanticity["mean"]
    # and what nobody trained, as sparse as the SAE, from the same pass
    beside = index.monosemanticity_beside
    assert list(beside) == [CHANCE, *NAMES]
    assert all(
        figures[f"monosemanticity_mean_of_{n.replace(' ', '_')}"] == beside[n]["mean"]
        for n in beside
    )
    sae = SparseAutoencoder.from_pretrained(world / "sae")
    units = encode(images).double()
    assert beside[CHANCE]["mean"] == pytest.approx(
        float((units @ units.T)[*torch.triu_indices(12, 12, 1)].mean())
    )
    (_, _, tokens) = untrained_beside(data, backbone, sae)
    scores = monosemanticity(tokens.means(backbone.activations(images, -2)), encode(images))
    assert beside[RANDOM_TOKENS]["mean"] == pytest.approx(
        float(scores[~scores.isnan()].mean()), abs=1e-6
    )


def test_weights_of_another_model_are_refused(tmp_path: Path):
    torch.save({"one": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(SystemExit, match="shapes differ"):
        convert(["--weights", str(tmp_path / "other.pth"), "--out", str(tmp_path)])
