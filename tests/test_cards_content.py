"""What cards say of data, backbones, licences, commands and pictures, and what they keep to themselves."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sae import cards
from sae.concepts.index import ConceptIndex
from sae.storage import write_sealed
from tests.test_cards import COMMIT, SAMPLE, artifact, edit, front, snippets
from training.indexing.sheets import draw_for_card


def test_a_reconstruction_worse_than_the_mean_has_a_card(tmp_path: Path) -> None:
    body = front(artifact(tmp_path, explained_variance=-0.05, fvu=1.05))[1]
    assert "| variance explained | -5.00% | some photos" in body
    assert "(FVU) | 1.05 |" in body


@pytest.mark.parametrize(
    "metrics", [{"fvu": 0.5, "evidence": []}, {"accuracy": {"base": 1}}, {"evidence": {"l0": 1}}]
)
def test_metrics_of_another_shape_are_a_value_error(metrics: dict, tmp_path: Path) -> None:
    write_sealed(artifact(tmp_path) / "metrics.json", {"l0": 3, **metrics})
    with pytest.raises(ValueError, match="lack something that the card needs"):
        cards.write_card(tmp_path)


def test_only_the_hubs_datasets_are_named_as_such(tmp_path: Path) -> None:
    for dataset in ("photos/train, 500 images", "/home/me/photos/train, 500 images"):
        edit(artifact(tmp_path, fvu=0.5) / "training.json", dataset=dataset)
        data, body = front(tmp_path)
        assert "datasets" not in data
        assert data["model-index"][0]["results"][0]["dataset"]["type"] == "images"
        assert "train, 500 images" in body
        assert "/home" not in body
    edit(tmp_path / "training.json", dataset="hf:user/photos:train, 500 images")
    assert front(tmp_path)[0]["datasets"] == ["user/photos"]


@pytest.mark.parametrize("kind", ["sae", "head"])
def test_a_backbone_of_this_machine_is_asked_for_by_name(kind: str, tmp_path: Path) -> None:
    folder = artifact(tmp_path / "run", fvu=0.5)
    where = {"id": "/home/me/models/clip", "revision": None, "layer": 1}
    if kind == "head":
        (folder / "config.json").write_text('{"kind": "coop", "class_names": ["cat", "dog"]}')
    edit(folder / "config.json", backbone=where)
    command = "train.py --backbone /home/me/models/clip --data=/home/me/photos --out '/tmp/a b'"
    edit(folder / "metrics.json", evidence={"fvu": SAMPLE | {"command": command}})
    data, body = front(folder)
    (code,) = snippets(body)
    assert " for clip" in body.splitlines()[0]
    assert 'Backbone.from_pretrained("PATH_TO_THE_BACKBONE"' in code
    assert "clip, is not on the Hub: give the folder where you have it" in code
    assert "`train.py --backbone clip --data=photos --out 'a b'`" in body
    assert "/home" not in (folder / "README.md").read_text()
    assert "base_model" not in data


@pytest.mark.parametrize(
    ("where", "training", "local"),
    [
        ({"id": "bundled", "revision": None}, {"steps": 5}, False),
        ({"id": "openai/clip", "revision": COMMIT}, {"steps": 5}, False),
        ({"id": "openai/clip", "revision": None}, {}, False),
        ({"id": "openai/clip", "revision": None}, {"source": "a/b"}, False),
        ({"id": "timm/vit", "revision": None}, {"steps": 5}, False),
        ({"id": "runs/clip", "revision": None}, {"steps": 5}, True),
        ({"id": "./clip", "revision": None}, {}, True),
        ({"id": "clip", "revision": None}, {}, True),
    ],
)
def test_which_backbones_are_local(where: dict, training: dict, local: bool) -> None:
    assert cards.is_local({"backbone": where}, training) is local


def test_every_command_is_named_with_its_figures(tmp_path: Path) -> None:
    evidence = {"fvu": SAMPLE, "l0": SAMPLE, "accuracy": SAMPLE | {"command": "the other"}}
    edit(artifact(tmp_path, fvu=0.5, l0=4, accuracy=0.5) / "metrics.json", evidence=evidence)
    body = front(tmp_path)[1]
    assert "- variance left unexplained (FVU); active latents per token (L0): `the command`" in body
    assert "- accuracy: `the other`" in body
    assert "Made by" not in body


@pytest.mark.parametrize(
    ("licence", "in_metadata"),
    [("CC-BY-4.0", "cc-by-4.0"), ("code MIT, weights not stated", None), (None, None)],
)
@pytest.mark.parametrize("kind", ["sae", "index", "head"])
def test_licences(kind: str, licence: str | None, in_metadata: str | None, tmp_path: Path) -> None:
    if kind == "sae":
        artifact(tmp_path)
    elif kind == "index":
        ConceptIndex.from_pretrained("bundled").save_pretrained(tmp_path)
    else:
        edit(tmp_path / "config.json", kind="coop", class_names=["cat"])
    if licence:
        edit(tmp_path / "training.json", license=licence, citation="Somebody, 2025")
    data, body = front(tmp_path)
    assert data.get("license") == in_metadata
    assert (f"Licence: {licence}." in body) is bool(licence)
    assert ("Cite Somebody, 2025." in body) is (bool(licence) and kind == "sae")


def head_card(folder: Path, **metrics: Any) -> str:
    edit(folder / "config.json", kind="coop", class_names=["cat", "dog"])
    write_sealed(folder / "metrics.json", metrics)
    return front(folder)[1].split("## Limits")[1]


def test_the_limits_of_a_head_are_what_its_files_say(tmp_path: Path) -> None:
    few = {"method": "coop", "task": "pets", "options": {"shots": 4}}
    assert "Tuned on 4 images of each class of pets." in head_card(tmp_path, **few)
    untuned = head_card(tmp_path, **few | {"method": "zero_shot"})
    for card in (untuned, head_card(tmp_path)):
        assert "Tuned" not in card
        assert "measured" not in card


def test_exemplars_on_a_card(tmp_path: Path) -> None:
    index = ConceptIndex.from_pretrained("bundled")
    index.save_pretrained(tmp_path)
    path = tmp_path / "exemplars.webp"
    draw_for_card(index, path, n=3, each=4)
    with Image.open(path) as picture:
        assert picture.size == (4 * 144, 3 * 160)
        assert np.asarray(picture).std() > 10
    assert "(exemplars.webp)" in front(tmp_path)[1]
    none = np.zeros(0, np.uint8)
    images = index._content.images | {"webp": none}
    images["offsets"] = np.zeros_like(images["offsets"])
    draw_for_card(ConceptIndex(index._content._replace(images=images)), path)
    assert not path.exists(), "an index that keeps no pictures shows none"
