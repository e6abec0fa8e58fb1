"""What an activation store says about itself, and whether it fits a run.

Knows manifest.json and plan.json field by field, and what makes two backbones give the same activations:
their weights and their preprocessing. Knows nothing of shards' content or streams.

    STORE/plan.json                  what is being written: backbone, layer, tokens, data, shards
    STORE/train_00000.safetensors    rows (n, d) of many images, shuffled within the shard
    STORE/train_00000.json           its size, counts and sha256, written after it
    STORE/held_out_00000.safetensors rows of held-out images, image after image
    STORE/manifest.json              the plan and all counts, written last
The JSON files are sealed (`sae.storage`), the rows of a shard have digests (`digests.py`).
"""

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from sae.backbones import Backbone
from sae.backbones.tokens import TokenView
from sae.errors import ArtifactError
from sae.storage import SEAL, check_seal, read_json, sealed, typed_fields, write_json

PLAN, MANIFEST = "plan.json", "manifest.json"
FORMAT = 1
DTYPES = ("float16", "int8")
SPLITS = ("train", "held_out")
_AGAIN = "Write the store again, or copy it again."
_COLOURS = {"black": (0, 0, 0), "red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
_TYPES: dict[Any, tuple[type, ...]] = {
    int: (int,),
    str: (str,),
    dict[str, Any]: (dict,),
    str | None: (str, type(None)),
}


@dataclass(frozen=True)
class Plan:
    """What a store holds; two stores of equal plans are equal."""

    format: int
    backbone: str
    revision: str | None
    family: str
    weights_sha256: str
    preprocessing: dict[str, Any]
    layer: int
    tokens: str
    held_out_tokens: str
    """random:N keeps all tokens of the held-out images: an SAE reads all of them when used."""
    tokens_per_image: int
    held_out_tokens_per_image: int
    d: int
    dtype: str
    data: str
    """Whose activations these are: --data of training/extract.py."""
    seed: int
    n_images: int
    n_held_out: int
    images_per_shard: int

    def shard_sizes(self, split: str) -> list[int]:
        """Images of each shard of a split (train or held_out)."""
        n, most = self.n_images if split == "train" else self.n_held_out, self.images_per_shard
        return [min(most, n - start) for start in range(0, n, most)]

    def write(self, folder: Path) -> None:
        """Begin a store, or go on with one; ValueError if another one was begun in `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        # one look: another process may be about to write the same plan (under a hidden name first)
        names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
        if PLAN in names:
            _same(self, read_plan(folder), folder)
        elif names:
            raise ValueError(
                f"--out {folder} is not empty and holds no store; give another folder."
            )
        else:
            write_json(folder / PLAN, sealed(dataclasses.asdict(self)))


@dataclass(frozen=True)
class Shard:
    """A shard's file and what must be in it."""

    file: str
    sha256: str
    n_bytes: int
    n_images: int
    n_rows: int
    n_unreadable: int


@dataclass(frozen=True)
class Manifest:
    """A finished store."""

    plan: Plan
    shards: dict[str, list[Shard]]
    """Of train and held_out."""


def plan_for(
    backbone: Backbone, layer: int, tokens: str, *, images_per_shard: int, **given: Any
) -> Plan:
    """The plan of a store of `backbone`; `given`: dtype, data, seed, n_images, n_held_out."""
    view = TokenView(backbone, tokens)
    return Plan(
        format=FORMAT,
        backbone=backbone.id,
        revision=backbone.revision,
        family=backbone.family,
        weights_sha256=weights_sha256(backbone),
        preprocessing=preprocessing_of(backbone),
        layer=backbone.resolve_layer(layer),
        tokens=tokens,
        held_out_tokens=view.policy,
        tokens_per_image=view.n_trained,
        held_out_tokens_per_image=view.n_read,
        d=backbone.d_model,
        images_per_shard=images_per_shard,
        **given,
    )


def read_plan(folder: Path) -> Plan:
    """plan.json, strictly."""
    path = folder / PLAN
    content = read_json(path)
    plan = _plan(path, content)
    check_seal(path, content, _AGAIN)
    return plan


def read_shard(path: Path) -> Shard:
    """A shard's description, strictly."""
    types: dict[str, tuple[Any, ...]] = {f.name: (f.type,) for f in dataclasses.fields(Shard)}
    content = read_json(path)
    shard = Shard(**typed_fields(path, content, types, ""))
    if SEAL in content:  # without it the manifest's hash is there, which says so if it is not
        check_seal(path, content, _AGAIN)
    return shard


def finish(folder: Path, plan: Plan) -> bool:
    """Write manifest.json if every shard is there; returns whether they are."""
    names = shard_names(plan)
    if not all((folder / f"{name}.json").is_file() for name in names):
        return False
    content = dataclasses.asdict(plan) | {"shards_sha256": _digest(folder, names)}
    write_json(folder / MANIFEST, sealed(content))
    return True


def read_manifest(folder: Path) -> Manifest:
    """A finished store's description, strictly; ArtifactError names what is missing or damaged."""
    path = folder / MANIFEST
    if not path.is_file():
        plan = read_plan(folder)
        names = shard_names(plan)
        there = sum((folder / f"{name}.json").is_file() for name in names)
        raise ArtifactError(
            folder,
            f"{there} of {len(names)} shards",
            "a finished store",
            "Run the same extract command again; it goes on where it stopped.",
        )
    said = read_json(path)
    content = dict(said)
    digest = content.pop("shards_sha256", None)
    plan = _plan(path, content)
    check_seal(path, said, _AGAIN)
    names = shard_names(plan)
    if (actual_digest := _digest(folder, names)) != digest:
        raise ArtifactError(
            folder,
            f"shard descriptions with sha256 {actual_digest[:12]}…",
            f"{str(digest)[:12]}…",
            "A file changed since the store was written: write it again.",
        )
    shards: dict[str, list[Shard]] = {split: [] for split in SPLITS}
    for name in names:
        shard = read_shard(folder / f"{name}.json")
        check_size(folder, shard)
        shards[name.rpartition("_")[0]].append(shard)
    return Manifest(plan, shards)


def check_size(folder: Path, shard: Shard) -> None:
    """ArtifactError unless the shard's file is as long as its description says."""
    path = folder / shard.file
    n_bytes = path.stat().st_size if path.is_file() else 0
    if n_bytes != shard.n_bytes:
        again = "Delete it and its .json and manifest.json, and run patchlens extract again."
        raise ArtifactError(path, f"{n_bytes} bytes", f"{shard.n_bytes}", again)


def check_fits(
    plan: Plan, folder: Path, backbone: Backbone, layer: int, tokens: str, *, held_out: bool = False
) -> None:
    """Raise ValueError if a store does not hold what a run reads, naming the first difference.

    Weights and preprocessing decide, not the name or the revision that they were asked for by.
    """
    now = {
        "--tokens": (tokens, plan.held_out_tokens if held_out else plan.tokens),
        "--layer": (backbone.resolve_layer(layer), plan.layer),
        "preprocessing": (preprocessing_of(backbone), plan.preprocessing),
    }
    other = "or write another store with patchlens extract"
    if backbone.d_model != plan.d or weights_sha256(backbone) != plan.weights_sha256:
        raise ValueError(
            f"--data {folder}: the store was made with the weights of {plan.backbone} "
            f"(width {plan.d}), got {backbone.id} (width {backbone.d_model}) with others; give "
            f"--backbone {plan.backbone}, {other}."
        )
    for what, (got, expected) in now.items():
        if got != expected:
            got, expected = _difference(got, expected)
            raise ValueError(
                f"--data {folder}: the store was made with {what} {expected}, got {got}; give the "
                f"same, {other}."
            )


def shard_names(plan: Plan) -> list[str]:
    """All shards' names, without suffix."""
    return [f"{split}_{k:05d}" for split in SPLITS for k in range(len(plan.shard_sizes(split)))]


def _plan(path: Path, content: dict[str, Any]) -> Plan:
    if content.get("format") != FORMAT:
        raise ArtifactError(
            path, f"store format {content.get('format')}", str(FORMAT), "Update PatchLens."
        )
    types = {f.name: _TYPES[f.type] for f in dataclasses.fields(Plan)}
    return Plan(**typed_fields(path, content, types, ""))


def _same(now: Plan, then: Plan, folder: Path) -> None:
    for field in dataclasses.fields(Plan):
        got, expected = getattr(now, field.name), getattr(then, field.name)
        if got != expected:
            got, expected = _difference(got, expected)
            raise ValueError(
                f"--out {folder}: a store with {field.name} {expected} was begun there, got {got}. "
                "Give the same options to go on, or another --out."
            )


def _difference(got: Any, expected: Any) -> tuple[Any, Any]:
    """Of two objects, the first entries that differ."""
    if not isinstance(got, dict):
        return got, expected
    key = next(k for k in {**expected, **got} if got.get(k) != expected.get(k))
    return f"{key} {got.get(key)}", f"{key} {expected.get(key)}"


def _digest(folder: Path, names: list[str]) -> str:
    digest = hashlib.sha256()
    for name in names:
        path = folder / f"{name}.json"
        if not path.is_file():
            raise ArtifactError(path, "no such file", "a shard's description", "Write it again.")
        digest.update(path.read_bytes())
    return digest.hexdigest()


def weights_sha256(backbone: Backbone) -> str:
    """SHA-256 of the vision tower's parameters and buffers, with their names and shapes.

    Taken of the values rounded to bfloat16, so that it does not depend on the dtype the backbone
    was loaded in. Half a second for 100 M parameters.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(backbone._vision.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} ".encode())
        values = tensor.detach().to(torch.bfloat16).cpu().contiguous().flatten()
        digest.update(values.view(torch.uint8).numpy() if values.numel() else b"")
    return digest.hexdigest()


def preprocessing_of(backbone: Backbone) -> dict[str, Any]:
    """Resize, crop and normalisation as JSON: the framing, and what plain colours become.

    Equal descriptions mean equal inputs, whichever class of image processor is behind them.
    """
    framing = dataclasses.asdict(backbone._framing)
    shown: dict[str, Any] = {
        name: list(v) if isinstance(v, tuple) else v for name, v in framing.items()
    }
    height, width = backbone._framing.crop
    for name, colour in _COLOURS.items():
        pixels = backbone.preprocess([Image.new("RGB", (width, height), colour)])["pixel_values"]
        values = np.unique(pixels.float().numpy().round(3))
        shown[name] = [round(float(v), 3) + 0.0 for v in values[:8]]
    return {**shown, "resample": int(shown["resample"])}
