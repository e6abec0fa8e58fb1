"""Which family reads a checkpoint or wraps a model: the table of families. Knows prefixes of ids.

Reads folders and the Hugging Face Hub; the Hub is asked only for ids that are no folder. Weights
are safetensors only.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sae import hub
from sae.backbones.base import Backbone
from sae.backbones.clip import ClipBackbone
from sae.backbones.dino import Dinov2Backbone, Dinov3Backbone
from sae.backbones.open_clip import OpenClipBackbone
from sae.backbones.siglip import Siglip2Backbone, SiglipBackbone
from sae.backbones.timm import TimmBackbone
from sae.backbones.transformers_vit import TransformersBackbone, VitBackbone
from sae.errors import BackboneError, HubError

FAMILIES: list[type[Backbone]] = [
    ClipBackbone,
    SiglipBackbone,
    Siglip2Backbone,
    Dinov2Backbone,
    Dinov3Backbone,
    VitBackbone,
    TimmBackbone,
    OpenClipBackbone,
]
"""Every family that a folder, a Hub id or a model is offered to, the last one first."""
CARRIED = {"bundled": "clip", hub.PHOTOS: "backbone"}
"""Folders of the backbones that come with PatchLens, by name."""


def register_family(family: type[Backbone]) -> type[Backbone]:
    """Offer checkpoints and models to an own family, before all others; a decorator.

    ValueError for a class without a `family` name. See docs/extending.md.
    """
    if not isinstance(getattr(family, "family", None), str):
        raise ValueError(f"{family.__name__} has no name; give it `family`, such as 'my_family'")
    name = (family.__module__, family.__qualname__)
    FAMILIES[:] = [f for f in FAMILIES if (f.__module__, f.__qualname__) != name]
    FAMILIES.append(family)
    return family


def load_backbone(
    id_or_dir: str,
    *,
    revision: str | None,
    device: str | torch.device,
    dtype: torch.dtype,
    token: str | None,
    local_files_only: bool,
) -> Backbone:
    """See Backbone.from_pretrained."""
    access: dict[str, Any] = {
        "revision": revision,
        "token": token,
        "local_files_only": local_files_only,
    }
    placed: dict[str, Any] = {"device": device, "dtype": dtype}
    if own := hub.carried(id_or_dir, CARRIED.get(id_or_dir, "")):
        return _load_folder(own, id=id_or_dir, revision=None, **placed)
    name = id_or_dir.removeprefix("hf-hub:")
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _load_folder(folder, id=id_or_dir, revision=revision, **placed)
    if name != id_or_dir:
        folder, commit = _download(name, OpenClipBackbone.hub_files, **access)
        return _load_folder(folder, id=id_or_dir, revision=commit, **placed)
    if name.startswith("timm/"):
        folder, commit = _download(name, TimmBackbone.hub_files, **access)
        return _load_folder(folder, id=id_or_dir, revision=commit, **placed)
    folder, commit = _download(name, ["config.json"], **access)
    family, config = _family(folder, id_or_dir)
    access["revision"] = commit
    if issubclass(family, TransformersBackbone):  # which knows best what files it needs
        with hub.telling(name, commit):
            return family.load(name, config, id=id_or_dir, **access, **placed)
    folder, _ = _download(name, family.hub_files, **access)
    return _load_folder(folder, id=id_or_dir, revision=commit, **placed)


def timm_folder(id_or_dir: str, *, revision: str | None = None) -> Path | None:
    """The folder of a timm model with its weights, downloaded where the id is "timm/NAME"; None if
    the id is of another kind."""
    folder = Path(id_or_dir).expanduser()
    if not folder.is_dir() and id_or_dir.startswith("timm/"):
        access: dict[str, Any] = {"revision": revision, "token": None, "local_files_only": False}
        folder, _ = _download(id_or_dir, TimmBackbone.hub_files, **access)
    if not TimmBackbone.reads(folder, _config_of(folder, id_or_dir)):
        return None
    _require_weights(folder, id_or_dir, TimmBackbone.weight_files)
    return folder


def wrap_model(model: nn.Module, image_processor: Any, tokenizer: Any, *, id: str) -> Backbone:
    """See Backbone.from_model."""
    model.eval()
    for family in reversed(FAMILIES):
        if family.wraps(model):
            made: Any = family  # the families' own constructors take a model
            return made(model, image_processor, tokenizer, id=id)
    raise _unknown(getattr(getattr(model, "config", None), "model_type", None), id)


def _load_folder(
    folder: Path,
    *,
    id: str,
    revision: str | None,
    device: str | torch.device,
    dtype: torch.dtype,
) -> Backbone:
    if not id.startswith("hf-hub:"):
        family, config = _family(folder, id)
    elif (folder / "open_clip_config.json").is_file():
        family, config = OpenClipBackbone, {}
    else:
        raise BackboneError(
            f"backbone {id}: hf-hub: means an open_clip model, but there is no "
            "open_clip_config.json in it; for a transformers model leave hf-hub: away"
        )
    _require_weights(folder, id, family.weight_files)
    return family.load(str(folder), config, id=id, revision=revision, device=device, dtype=dtype)


def _family(folder: Path, id: str) -> tuple[type[Backbone], dict[str, Any]]:
    """What reads a folder, and its config.json."""
    config = _config_of(folder, id)
    for family in reversed(FAMILIES):
        if family.reads(folder, config):
            return family, config
    if not config:
        extra = "; install PatchLens again, its models are part of it" if id in CARRIED else ""
        raise BackboneError(
            f"backbone {id} has no config.json in {folder}, found "
            f"{sorted(p.name for p in folder.glob('*'))[:8]}; expected a model folder{extra}"
        )
    raise _unknown(config.get("model_type"), id)


def _unknown(model_type: object, id: str) -> ValueError:
    known = sorted(name for family in FAMILIES for name in family.model_types)
    return ValueError(
        f"backbone {id} is of type {model_type!r}, expected one of {known}, or an "
        "open_clip (hf-hub:ORG/NAME) or timm (timm/NAME) model"
    )


def _config_of(folder: Path, id: str) -> dict[str, Any]:
    """config.json, {} where there is none."""
    path = folder / "config.json"
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BackboneError(f"backbone {id}: {path} is not valid JSON ({error})") from error
    if not isinstance(config, dict):
        raise BackboneError(
            f"backbone {id}: {path} holds {type(config).__name__}, expected an object"
        )
    return config


def _require_weights(folder: Path, id: str, names: tuple[str, ...]) -> None:
    there = {path.name for path in folder.glob("*")}
    if not (there & set(names) if names else any(n.endswith(".safetensors") for n in there)):
        wanted = " or ".join(names) or ".safetensors weights"
        raise BackboneError(
            f"backbone {id}: no {wanted} in {folder}; pickled weights (.bin, .pt) are "
            "never opened, so convert them with save_pretrained or safetensors first"
        )


def _download(
    name: str, patterns: Sequence[str], *, revision: str | None, token: str | None, **local: bool
) -> tuple[Path, str]:
    """The folder of a Hub snapshot and its commit."""
    try:
        folder = hub.snapshot(name, list(patterns), revision=revision, token=token, **local)
    except HubError as error:
        raise type(error)(f"backbone {name!r} is no folder here. {error}") from error
    return folder, folder.name
