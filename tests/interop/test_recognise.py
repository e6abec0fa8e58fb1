"""Another library's SAE where ours was expected: whose it is, and the call that opens it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sae.errors import ArtifactError, HubFileNotFound, PatchLensError
from sae.interop.foreign import language_model
from sae.model import SparseAutoencoder
from tests.interop.published import PUBLISHED, as_json
from tests.local_hub import LocalHub, using
from tests.tiny_saes import tiny_sae

CALLS = {
    "patchsae": "PatchSAE and HugoFry.*from_other",
    "fastsae": "FastSAE.*from_other",
    "dictionary_learning BatchTopKSAE": "dictionary_learning: .*backbone='ID', layer=N",
    "prisma relu": "ViT-Prisma.*from_other",
    "saelens standard": "SAELens 6.*from_other",
    "saev TopK": "saev: .*backbone='ID', layer=N",
    "visaebench topk": "visaebench.*backbone='ID', layer=N",
    "overcomplete pickled l2": "overcomplete.*backbone='ID', layer=N",
    "overcomplete plain": "overcomplete.*but: .*does not say k.*Give --k",
}


@pytest.mark.parametrize("case", CALLS)
def test_a_folder_says_whose_it_is_and_the_call(case: str, tmp_path: Path) -> None:
    made = PUBLISHED[case][1](tmp_path)
    folder = made.source if made.source.is_dir() else made.source.parent
    with pytest.raises(ArtifactError, match=f"It looks like {CALLS[case]}"):
        SparseAutoencoder.from_pretrained(folder)


def test_the_call_that_is_told_opens_it(tmp_path: Path) -> None:
    PUBLISHED["saelens standard"][1](tmp_path)
    with pytest.raises(ArtifactError) as told:
        SparseAutoencoder.from_pretrained(tmp_path)
    call = str(told.value).split("Open it with ")[1].split(", or convert")[0]
    assert call == f"SparseAutoencoder.from_other({str(tmp_path)!r})"
    assert SparseAutoencoder.from_other(tmp_path, tokens="all").cfg.backbone.id == "a/b"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (("layer_20/width_16k/average_l0_71/params.npz",), "Gemma Scope's .text.: params.npz"),
        (("L0R/hyperparams.json", "L0R/checkpoints/final.safetensors"), "Llama Scope's .text."),
        (
            ("blocks.8/cfg.json", "blocks.8/sae_weights.safetensors"),
            "SAELens.*--subfolder blocks.8 ",
        ),
        (
            ("layers.10/cfg.json", "layers.10/sae.safetensors"),
            "eai-sparsify.*--subfolder layers.10",
        ),
        (("layer_6/3zih0tpa/sae.pt",), "saev.*--subfolder layer_6/3zih0tpa"),
        (("22_resid/1200013184.pt", "2_resid/9.pt"), "CLIP-Scope.*22_resid.*another of 2 folders"),
        (
            ("weights.npz", "other.safetensors"),
            "It holds other.safetensors, weights.npz, in no format",
        ),
        (("notes.txt",), "Is it a PatchLens artifact"),
    ],
)
def test_a_repository_says_whose_it_is(files: tuple[str, ...], words: str, tmp_path: Path) -> None:
    with LocalHub() as server, using(server, tmp_path / "cache"):
        server.add("a/b", dict.fromkeys(files, b"x"))
        with pytest.raises(HubFileNotFound, match=words):
            SparseAutoencoder.from_pretrained("a/b")


def test_files_and_folders_of_folders_say_it_too(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    made = PUBLISHED["saev by path"][1](tmp_path / "runs")
    file = made.source / "sae.pt"
    with pytest.raises(ArtifactError, match="found a file; .* It looks like saev: .*from_other"):
        SparseAutoencoder.from_pretrained(file)
    with pytest.raises(ArtifactError, match=f"patchlens convert {made.source} --to DIR"):
        SparseAutoencoder.from_pretrained(tmp_path / "runs")
    archive = tmp_path / "layer_20" / "params.npz"
    archive.parent.mkdir()
    archive.write_bytes(b"PK")
    for place in (archive, archive.parent):
        with pytest.raises(ArtifactError, match="Gemma Scope's .text.: params.npz"):
            SparseAutoencoder.from_pretrained(place)
    with pytest.raises(ArtifactError, match="no format that is known, but a NumPy archive"):
        SparseAutoencoder.from_other(archive, backbone="a/b", layer=0)
    loose = tmp_path / "loose" / "x.safetensors"
    loose.parent.mkdir()
    save_file({"a": torch.ones(2)}, loose)
    with pytest.raises(ArtifactError, match="but a safetensors file without the config"):
        SparseAutoencoder.from_other(loose, backbone="a/b", layer=0)
    with pytest.raises(ArtifactError, match="It holds x.safetensors, in no format"):
        SparseAutoencoder.from_pretrained(loose)
    with pytest.raises(ArtifactError, match="no format that is known, but x.safetensors"):
        SparseAutoencoder.from_other(loose.parent, backbone="a/b", layer=0)


def test_a_repository_of_a_preset_or_of_a_language_model(tmp_path: Path) -> None:
    with LocalHub() as server, using(server, tmp_path / "cache"):
        server.add("hyesulim/fastsae-models", {"final/state.pt": b"x"})
        with pytest.raises(HubFileNotFound, match="'preset:patchsae-vit-b16'"):
            SparseAutoencoder.from_pretrained("hyesulim/fastsae-models")
        server.add("a/gpt2-small-saes", {"cfg.json": b"{}"})
        with pytest.raises(
            HubFileNotFound, match="By its name a/gpt2-small-saes has SAEs of a lang"
        ):
            SparseAutoencoder.from_pretrained("a/gpt2-small-saes")


def test_a_text_sae_is_named_and_not_read(tmp_path: Path) -> None:
    PUBLISHED["saelens standard"][1](tmp_path)
    config = json.loads((tmp_path / "cfg.json").read_text())
    config["metadata"]["model_name"] = "gpt2-small"
    as_json(tmp_path / "cfg.json", config)
    with pytest.raises(ArtifactError, match="an SAE of gpt2-small, a language model"):
        SparseAutoencoder.from_pretrained(tmp_path)
    with pytest.raises(ArtifactError, match="found an SAE of gpt2-small, a language model"):
        SparseAutoencoder.from_other(tmp_path, tokens="all")
    with pytest.warns(
        UserWarning, match="backbone a/vit as given, though the files say gpt2-small"
    ):
        sae = SparseAutoencoder.from_other(tmp_path, tokens="all", backbone="a/vit")
    assert sae.cfg.backbone.id == "a/vit"


def test_names_of_language_models_and_of_models_that_see() -> None:
    text = ("gpt2", "google/gemma-2-2b", "meta-llama/Llama-3.1-8B", "EleutherAI/pythia-70m")
    sees = ("openai/clip-vit-base-patch16", "llava-hf/llava-1.5-7b-hf", "google/paligemma-3b")
    sees += ("Qwen/Qwen2.5-VL-7B", "facebook/dinov2-base", "a/b", "bundled")
    assert [name for name in text if not language_model(name)] == []
    assert [name for name in sees if language_model(name)] == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("clip-vit-base-patch16", "openai/clip-vit-base-patch16"),
        ("openai/openai/clip-vit-base-patch16", "openai/clip-vit-base-patch16"),
        ("dinov2_vitb14", None),
    ],
)
def test_a_backbone_that_a_file_does_not_state_is_not_claimed(
    name: str, expected: str | None, tmp_path: Path
) -> None:
    from sae.interop.patchsae import reading

    w = torch.randn(4, 6)
    tensors = {"W_enc": w, "b_enc": w[0], "W_dec": w.t().contiguous(), "b_dec": w[:, 0]}
    assert reading(tmp_path, {"model_name": name, "block_layer": 3}, tensors).backbone == expected


def test_what_is_ours_and_damaged_is_not_taken_for_anothers(tmp_path: Path) -> None:
    tiny_sae("topk").save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(PatchLensError) as told:
        SparseAutoencoder.from_pretrained(tmp_path)
    assert "looks like" not in str(told.value)
