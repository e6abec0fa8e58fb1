"""Cards say what the JSON files say, in metadata that the Hub understands, and nothing more."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from PIL import Image

from sae import cards
from sae.cards import write_card
from sae.concepts.index import ConceptIndex
from sae.storage import SEAL, sealed, write_sealed
from tests.tiny_saes import tiny_sae

SAMPLE = {"command": "the command", "data": "some photos", "n_images": 60, "n_tokens": 12_345}
FIGURES = {"fvu": 0.25, "l0": 97.82539, "dead_fraction": 0.015}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def artifact(folder: Path, **figures: float) -> Path:
    tiny_sae("topk").save_pretrained(folder)
    metrics = {**figures, "evidence": dict.fromkeys(figures, SAMPLE)}
    (folder / "metrics.json").write_text(json.dumps(sealed(metrics)))
    return folder


def edit(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text()) if path.exists() else {}
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(content.get(key), dict):
            content[key] |= value
        else:
            content[key] = value
    content.pop(SEAL, None)
    write_sealed(path, content)


def front(folder: Path, repo_id: str = "user/name") -> tuple[dict[str, Any], str]:
    write_card(folder, repo_id)
    text = (folder / "README.md").read_text(encoding="utf-8")
    found = re.match(r"---\n(.*?)\n---\n(.*)", text, re.DOTALL)
    assert found
    return yaml.safe_load(found[1]), found[2]


def test_metadata_that_the_hub_understands(tmp_path: Path) -> None:
    edit(
        artifact(tmp_path, **FIGURES) / "config.json",
        backbone={"id": "openai/clip-vit-base-patch16", "revision": COMMIT},
    )
    edit(tmp_path / "training.json", dataset="hf:user/photos:train, 500 images", license="mit")
    data, _ = front(tmp_path)
    assert data["library_name"] == "patchlens"
    assert data["base_model"] == "openai/clip-vit-base-patch16"
    assert data["base_model_relation"] == "adapter"
    assert data["datasets"] == ["user/photos"]
    assert data["license"] == "mit"
    assert {"sparse-autoencoder", "topk"} <= set(data["tags"])
    card = ModelCard((tmp_path / "README.md").read_text())
    results = {r.metric_type: r for r in card.data.eval_results}
    assert set(results) == set(FIGURES)
    assert results["l0"].metric_value == 97.82539
    assert results["l0"].dataset_name == "some photos"


def test_percentages_are_shares_and_l0_is_not(tmp_path: Path) -> None:
    _, body = front(artifact(tmp_path, **FIGURES))
    rows = {r[0]: r[1] for r in re.findall(r"\| ([^|]+) \| ([^|]+) \| some photos", body)}
    assert rows["latents that never fired"] == "1.50%"
    assert rows["variance left unexplained (FVU)"] == "0.25"
    assert rows["active latents per token (L0)"] == "97.83"
    assert "some photos; 60 images; 12,345 tokens" in body
    assert "Made by `the command`" in body


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("dead_fraction", 1.5), ("dead_fraction", -0.1), ("l0", -3), ("l0", float("nan"))],
        *[("explained_variance", 98.4), ("explained_variance", float("-inf"))],
    ],
)
def test_an_impossible_figure_is_refused(name: str, value: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"metrics.json: ({name} = {value}|found the number)"):
        write_card(artifact(tmp_path, **{name: value}))


def test_a_missing_figure_is_left_out(tmp_path: Path) -> None:
    data, body = front(artifact(tmp_path, l0=16.0))
    assert "FVU" not in body
    assert "never fired" not in body
    assert len(data["model-index"][0]["results"]) == 1
    (tmp_path / "metrics.json").unlink()
    data, body = front(tmp_path)
    assert "model-index" not in data
    assert "Figures\n" not in body
    assert "Training\n" not in body


@pytest.mark.parametrize(
    "backbone",
    [
        {"id": "bundled"},
        {"id": "runs/backbone", "revision": None, "family": "clip"},
        {"id": "./a/b", "revision": None},
        {"id": "/models/clip", "revision": None},
        {"id": "a/b/c", "revision": COMMIT},
    ],
)
def test_no_base_model_for_what_is_not_on_the_hub(backbone: dict, tmp_path: Path) -> None:
    edit(artifact(tmp_path) / "config.json", backbone={"revision": None, **backbone})
    assert "base_model" not in front(tmp_path)[0]


def test_a_local_folder_is_no_base_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models" / "clip").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert cards.base_model({"backbone": {"id": "models/clip", "revision": COMMIT}}) is None
    assert cards.base_model({"backbone": {"id": "hf-hub:laion/x", "revision": COMMIT}}) == "laion/x"


def test_nothing_in_a_config_breaks_out_of_the_metadata(tmp_path: Path) -> None:
    edit(artifact(tmp_path) / "training.json", dataset="x", license="mit\nlibrary_name: other")
    assert front(tmp_path)[0]["library_name"] == "patchlens"


def test_pictures_that_lie_there_are_shown(tmp_path: Path) -> None:
    assert "![" not in front(artifact(tmp_path))[1]
    (tmp_path / "curves.png").write_bytes(b"x")
    assert "![Training curves](curves.png)" in front(tmp_path)[1]


def test_a_converted_sae_says_where_it_came_from(tmp_path: Path) -> None:
    edit(artifact(tmp_path) / "training.json", source="a/b", source_format="saev")
    assert "Converted from `a/b` (saev)." in front(tmp_path)[1]


def test_the_card_of_an_index(tmp_path: Path) -> None:
    ConceptIndex.from_pretrained("bundled").save_pretrained(tmp_path)
    data, body = front(tmp_path, "user/index")
    assert "concepts" in data["tags"]
    assert "each of 2,048 latents" in body
    assert 'ConceptIndex.from_pretrained("user/index")' in body


def test_the_card_of_a_head(tmp_path: Path) -> None:
    where = {"id": "openai/clip-vit-base-patch16", "revision": COMMIT, "layer": 10}
    config = {"kind": "coop", "class_names": ["cat", "dog"], "backbone": where}
    edit(tmp_path / "config.json", **config)
    edit(tmp_path / "metrics.json", accuracy=0.875, evidence={"accuracy": SAMPLE})
    data, body = front(tmp_path, "user/head")
    assert data["base_model"] == "openai/clip-vit-base-patch16"
    assert data["pipeline_tag"] == "image-classification"
    assert "2 classes" in body
    assert "| accuracy | 87.50% | some photos" in body
    assert data["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.875


def test_accuracies_on_base_and_novel_classes(tmp_path: Path) -> None:
    edit(tmp_path / "config.json", kind="maple", task="pets")
    accuracy = {"base": {"mean": 0.9512, "std": 0.01}, "novel": {"mean": 0.75, "std": 0.0}}
    edit(tmp_path / "metrics.json", accuracy=accuracy, task="pets", command="prompts.py …")
    data, body = front(tmp_path, "user/head")
    assert "# maple, pets" in body
    assert "| accuracy, base classes | 95.12% | pets |" in body
    assert "| accuracy, novel classes | 75.00% | pets |" in body
    assert "Made by `prompts.py …`" in body
    assert len(data["model-index"][0]["results"][0]["metrics"]) == 2


def snippets(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_the_snippets_of_the_bundled_cards_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (96, 96), "green").save("photo.jpg")
    bundled = cards.TEMPLATES.parent / "sae" / "bundled" / "sae"
    for kind in ("sae", "index"):
        monkeypatch.setattr(cards, "kind_of", lambda _, kind=kind: kind)
        found = snippets(cards.render(bundled, "bundled"))
        assert len(found) == 1
        exec(found[0], {"print": lambda *_: None})
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    head, said = bundled.parent / "heads" / "fluent" / "coop", []
    (code,) = snippets(cards.render(head, str(head)))
    exec(code, {"print": said.append})
    assert said[0] in json.loads((head / "config.json").read_text())["class_names"]


def test_templates_ship_with_the_package() -> None:
    import tomllib

    root = cards.TEMPLATES.parent
    setup = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "hub_cards" in setup["packages"]["find"]["include"]
    assert "*.md" in setup["package-data"]["hub_cards"]
    assert "interop/presets.toml" in setup["package-data"]["sae"]
    assert {p.name for p in cards.TEMPLATES.glob("*.md")} == {
        "sae.md",
        "index.md",
        "figures.md",
        "head.md",
        "space.md",
    }


def test_a_share_of_dead_latents_comes_with_its_tokens_or_not_at_all(tmp_path: Path) -> None:
    folder = artifact(tmp_path, **FIGURES)
    sample = {"data": "photos", "n_images": 100, "n_tokens": 25_700}
    edit(folder / "metrics.json", evidence=dict.fromkeys(FIGURES, sample))
    data, text = front(folder)
    results = {m["type"]: m for m in data["model-index"][0]["results"][0]["metrics"]}
    assert results["dead_fraction"]["name"] == "latents that never fired in 25,700 tokens"
    assert "| latents that never fired | 1.50% | photos; 100 images; 25,700 tokens |" in text
    edit(folder / "metrics.json", dead_fraction=None)
    data, text = front(folder)
    results = {m["type"] for m in data["model-index"][0]["results"][0]["metrics"]}
    assert "dead_fraction" not in results
    assert "| latents that never fired | not measured | photos; 100 images; 25,700 tokens |" in text
    few = {**sample, "n_tokens": 257}  # an older run, which told every share
    edit(folder / "metrics.json", dead_fraction=0.4, evidence={"dead_fraction": few})
    data, text = front(folder)
    results = {m["type"] for m in data["model-index"][0]["results"][0]["metrics"]}
    assert "dead_fraction" not in results
    assert "| latents that never fired | not measured | photos; 100 images; 257 tokens |" in text
