"""Artifact format 1: the folder an SAE lives in, written whole and read strictly.

    config.json               everything needed to run the SAE, the sha256 of its weights, and a seal:
                              the sha256 of all that it says (`sae.storage`)
    cfg.json                  the same SAE in the words of SAELens 6; written for others, never read,
                              and left out where SAELens has no words for it
    sae_weights.safetensors   W_enc (d_in, d_sae)  b_enc (d_sae)  W_dec (d_sae, d_in)  b_dec (d_in)
                              threshold (d_sae) for jumprelu, batch_topk and matryoshka; the last
                              two hold one constant there, equal to config.json's threshold
    metrics.json, training.json, README.md, concepts/, heads/   belong to other modules

Knows file layouts. Knows nothing of encoding, the Hub or training. Nothing is ever unpickled, and
no tensor is allocated before its shape and the file's length have been checked.
"""

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save, save_file
from torch import Tensor

from sae.architectures import architecture
from sae.config import BackboneRef, SAEConfig
from sae.errors import ArtifactError
from sae.storage import (
    check_seal,
    is_a,
    read_json,
    replacing,
    sealed,
    sha256,
    typed_fields,
    write_json,
)

CONFIG, SAELENS_CONFIG, WEIGHTS = "config.json", "cfg.json", "sae_weights.safetensors"
REQUIRED_FILES = (CONFIG, WEIGHTS)
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def parameter_shapes(cfg: SAEConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters of an SAE."""
    shapes: dict[str, tuple[int, ...]] = {
        "W_enc": (cfg.d_in, cfg.d_sae),
        "b_enc": (cfg.d_sae,),
        "W_dec": (cfg.d_sae, cfg.d_in),
        "b_dec": (cfg.d_in,),
    }
    for name in architecture(cfg.architecture).vectors:
        shapes[name] = (cfg.d_sae,)
    return shapes


def write(folder: str | Path, cfg: SAEConfig, tensors: Mapping[str, Tensor]) -> None:
    """Write config.json, cfg.json and the weights into `folder`, each file atomically."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    cfg, stored = _storable(cfg, {name: tensors[name] for name in parameter_shapes(cfg)})
    for name, tensor in stored.items():
        if not _is_finite(tensor):
            raise ValueError(f"{name} holds NaN or infinity; an artifact must be finite.")
    weights = folder / WEIGHTS
    with replacing(weights) as temporary:
        save_file(stored, temporary, metadata={"format": "pt"})
        digest = sha256(temporary)
    words = saelens_config(cfg, stored["W_enc"].dtype)
    if words is None:
        (folder / SAELENS_CONFIG).unlink(missing_ok=True)
    else:
        write_json(folder / SAELENS_CONFIG, words)
    write_json(folder / CONFIG, sealed({**_config_to_json(cfg), "sha256": {WEIGHTS: digest}}))


def weights_sha256(cfg: SAEConfig, tensors: Mapping[str, Tensor]) -> str:
    """The hash of the weights' file that `write` would write; takes as much memory as the file."""
    _, stored = _storable(cfg, {name: tensors[name] for name in parameter_shapes(cfg)})
    content = {name: tensor.cpu() for name, tensor in stored.items()}
    return hashlib.sha256(save(content, metadata={"format": "pt"})).hexdigest()


def read(folder: str | Path) -> tuple[SAEConfig, dict[str, Tensor]]:
    """Config and weights of `folder`, memory-mapped; anything amiss raises ArtifactError."""
    folder = Path(folder)
    cfg, digest = _read_config(folder / CONFIG)
    path = folder / WEIGHTS
    if not path.is_file():
        raise ArtifactError(path, "no such file", "the weights beside config.json")
    shapes = parameter_shapes(cfg)
    if cfg.threshold is not None:
        shapes["threshold"] = (cfg.d_sae,)
    try:
        with safe_open(path, framework="pt") as file:
            _check_header(path, file, shapes)
            if (actual_digest := sha256(path)) != digest:
                raise ArtifactError(path, f"sha256 {actual_digest}", f"{digest} as in {CONFIG}")
            tensors = {name: file.get_tensor(name) for name in shapes}
    except SafetensorError as error:
        raise ArtifactError(path, f"{error}", "a whole safetensors file") from error
    for name, tensor in tensors.items():
        if not _is_finite(tensor):
            raise ArtifactError(path, f"NaN or infinity in {name}", "finite numbers")
    if cfg.threshold is not None:
        _check_constant(path, tensors["threshold"], cfg.threshold)
        if (
            tensors["threshold"].dtype != torch.float32
        ):  # older files kept more digits than the weights
            cfg = dataclasses.replace(cfg, threshold=float(tensors["threshold"][0]))
    return cfg, tensors


def _storable(cfg: SAEConfig, tensors: Mapping[str, Tensor]) -> tuple[SAEConfig, dict[str, Tensor]]:
    """What the file holds: one dtype of those that are read, float32 for any other, and a scalar
    threshold rounded like the weights, in config.json too, so that every reader fires the same latents."""
    dtypes = {tensor.dtype for tensor in tensors.values()}
    dtype = dtypes.pop() if len(dtypes) == 1 else torch.float32
    dtype = dtype if dtype in _DTYPES.values() else torch.float32
    stored = {name: tensor.detach().to(dtype).contiguous() for name, tensor in tensors.items()}
    if cfg.threshold is not None:
        stored["threshold"] = torch.full_like(stored["b_enc"], cfg.threshold)
        if dtype != torch.float32:
            cfg = dataclasses.replace(cfg, threshold=float(stored["threshold"][0]))
    return cfg, stored


def saelens_config(cfg: SAEConfig, dtype: torch.dtype) -> dict[str, Any] | None:
    """The SAE in SAELens 6's words: batch_topk and matryoshka become its jumprelu.

    None where SAELens has no such SAE: its architecture has no word for it, or it keeps negative
    values without ranking by size.
    """
    word = architecture(cfg.architecture).saelens
    if word is None or cfg.negative == "keep":
        return None
    norms = {"constant_norm": "constant_norm_rescale"}
    content: dict[str, Any] = {
        "architecture": f"abs{word}" if cfg.negative == "rank" else word,
        "d_in": cfg.d_in,
        "d_sae": cfg.d_sae,
        "dtype": str(dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": norms.get(cfg.input_norm, cfg.input_norm),
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": "6.0.0",
            "model_name": cfg.backbone.id,
            "hook_name": f"layers.{cfg.backbone.layer}",
            "training_architecture": cfg.architecture,
            "patchlens_backbone": dataclasses.asdict(cfg.backbone),
        },
    }
    if word == "topk":
        content |= {"k": cfg.k, "rescale_acts_by_decoder_norm": False}
    return content


def _config_to_json(cfg: SAEConfig) -> dict[str, Any]:
    content = dataclasses.asdict(cfg)
    ordered = {"format": content.pop("format"), **content}
    for name, usual in _LEFT_OUT.items():
        if ordered[name] == usual:
            del ordered[name]
    return ordered


def _read_config(path: Path) -> tuple[SAEConfig, str]:
    said = read_json(path)
    content = dict(said)
    version = content.get("format")
    if isinstance(version, int) and is_a(version, int) and version > 1:
        raise ArtifactError(
            path, f"format {version}", "format 1", "It is newer than this PatchLens: update it."
        )
    hashes = content.pop("sha256", None)
    if (
        not isinstance(hashes, dict)
        or set(hashes) != {WEIGHTS}
        or not isinstance(hashes[WEIGHTS], str)
    ):
        raise ArtifactError(path, f"sha256 {hashes!r}", f"the hash of {WEIGHTS}")
    groups = content.get("group_sizes")
    if isinstance(groups, list):
        if not all(is_a(size, int) for size in groups):
            raise ArtifactError(path, f"group_sizes {groups!r}", "whole numbers")
        content["group_sizes"] = tuple(groups)
    backbone = typed_fields(path, content.get("backbone"), _BACKBONE_TYPES, "backbone.")
    fields = typed_fields(path, content, _CONFIG_TYPES, "")
    for name in ("negative", "input_norm"):
        if name in fields and fields[name] is None:
            raise ArtifactError(path, f"{name} = None", "text")
    try:
        cfg = SAEConfig(**{**fields, "backbone": BackboneRef(**backbone)})
    except (ValueError, OverflowError) as error:
        raise ArtifactError(path, f"{error}", "a consistent configuration") from error
    check_seal(path, said)
    return cfg, hashes[WEIGHTS]


_LEFT_OUT = {"group_sizes": None, "negative": "zero", "input_norm": "none"}
"""Fields that config.json leaves out where they say nothing."""
_OPTIONAL_STR, _OPTIONAL_INT = (str, type(None)), (int, type(None))
_BACKBONE_TYPES: dict[str, tuple[type, ...]] = {
    "id": (str,),
    "layer": (int,),
    "tokens": (str,),
    "revision": _OPTIONAL_STR,
    "family": _OPTIONAL_STR,
}
_CONFIG_TYPES: dict[str, tuple[type, ...]] = {
    "format": (int,),
    "architecture": (str,),
    "d_in": (int,),
    "d_sae": (int,),
    "k": _OPTIONAL_INT,
    "threshold": (float, int, type(None)),
    "backbone": (dict,),
    "group_sizes": (tuple, type(None)),
    "negative": _OPTIONAL_STR,
    "input_norm": _OPTIONAL_STR,
}


def _check_header(path: Path, file: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
    names = set(file.keys())
    if missing := sorted(set(shapes) - names):
        raise ArtifactError(path, f"no tensor {', '.join(missing)}", "it to be there")
    if extra := sorted(names - set(shapes)):
        raise ArtifactError(path, f"unknown tensor {', '.join(extra)}", f"only {', '.join(shapes)}")
    dtypes = set()
    for name, shape in shapes.items():
        view = file.get_slice(name)
        if tuple(view.get_shape()) != shape:
            raise ArtifactError(path, f"{name} of shape {view.get_shape()}", f"{shape}")
        dtypes.add(view.get_dtype())
    if len(dtypes) != 1 or not dtypes <= set(_DTYPES):
        dtype_names = ", ".join(sorted(dtypes))
        raise ArtifactError(path, f"dtype {dtype_names}", f"one of {', '.join(_DTYPES)}")


def _check_constant(path: Path, threshold: Tensor, value: float) -> None:
    expected = torch.tensor(value, dtype=threshold.dtype)
    if not bool((threshold == expected).all()):
        low, high = (float(v) for v in threshold.aminmax())
        raise ArtifactError(
            path, f"thresholds from {low} to {high}", f"the constant {value} of {CONFIG}"
        )


def _is_finite(tensor: Tensor) -> bool:
    """Whether all numbers are finite, without a mask of the tensor's size."""
    return all(math.isfinite(float(end)) for end in tensor.aminmax())
