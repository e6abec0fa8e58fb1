"""Format 1: what is written comes back bit for bit, and every kind of damage has its message."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sae import artifact
from sae.errors import ArtifactError
from sae.model import SparseAutoencoder
from sae.storage import SEAL, sealed, sha256
from tests.tiny_saes import ARCHITECTURES, tiny_sae


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_bits_survive(architecture: str, tmp_path: Path) -> None:
    sae = tiny_sae(architecture)
    sae.save_pretrained(tmp_path)
    again = SparseAutoencoder.from_pretrained(tmp_path)
    assert again.cfg == sae.cfg
    assert not again.training
    for name, parameter in sae.named_parameters():
        assert torch.equal(again.get_parameter(name), parameter), name
    x = torch.randn(3, 16)
    assert torch.equal(again.encode(x), sae.encode(x))


def test_half_precision_comes_back_as_asked(tmp_path: Path) -> None:
    sae = tiny_sae("batch_topk").half()
    sae.save_pretrained(tmp_path)
    same = SparseAutoencoder.from_pretrained(tmp_path, dtype=torch.float16)
    assert torch.equal(same.W_enc, sae.W_enc)
    assert SparseAutoencoder.from_pretrained(tmp_path).W_enc.dtype == torch.float32


@pytest.mark.parametrize("architecture", ["batch_topk", "matryoshka", "jumprelu"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_thresholds_are_rounded_like_the_weights(
    architecture: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    sae = tiny_sae(architecture)
    if sae.cfg.threshold is not None:
        sae.cfg = dataclasses.replace(sae.cfg, threshold=3.7001)
    sae.to(dtype).save_pretrained(tmp_path)
    stored = load_file(tmp_path / artifact.WEIGHTS)["threshold"].float()
    again = SparseAutoencoder.from_pretrained(tmp_path)
    theirs = torch.randn(400, 16) * 2
    h = (theirs - again.b_dec) @ again.W_enc + again.b_enc
    assert torch.equal(again.encode(theirs) != 0, (h > stored) & (h > 0))
    if again.cfg.threshold is not None:
        assert torch.tensor(again.cfg.threshold) == stored[0]
        config = json.loads((tmp_path / "config.json").read_text())
        assert config["threshold"] == float(stored[0])
        old = {k: v for k, v in config.items() if k != SEAL}
        old = sealed({**old, "threshold": 3.7001})
        (tmp_path / "config.json").write_text(json.dumps(old))
        assert SparseAutoencoder.from_pretrained(tmp_path).cfg == again.cfg, (
            "older files still open"
        )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_float64_is_stored_as_what_is_read(architecture: str, tmp_path: Path) -> None:
    sae = tiny_sae(architecture).double()
    sae.save_pretrained(tmp_path)
    again = SparseAutoencoder.from_pretrained(tmp_path)
    assert torch.equal(again.W_enc, sae.W_enc.float())
    assert json.loads((tmp_path / "cfg.json").read_text())["dtype"] == "float32"


def test_saving_over_the_folder_it_was_loaded_from(tmp_path: Path) -> None:
    tiny_sae("topk").save_pretrained(tmp_path)
    loaded = SparseAutoencoder.from_pretrained(tmp_path)
    before = loaded.W_enc.clone()
    loaded.save_pretrained(tmp_path)
    assert torch.equal(loaded.W_enc, before)
    assert torch.equal(SparseAutoencoder.from_pretrained(tmp_path).W_enc, before)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "cfg.json",
        "config.json",
        "sae_weights.safetensors",
    ]


def test_config_says_what_is_needed_and_no_more(tmp_path: Path) -> None:
    tiny_sae("matryoshka").save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    assert content.pop("sha256") == {
        "sae_weights.safetensors": sha256(tmp_path / "sae_weights.safetensors")
    }
    assert len(content.pop(SEAL)) == 64
    assert content == {
        "format": 1,
        "architecture": "matryoshka",
        "d_in": 16,
        "d_sae": 40,
        "k": 5,
        "threshold": 3.7,
        "group_sizes": [4, 10, 26],
        "backbone": {
            "id": "bundled",
            "layer": 4,
            "tokens": "all",
            "revision": "abc",
            "family": "clip",
        },
    }


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("relu", {"architecture": "standard"}),
        ("topk", {"architecture": "topk", "k": 5, "rescale_acts_by_decoder_norm": False}),
        ("batch_topk", {"architecture": "jumprelu"}),
        ("matryoshka", {"architecture": "jumprelu"}),
        ("jumprelu", {"architecture": "jumprelu"}),
    ],
)
def test_saelens_words(architecture: str, expected: dict, tmp_path: Path) -> None:
    sae = tiny_sae(architecture)
    sae.save_pretrained(tmp_path)
    content = json.loads((tmp_path / "cfg.json").read_text())
    assert content.items() >= expected.items()
    assert content["apply_b_dec_to_input"] is True
    assert content["normalize_activations"] == content["reshape_activations"] == "none"
    assert content["metadata"]["sae_lens_version"].startswith("6.")
    tensors = load_file(tmp_path / "sae_weights.safetensors")
    x = torch.randn(20, 16, generator=torch.Generator().manual_seed(1))
    h = (x - tensors["b_dec"]) @ tensors["W_enc"] + tensors["b_enc"]
    if expected["architecture"] == "jumprelu":
        latents = h.relu() * (h > tensors["threshold"])
        torch.testing.assert_close(latents, sae.encode(x))
    else:
        assert set(tensors) == {"W_enc", "b_enc", "W_dec", "b_dec"}


def in_config(**changes: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:  # by whoever writes it, and so seals it
        path = folder / "config.json"
        content = {k: v for k, v in json.loads(path.read_text()).items() if k != SEAL}
        for key, value in changes.items():
            where, key = (content["backbone"], key[1:]) if key.startswith("_") else (content, key)
            if value is KeyError:
                del where[key]
            else:
                where[key] = value
        path.write_text(json.dumps(sealed(content)))

    return damage


def in_weights(change: Callable[[dict], None], *, keep_hash: bool = False) -> Callable:
    def damage(folder: Path) -> None:
        path = folder / "sae_weights.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)
        if not keep_hash:
            in_config(sha256={path.name: sha256(path)})(folder)

    return damage


def write(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def cut_weights(folder: Path) -> None:
    path = folder / "sae_weights.safetensors"
    path.write_bytes(path.read_bytes()[:-7])


def header_of_a_petabyte(folder: Path) -> None:
    header = b'{"W_enc":{"dtype":"F32","shape":[250000000,1000000],"data_offsets":[0,8]}}'
    (folder / "sae_weights.safetensors").write_bytes(
        len(header).to_bytes(8, "little") + header + bytes(8)
    )


def half(tensors: dict) -> None:
    tensors["b_enc"] = tensors["b_enc"].half()


def whole_numbers(tensors: dict) -> None:
    for name in tensors:
        tensors[name] = tensors[name].int()


def transpose(tensors: dict) -> None:
    tensors["W_enc"] = tensors["W_enc"].t().contiguous()


def rename(tensors: dict) -> None:
    tensors["encoder"] = tensors.pop("W_enc")


DAMAGE = {
    "no config": (lambda f: (f / "config.json").unlink(), "config.json: found no such file"),
    "no weights": (
        lambda f: (f / "sae_weights.safetensors").unlink(),
        "sae_weights.safetensors: found no such file",
    ),
    "not JSON": (write("config.json", b"{"), "expected a JSON object"),
    "not UTF-8": (write("config.json", b"\xff\xfe"), "expected a JSON object"),
    "a list": (write("config.json", b"[]"), "found a JSON list; expected an object"),
    "a bomb": (write("config.json", b"[" * 100_000), "expected a JSON object"),
    "huge JSON": (write("config.json", b" " * 2_000_000), "found 2000000 bytes"),
    "a twin key": (write("config.json", b'{"k": 1, "k": 2}'), "written twice"),
    "unknown key": (in_config(extra=1), "found unknown key 'extra'; expected only"),
    "unknown backbone key": (in_config(_extra=1), "found unknown key backbone.'extra'"),
    "missing key": (in_config(d_in=KeyError), "found no key 'd_in'"),
    "missing layer": (in_config(_layer=KeyError), "found no key backbone.'layer'"),
    "no backbone": (in_config(backbone=None), "backbone. None; expected an object"),
    "text for a number": (in_config(d_in="16"), "d_in = '16'; expected int"),
    "true for a number": (in_config(k=True), "k = True; expected int or NoneType"),
    "text for a layer": (in_config(_layer="4"), "backbone.layer = '4'; expected int"),
    "bad token policy": (in_config(_tokens="some"), "one of"),
    "bad architecture": (in_config(architecture="gated"), "architecture must be one of"),
    "k too large": (in_config(k=41), "k=41"),
    "bad groups": (in_config(group_sizes=[40]), "group_sizes mean nothing for batch_topk"),
    "groups of text": (in_config(group_sizes=["40"]), "expected whole numbers"),
    "threshold not finite": (
        in_config(threshold=float("nan")),
        "found the number NaN, which is not finite",
    ),
    "threshold huge": (in_config(threshold=10**400), "beyond 64 bits"),
    "newer format": (in_config(format=2), "found format 2; expected format 1.*update it"),
    "format zero": (in_config(format=0), "reads format 1"),
    "other d_in": (in_config(d_in=17), r"W_enc of shape \[16, 40\]; expected \(17, 40\)"),
    "other threshold": (in_config(threshold=0.5), "expected the constant 0.5 of config.json"),
    "no hash": (in_config(sha256=KeyError), "sha256 None"),
    "hash of nothing": (in_config(sha256={}), "expected the hash of sae_weights"),
    "wrong hash": (in_config(sha256={"sae_weights.safetensors": "0" * 64}), "found sha256"),
    "other bits": (in_weights(lambda t: t["b_enc"].add_(1), keep_hash=True), "found sha256"),
    "missing tensor": (in_weights(lambda t: t.pop("b_dec")), "found no tensor b_dec"),
    "extra tensor": (
        in_weights(lambda t: t.update(extra=torch.zeros(1))),
        "found unknown tensor extra; expected only",
    ),
    "renamed tensor": (in_weights(rename), "found no tensor W_enc"),
    "transposed tensor": (in_weights(transpose), r"W_enc of shape \[40, 16\]"),
    "mixed dtypes": (in_weights(half), "found dtype F16, F32"),
    "whole numbers": (in_weights(whole_numbers), "found dtype I32; expected one of"),
    "NaN": (in_weights(lambda t: t["W_dec"][3].fill_(float("nan"))), "NaN or infinity in W_dec"),
    "infinity": (in_weights(lambda t: t["b_dec"][3:4].fill_(float("inf"))), "infinity in b_dec"),
    "threshold not constant": (
        in_weights(lambda t: t["threshold"][3:4].fill_(9.0)),
        "found thresholds from 3.7.* to 9.0",
    ),
    "cut weights": (cut_weights, "expected a whole safetensors file"),
    "empty weights": (write("sae_weights.safetensors", b""), "expected a whole safetensors"),
    "a pickle": (write("sae_weights.safetensors", b"\x80\x04cos\nsystem\n" * 9), "safetensors"),
    "a huge header": (
        write("sae_weights.safetensors", (1 << 62).to_bytes(8, "little") + b"{}"),
        "safetensors",
    ),
    "a huge shape": (header_of_a_petabyte, "safetensors"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_refused_with_its_message(kind: str, tmp_path: Path) -> None:
    damage, message = DAMAGE[kind]
    tiny_sae("batch_topk").save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(ArtifactError, match=message) as caught:
        SparseAutoencoder.from_pretrained(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_an_unfinite_sae_is_not_written(tmp_path: Path) -> None:
    sae = tiny_sae("relu")
    with torch.no_grad():
        sae.b_enc[0] = float("nan")
    with pytest.raises(ValueError, match="b_enc holds NaN"):
        sae.save_pretrained(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_artifact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_sae("relu").save_pretrained(tmp_path)

    def full_disk(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(artifact, "save_file", full_disk)
    with pytest.raises(OSError, match="No space"):
        tiny_sae("topk").save_pretrained(tmp_path)
    assert SparseAutoencoder.from_pretrained(tmp_path).cfg.architecture == "relu"
    assert len(list(tmp_path.iterdir())) == 3


def altered(folder: Path, **changes: object) -> None:
    """Change config.json as an accident or a careless hand does: the seal stays as it is."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("topk", {"k": 6}),
        ("topk", {"negative": "keep"}),
        ("topk", {"negative": "rank"}),
        ("relu", {"input_norm": "layer_norm"}),
        ("relu", {"architecture": "topk", "k": 3}),
        ("batch_topk", {"architecture": "matryoshka", "group_sizes": [40]}),
        ("batch_topk", {"k": 1}),
        ("matryoshka", {"group_sizes": [10, 4, 26]}),
        ("topk", {"backbone": {"id": "bundled", "layer": 3, "tokens": "cls"}}),
    ],
)
def test_no_altered_config_loads(architecture: str, changes: dict, tmp_path: Path) -> None:
    tiny_sae(architecture).save_pretrained(tmp_path)
    altered(tmp_path, **changes)
    with pytest.raises(ArtifactError, match=r"config\.json.*something in it was altered"):
        SparseAutoencoder.from_pretrained(tmp_path)


def test_an_artifact_without_a_seal_still_opens_and_says_so(tmp_path: Path) -> None:
    sae = tiny_sae("topk")
    sae.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    del content[SEAL]
    path.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match=r"config\.json is of an older PatchLens.*Save it again"):
        again = SparseAutoencoder.from_pretrained(tmp_path)
    assert again.cfg == sae.cfg
    again.save_pretrained(tmp_path)
    SparseAutoencoder.from_pretrained(tmp_path)
