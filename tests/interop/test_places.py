"""Which file a folder, a Hub repository or a subfolder means, and what its place says of it."""

from pathlib import Path

import pytest
import torch

from sae import interop
from sae.backbones.tokens import inference_policy
from sae.errors import ArtifactError
from sae.interop import Hints
from sae.interop.__main__ import main
from sae.model import SparseAutoencoder
from tests.interop.published import PUBLISHED, D, Published
from tests.local_hub import LocalHub, using

X = torch.randn(20, D, generator=torch.Generator().manual_seed(3))


def same(found: interop.Conversion, made: Published) -> None:
    sae = SparseAutoencoder._from_weights(found.cfg, found.tensors)
    torch.testing.assert_close(sae.encode(X), made.encode(X), atol=1e-4, rtol=1e-4)


def trainer(folder: Path, *, others: tuple[int, ...] = ()) -> tuple[Path, Published]:
    """sae-for-vlm's …/trainer_0 with ae_100000.pt, and other checkpoints that are no SAE at all."""
    folder.mkdir(exist_ok=True)
    made = PUBLISHED["sae_for_vlm"][1](folder)
    checkpoints = made.source.parent
    for n in others:
        (checkpoints / f"ae_{n}.pt").write_bytes(b"no SAE")
    return checkpoints.parent, made


@pytest.mark.parametrize("inside", ["", "checkpoints", "checkpoints/ae_100000.pt"])
@pytest.mark.parametrize("others", [(), (999, 20_000)])
def test_sae_for_vlm_by_any_of_its_folders(
    inside: str, others: tuple[int, ...], tmp_path: Path
) -> None:
    folder, made = trainer(tmp_path, others=others)
    assert interop.detect(folder / inside) == "sae_for_vlm"
    found = interop.read(folder / inside)
    assert "weights ae_100000.pt" in found.reading.found[0]
    where = found.cfg.backbone
    assert (where.id, where.layer, where.tokens) == made.place
    same(found, made)


@pytest.mark.parametrize("inside", ["", "checkpoints", "checkpoints/ae_100000.pt"])
def test_sae_for_vlm_from_the_hub(inside: str, tmp_path: Path) -> None:
    folder, made = trainer(tmp_path / "made")
    subfolder = (folder / inside).relative_to(tmp_path / "made").as_posix()
    with LocalHub() as hub, using(hub, tmp_path / "cache"):
        hub.add_folder("a/b", tmp_path / "made")
        assert main(["a/b", "--subfolder", subfolder, "--to", str(tmp_path / "out")]) == 0
    sae = SparseAutoencoder.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(sae.encode(X), made.encode(X), atol=1e-4, rtol=1e-4)


def test_too_many_weights_to_download(tmp_path: Path) -> None:
    folder, _ = trainer(tmp_path / "made", others=tuple(range(9)))
    subfolder = folder.relative_to(tmp_path / "made").as_posix()
    with LocalHub() as hub, using(hub, tmp_path / "cache"):
        hub.add_folder("a/b", tmp_path / "made")
        one = f"{subfolder}/checkpoints/ae_100000.pt"
        with pytest.raises(SystemExit, match="error: .*has 10 weights files") as refused:
            main(["a/b", "--subfolder", subfolder, "--to", str(tmp_path / "out")])
        assert one in str(refused.value)
        assert main(["a/b", "--subfolder", one, "--to", str(tmp_path / "out")]) == 0


def test_dictionary_learning_by_its_checkpoints(tmp_path: Path) -> None:
    made = PUBLISHED["dictionary_learning BatchTopKSAE"][1](tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "ae.pt").rename(tmp_path / "checkpoints" / "ae_10000.pt")
    (tmp_path / "checkpoints" / "ae_9999.pt").write_bytes(b"no SAE")
    assert interop.detect(tmp_path) == "dictionary_learning"
    same(interop.read(tmp_path, made.hints), made)


@pytest.mark.parametrize("other", ["n_images_999.pt", "n_images_1300029.pt"])
def test_prismas_last_checkpoint_is_that_of_the_most_images(other: str, tmp_path: Path) -> None:
    made = PUBLISHED["prisma relu"][1](tmp_path)
    (tmp_path / other).write_bytes(b"no SAE")
    found = interop.read(tmp_path)
    assert found.reading.found[0] == "weights n_images_2600058.pt"
    same(found, made)


