"""No damaged file loads: fifty mutations and more of every format, each ending in a clear error."""

import contextlib
import gzip
import json
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sae import interop
from sae.errors import ArtifactError, PatchLensError
from sae.interop import Hints
from sae.model import SparseAutoencoder
from sae.storage import sha256
from tests.interop.mutations import (
    before_writing,
    file_changes,
    json_changes,
    no_hang,
    tensor_changes,
    weights_in,
)
from tests.interop.published import PUBLISHED, Published
from tests.tiny_saes import tiny_sae

CASES = [
    "patchsae",
    "fastsae",
    "dictionary_learning MatroyshkaBatchTopKSAE",
    "sae_for_vlm",
    "prisma gated",
    "saelens jumprelu",
    "saev TopK",
    "overcomplete archetypal",
    "sparsify",
    "visaebench batchtopk",
    "clipscope",
    "msae TopKReLU",
    "clip_topk normalised",
    "saelens matryoshka_batchtopk",
    "overcomplete untied",
]
SIZES = ("d_in", "d_sae", "num_latents", "input_dim", "hidden_dim", "activation_dim", "dict_size")
HARMLESS = {("visaebench batchtopk", "no decoder.bias"), ("clip_topk normalised", "no b_dec")}
"""What a format allows: a decoder without a bias."""
COUNTERS = ("latents_activation_frequency", "feature_counts", "total_samples")
"""What some formats keep of training, and nothing is read from."""
NOT_UNDERSTOOD = {"architecture", "activation", "dict_class", "normalize_activations"}
LIMIT_KIB = 96 << 10
"""How far the process may grow over hundreds of damaged files; what they claim is exabytes."""


def numbers(source: Path) -> dict[str, torch.Tensor]:
    """The tensors of a maker's files, to know what can be damaged."""
    seen: dict[str, torch.Tensor] = {}
    with before_writing(seen.update):
        source.mkdir()
        PUBLISHED[source.name][1](source)
    return seen


def damaged(case: str, root: Path) -> Iterator[tuple[str, Published]]:
    """Every mutation of one format, each in a fresh folder."""
    make = PUBLISHED[case][1]
    tensors = numbers(root / case)

    def fresh(change: Callable | None = None) -> tuple[Path, Published]:
        folder = root / f"m{len(list(root.iterdir()))}"
        folder.mkdir()
        if change is None:
            return folder, make(folder)
        with before_writing(change):
            return folder, make(folder)

    for name, change in tensor_changes(tensors):
        yield name, fresh(change)[1]
    for name, spoil in file_changes():
        folder, made = fresh()
        spoil(weights_in(folder))
        yield name, made
    if weights_in(root / case).name.endswith(".pt"):
        for name, tensor in tensors.items():
            folder, made = fresh()
            path = weights_in(folder)
            data = bytearray(path.read_bytes())
            data[data.index(tensor.numpy().tobytes())] ^= 1
            path.write_bytes(data)
            yield f"a bit of {name} flipped", made
    for config in sorted((root / case).rglob("*.json")):
        if config.name.startswith("stats"):
            continue
        inside = config.relative_to(root / case)
        for name, rewrite in json_changes():
            folder, made = fresh()
            (folder / inside).write_bytes(rewrite((folder / inside).read_bytes()))
            yield f"{inside} {name}", made
        for key in keys_that_matter(json.loads(config.read_text())):
            folder, made = fresh()
            (folder / inside).write_text(json.dumps(huge(json.loads(config.read_text()), key)))
            yield f"{inside} with a huge {key}", made


def keys_that_matter(content: dict) -> list[str]:
    inner = content.get("trainer", content)
    return [key for key in inner if key in (*SIZES, *NOT_UNDERSTOOD)]


def huge(content: dict, key: str) -> dict:
    inner = content.get("trainer", content)
    inner[key] = 10**12 if key in SIZES else "unheard_of"
    return content


def peak_kib(start: bool = False) -> int:
    """The process's peak of memory, since the last `start`; 0 where the system does not say."""
    try:
        if start:
            Path("/proc/self/clear_refs").write_text("5")
        return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
    except (OSError, TypeError):
        return 0


def complaint(read: Callable[[], object]) -> str:
    """What the clear error of a read says; "" if it loaded. Any other error is the test's failure,
    and so is a read that never ends."""
    try:
        with no_hang():
            read()
    except (ValueError, FileNotFoundError) as error:
        return str(error)
    return ""


