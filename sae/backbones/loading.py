"""Which family reads a checkpoint or wraps a model. Knows config.json's model_type and prefixes.

Reads folders and the Hugging Face Hub; the Hub is asked only for ids that are no folder. Weights
are safetensors only.
"""

import json
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

TRANSFORMERS_FAMILIES: tuple[type[TransformersBackbone], ...] = (
    ClipBackbone,
    SiglipBackbone,
    Siglip2Backbone,
    Dinov2Backbone,
    Dinov3Backbone,
    VitBackbone,
)
BUNDLED = Path(__file__).resolve().parents[1] / "bundled" / "clip"

_OPEN_CLIP_FILES = ["*.json", "*.txt", "*.model", "open_clip_*.safetensors"]
_TIMM_FILES = ["config.json", "model.safetensors"]


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
    if id_or_dir == "bundled":
        return _load_folder(BUNDLED, id="bundled", revision=None, **placed)
    name = id_or_dir.removeprefix("hf-hub:")
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _load_folder(folder, id=id_or_dir, revision=revision, **placed)
    if name != id_or_dir:
        folder, commit = _download(name, _OPEN_CLIP_FILES, **access)
        return _load_folder(folder, id=id_or_dir, revision=commit, **placed)
    if name.startswith("timm/"):
        folder, commit = _download(name, _TIMM_FILES, **access)
        return _load_folder(folder, id=id_or_dir, revision=commit, **placed)
    folder, access["revision"] = _download(name, ["config.json"], **access)
    config = _config_of(folder, id_or_dir)
    with hub.telling(name, access["revision"]):
        return _family(config, id_or_dir).load(name, config, id=id_or_dir, **access, **placed)


def timm_folder(id_or_dir: str, *, revision: str | None = None) -> Path | None:
    """The folder of a timm model with its weights, downloaded where the id is "timm/NAME"; None if
    the id is of another kind."""
    folder = Path(id_or_dir).expanduser()
    if not folder.is_dir() and id_or_dir.startswith("timm/"):
        access: dict[str, Any] = {"revision": revision, "token": None, "local_files_only": False}
        folder, _ = _download(id_or_dir, _TIMM_FILES, **access)
    if not (folder / "config.json").is_file():
        return None
    config = _config_of(folder, id_or_dir)
    if "model_type" in config or "architecture" not in config:
        return None
    _require_safetensors(folder, id_or_dir, TIMM_WEIGHTS)
    return folder


def wrap_model(model: nn.Module, image_processor: Any, tokenizer: Any, *, id: str) -> Backbone:
    """See Backbone.from_model."""
    model.eval()
    if hasattr(model, "visual") and hasattr(model, "encode_image"):
        return OpenClipBackbone(model, image_processor, tokenizer, id=id)
    if type(model).__module__.startswith("timm."):
        return TimmBackbone(model, image_processor, tokenizer, id=id)
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    return _family({"model_type": model_type}, id)(model, image_processor, tokenizer, id=id)


def _load_folder(
    folder: Path,
    *,
    id: str,
    revision: str | None,
    device: str | torch.device,
    dtype: torch.dtype,
) -> Backbone:
    placed: dict[str, Any] = {"id": id, "revision": revision, "device": device, "dtype": dtype}
    open_clip = (folder / "open_clip_config.json").is_file()
    if id.startswith("hf-hub:") and not open_clip:
        raise BackboneError(
            f"backbone {id}: hf-hub: means an open_clip model, but there is no "
            "open_clip_config.json in it; for a transformers model leave hf-hub: away"
        )
    if open_clip and (id.startswith("hf-hub:") or not (folder / "config.json").is_file()):
        _require_safetensors(folder, id, OPEN_CLIP_WEIGHTS)
        return OpenClipBackbone.load(folder, **placed)
    config = _config_of(folder, id)
    if "model_type" not in config and "architecture" in config:
        _require_safetensors(folder, id, TIMM_WEIGHTS)
        return TimmBackbone.load(folder, **placed)
    _require_safetensors(folder, id)
    return _family(config, id).load(
        str(folder), config, token=None, local_files_only=True, **placed
    )


def _config_of(folder: Path, id: str) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        extra = "; run `make world` to train the bundled models" if id == "bundled" else ""
        raise BackboneError(
            f"backbone {id} has no config.json in {folder}, found "
            f"{sorted(p.name for p in folder.glob('*'))[:8]}; expected a model folder{extra}"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BackboneError(f"backbone {id}: {path} is not valid JSON ({error})") from error
    if not isinstance(config, dict):
        raise BackboneError(
            f"backbone {id}: {path} holds {type(config).__name__}, expected an object"
        )
    return config


def _family(config: dict[str, Any], id: str) -> type[TransformersBackbone]:
    model_type = config.get("model_type")
    known = {name: family for family in TRANSFORMERS_FAMILIES for name in family.model_types}
    if model_type not in known:
        raise ValueError(
            f"backbone {id} is of type {model_type!r}, expected one of {sorted(known)}, or an "
            "open_clip (hf-hub:ORG/NAME) or timm (timm/NAME) model"
        )
    return known[model_type]


OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
TIMM_WEIGHTS = ("model.safetensors",)
"""The files that these libraries prefer to any pickle that may lie beside them."""


def _require_safetensors(folder: Path, id: str, names: tuple[str, ...] = ()) -> None:
    there = [path.name for path in folder.glob("*.safetensors")]
    if not (set(names) & set(there) if names else there):
        wanted = " or ".join(names) or ".safetensors weights"
        raise BackboneError(
            f"backbone {id}: no {wanted} in {folder}; pickled weights (.bin, .pt) are "
            "never opened, so convert them with save_pretrained or safetensors first"
        )


def _download(
    name: str, patterns: list[str], *, revision: str | None, token: str | None, **local: bool
) -> tuple[Path, str]:
    """The folder of a Hub snapshot and its commit."""
    try:
        folder = hub.snapshot(name, patterns, revision=revision, token=token, **local)
    except HubError as error:
        raise type(error)(f"backbone {name!r} is no folder here. {error}") from error
    return folder, folder.name