def place(name: str, tmp_path: Path, tokens: str | None = None) -> tuple[str, list[str]]:
    """Tokens and assumptions of sae-for-vlm's weights in the folder `name`."""
    folder = tmp_path / name / "trainer_0"
    folder.mkdir(parents=True)
    PUBLISHED["dictionary_learning BatchTopKSAE"][1](folder)
    found = interop.read(folder, Hints(format="sae_for_vlm", tokens=tokens))
    return found.cfg.backbone.tokens, found.reading.assumed


CLIP = (
    "imagenet_train_activations_clip-vit-large-patch14-336_22_post_mlp_residual_batch_top_k_20_x1"
)
SIGLIP = CLIP.replace("clip-vit-large-patch14-336", "siglip-so400m-patch14-384")


@pytest.mark.parametrize(
    ("folder", "tokens", "why"),
    [
        (CLIP, "cls", "CLS token only"),
        (f"random_k_2/{CLIP}", "all", "all tokens: the folder says random_k"),
        (SIGLIP, "patches", "saw the first patch token of each image alone"),
    ],
)
def test_the_tokens_of_sae_for_vlm_and_their_reason(
    folder: str, tokens: str, why: str, tmp_path: Path
) -> None:
    found, assumed = place(folder, tmp_path / "told")
    assert found == tokens
    assert len(assumed) == 1
    assert why in assumed[0]
    assert place(folder, tmp_path / "given", tokens=tokens) == (tokens, [])


def test_what_a_person_says_against_the_files_is_told(tmp_path: Path) -> None:
    made = PUBLISHED["fastsae"][1](tmp_path)
    found = interop.read(made.source, Hints(backbone="a/b", layer=3, tokens="all"))
    assert (found.cfg.backbone.id, found.cfg.backbone.layer) == ("a/b", 3)
    assert found.reading.assumed[-2:] == [
        "backbone a/b as given, though the files say openai/clip",
        "layer 3 as given, though the files say 10",
    ]


def test_only_a_layer_that_was_given_passes_another_hook_point(tmp_path: Path) -> None:
    made = PUBLISHED["prisma relu"][1](tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace("hook_resid_post", "hook_mlp_out"))
    with pytest.raises(ValueError, match="found hook point 'hook_mlp_out'"):
        interop.read(made.source, Hints("prisma", "a/b"))
    found = interop.read(made.source, Hints("prisma", "a/b", layer=9))
    assert found.reading.hook == "blocks.9.hook_mlp_out"


def test_an_sae_of_the_image_embedding_reads_no_layer(tmp_path: Path) -> None:
    made = PUBLISHED["msae TopKReLU"][1](tmp_path)
    found = interop.read(made.source, made.hints)
    sae = SparseAutoencoder._from_weights(found.cfg, found.tensors)
    sae.save_pretrained(tmp_path / "ours")
    where = SparseAutoencoder.from_pretrained(tmp_path / "ours").cfg.backbone
    assert (where.layer, where.tokens) == (-1, "embedding")
    with pytest.raises(ValueError, match="reads the image embedding, one vector a picture"):
        inference_policy(where.tokens)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("_False_0.0", "_False_30.0", "soft cap 30.0"),
        ("_False_0.0", "_True_0.0", "normalize True"),
        ("TopKReLU", "BatchTopKReLU", "activation BatchTopKReLU 5"),
        ("TopKReLU", "TopKabsReLU", "activation TopKabsReLU 5"),
        ("40_12", "40_13", "encoder of shape"),
    ],
)
def test_what_the_name_of_an_msae_says_is_kept_to(
    old: str, new: str, words: str, tmp_path: Path
) -> None:
    made = PUBLISHED["msae TopKReLU"][1](tmp_path)
    path = next(made.source.glob("*.pth"))
    path.rename(path.with_name(path.name.replace(old, new)))
    with pytest.raises(ArtifactError, match=words):
        interop.read(made.source, made.hints)


def test_the_clip_that_an_msae_names(tmp_path: Path) -> None:
    made = PUBLISHED["msae TopKReLU"][1](tmp_path)
    path = next(made.source.glob("*.pth"))
    path.rename(path.with_name(path.name.replace("cc3m_", "cc3m_ViT-L~14_")))
    found = interop.read(made.source)
    assert found.cfg.backbone.id == "openai/clip-vit-large-patch14"
    assert "OpenAI's CLIP" in found.reading.assumed[0]