@pytest.mark.parametrize("case", CASES)
def test_no_damage_loads(case: str, tmp_path: Path) -> None:
    before = peak_kib(start=True)
    loaded, n = [], 0
    for name, made in damaged(case, tmp_path):
        if (case, name) in HARMLESS or any(counter in name for counter in COUNTERS):
            continue
        n += 1
        for hints in (made.hints, Hints(**{**vars(made.hints), "format": PUBLISHED[case][0]})):
            said = complaint(lambda m=made, h=hints: interop.read(m.source, h))
            if str(tmp_path) not in said or len(said) > 800:
                loaded.append((name, said))
    assert loaded == []
    assert n >= 50
    assert peak_kib() - before < LIMIT_KIB


def test_no_damage_of_ours_loads(tmp_path: Path) -> None:
    before = peak_kib(start=True)
    loaded, n = [], 0
    for name, folder in damaged_ours(tmp_path):
        n += 1
        said = complaint(lambda f=folder: SparseAutoencoder.from_pretrained(f))
        if str(folder) not in said or len(said) > 800:
            loaded.append((name, said))
    assert loaded == []
    assert n >= 50
    assert peak_kib() - before < LIMIT_KIB


def damaged_ours(root: Path) -> Iterator[tuple[str, Path]]:
    def fresh() -> Path:
        folder = root / f"m{len(list(root.iterdir()))}"
        tiny_sae("matryoshka").save_pretrained(folder)
        return folder

    weights = "sae_weights.safetensors"
    for name, change in tensor_changes(load_file(fresh() / weights)):
        folder = fresh()
        tensors = load_file(folder / weights)
        change(tensors)
        save_file(tensors, folder / weights)
        config = json.loads((folder / "config.json").read_text())
        config["sha256"][weights] = sha256(folder / weights)
        (folder / "config.json").write_text(json.dumps(config))
        yield name, folder
    for name, spoil in file_changes():
        folder = fresh()
        spoil(folder / weights)
        yield name, folder
    for name, rewrite in json_changes():
        folder = fresh()
        path = folder / "config.json"
        path.write_bytes(rewrite(path.read_bytes()))
        yield name, folder
    for key, value in (
        ("d_in", 10**12),
        ("d_sae", 10**12),
        ("negative", "keep"),
        ("input_norm", 1),
    ):
        folder = fresh()
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, key: value}))
        yield f"{key} = {value}", folder


def test_options_of_other_libraries_are_refused_where_they_mean_nothing() -> None:
    from sae.config import BackboneRef, SAEConfig

    where = BackboneRef("bundled", 0)
    for words in ({"negative": "keep"}, {"negative": "odd"}, {"input_norm": "odd"}):
        with pytest.raises(ValueError, match="negative"):
            SAEConfig("relu", 4, 8, where, **words)


WRONG_KINDS = (KeyError, None, [], {}, "x", -1, 1e308, 10**400)


def places(content: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every place in nested objects."""
    for key, value in content.items() if isinstance(content, dict) else ():
        yield (*path, key)
        yield from places(value, (*path, key))


@pytest.mark.slow
@pytest.mark.parametrize("case", ["fastsae", "prisma relu", "saev told", "visaebench batchtopk"])
def test_values_of_the_wrong_kind_end_in_a_sentence(case: str, tmp_path: Path) -> None:
    """A key that is missing, a number beyond all bounds, a list where an object belongs."""
    made = PUBLISHED[case][1](tmp_path)
    for config in tmp_path.rglob("*.json"):
        text = config.read_text()
        for path in places(json.loads(text)):
            for value in WRONG_KINDS:
                content = json.loads(text)
                inner = content
                for key in path[:-1]:
                    inner = inner[key]
                if value is KeyError:
                    del inner[path[-1]]
                else:
                    inner[path[-1]] = value
                config.write_text(json.dumps(content))
                with contextlib.suppress(PatchLensError):
                    interop.read(made.source, made.hints)
        config.write_text(text)


def test_a_damaged_gzip_file_is_an_error_of_its_file(tmp_path: Path) -> None:
    content = gzip.compress(pickle.dumps({"W_enc": list(range(2000))}), mtime=0)
    path = tmp_path / "weights.pkl.gz"
    for place in range(10, len(content) - 8, 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        with pytest.raises(ArtifactError, match=r"weights\.pkl\.gz"):
            interop.read(path)
