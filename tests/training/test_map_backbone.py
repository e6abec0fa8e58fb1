"""An SAE on the feature maps of a convolutional network: trained, from a store, measured, indexed, shown."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sae.backbones import Backbone
from sae.concepts.index import ConceptIndex
from sae.model import SparseAutoencoder
from sae.ui.analysis import Analyst
from tests.tiny_models import tiny
from tests.training.training_parts import picture
from training import evaluate, extract, index, train

LAYERS = {-1: (256, (2, 2)), 2: (32, (8, 8))}
"""Width and grid of some maps of the tiny EfficientNet at 64 px."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("maps")
    model = tiny("timm_efficientnet").model
    cfg = {"input_size": [3, 64, 64], "crop_pct": 1.0, "mean": [0.5] * 3, "std": [0.5] * 3}
    described = {"architecture": "test_efficientnet", "num_classes": 7}
    (root / "net").mkdir()
    (root / "net" / "config.json").write_text(json.dumps({**described, "pretrained_cfg": cfg}))
    save_file(model.state_dict(), root / "net" / "model.safetensors")
    for number in range(80):
        folder = root / "data" / ("one", "two")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        picture(number).save(folder / f"{number:02}.png")
    return root


def words(text: str, **names: object) -> list[str]:
    return text.format(**names).split()


@pytest.mark.slow
@pytest.mark.parametrize("layer", LAYERS)
def test_the_whole_way(world: Path, layer: int, capsys: pytest.CaptureFixture[str]) -> None:
    width, grid = LAYERS[layer]
    net, data, out, store = (
        world / "net",
        world / "data",
        world / f"sae{layer}",
        world / f"s{layer}",
    )
    small = "--arch topk --d-sae 40 --k 4 --steps 4 --batch-size 32 --eval-images 4 --buffer 4"
    given = {"net": net, "data": data, "out": out, "store": store, "layer": layer}
    one = words(
        f"--backbone {{net}} --layer {{layer}} --data {{data}} --out {{out}} {small}", **given
    )
    assert train.main(one) == 0
    sae = SparseAutoencoder.from_pretrained(out)
    assert (sae.cfg.d_in, sae.cfg.backbone.family) == (width, "timm")
    extract.main(words("--backbone {net} --layer {layer} --data {data} --out {store}", **given))
    stored = words(
        f"--backbone {{net}} --layer {{layer}} --data {{store}} --out {{out}}s {small}", **given
    )
    assert train.main(stored) == 0
    capsys.readouterr()
    evaluate.main(words("--sae {out} --data {data} --n-images 4", **given))
    figures = json.loads(capsys.readouterr().out)
    assert figures["n_tokens"] == 4 * grid[0] * grid[1], figures
    index.main(words("--sae {out} --data {data}", **given))
    made = ConceptIndex.beside(out)
    assert made is not None
    backbone = Backbone.of(sae.cfg.backbone)
    assert (backbone.d_model, backbone.patch_grid) == (width, grid)
    seen = Analyst(backbone, sae).analyse(picture(3))
    x = backbone.activations([picture(3)], layer)[0]
    error = (x - sae.decode(sae.encode(x))).square().sum(1)
    assert torch.allclose(torch.from_numpy(seen.error), error, rtol=1e-4, atol=1e-5)
