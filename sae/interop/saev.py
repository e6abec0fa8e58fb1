"""saev's files (OSU NLP): a line of JSON, then torch.save of a state dict.

    {"schema": 5, "cfg": {"d_model", "d_sae", "activation": {"cls": "TopK", "params": {…}}}, …}\\n
W_enc (d, F), b_enc, W_dec (F, d), b_dec; TopK lets negative values through; BatchTopK (with
`activation.threshold`) fires strictly above it. Nothing is subtracted before encoding, but for files
from before 31 July 2025 (no schema, or schema 1), which encode x - b_dec. Files from before schemas say
d_vit and exp_factor, are relu, and took inputs (x - mean) / norm: a config.json or cfg.json beside them
has the two numbers, or says `scale_mean: true`, and then they have to be given. Layer and tokens are
in that file too, or in the path (`layer_13/RUN/sae.pt`).
"""

import json
import mmap
import re
from pathlib import Path
from typing import Any

import torch

from sae.config import TokenPolicy
from sae.errors import ArtifactError
from sae.interop.foreign import ForeignSAE, Reading
from sae.interop.pickles import parse, state_dict_of
from sae.interop.source import Hints, Source, field, take
from sae.interop.unpickler import shown
from sae.storage import is_a

NAME = "saev"
TITLE = "saev: sae.pt that begins with a line of JSON"
FILES = ("sae.pt",)
MAX_HEADER_BYTES = 1 << 16
_SHAPES = {"W_enc": "dF", "b_enc": "F", "W_dec": "Fd", "b_dec": "d"}
_SCHEMAS = (None, 1, 2, 3, 4, 5)
_SUBTRACT = (None, 1)
"""Schemas whose encoder takes b_dec off its input."""
_TOKENS: dict[str, TokenPolicy] = {
    "content": "patches",
    "patches": "patches",
    "image": "patches",
    "special": "cls",
    "cls": "cls",
    "all": "all",
}
_LAYER = re.compile(r"layer_(\d+)")


def detect(source: Source) -> bool:
    path = source.weights(FILES)
    if path is None:
        return False
    with path.open("rb") as file:
        start = file.read(1)
        return start == b"{"


def contents(path: Path) -> tuple[dict[str, Any], Any]:
    """The header of a file, and its state dict."""
    header, data = _split(path)
    return header, parse(data, path)


def read(source: Source, hints: Hints) -> Reading:
    path = source.weights(FILES)
    if path is None:
        raise ArtifactError(source.path, "no weights", "one sae.pt")
    header, content = contents(path)
    schema = header.get("schema")
    if schema not in _SCHEMAS or isinstance(schema, bool):
        raise ArtifactError(path, f"schema {schema!r:.40}", f"one of {_SCHEMAS[1:]} or none")
    config = header if schema is None else field(path, header, "cfg", dict)
    w = take(path, state_dict_of(content), _SHAPES, optional={"activation.threshold": ""})
    d_in, d_sae = w["W_enc"].shape
    d_model = config.get("d_model", config.get("d_vit"))
    if d_model not in (None, d_in):
        raise ArtifactError(path, f"d_model = {d_model!r:.40}", f"{d_in} as in the weights")
    expected = config.get("d_sae")
    if expected is None and is_a(d_model, int) and is_a(config.get("exp_factor"), int):
        expected = d_model * config["exp_factor"]
    if expected not in (None, d_sae):
        raise ArtifactError(path, f"d_sae = {expected!r:.40}", f"{d_sae} as in the weights")
    made = ForeignSAE("relu", w["W_enc"], w["b_enc"], w["W_dec"], w["b_dec"])
    made.subtract = schema in _SUBTRACT
    kind, words = _activation(path, header, config)
    if kind == "TopK" or kind == "BatchTopK" and schema in (None, 1, 2):
        made.architecture, made.negative = "topk", "keep"
        made.k = min(field(path, words, "top_k", int), d_sae)
    elif kind == "BatchTopK":
        if "activation.threshold" not in w:
            raise ArtifactError(
                path,
                "BatchTopK without a threshold",
                "activation.threshold, which saev stores since schema 5",
                "Use a newer checkpoint: without it, outputs depend on the batch.",
            )
        made.architecture, made.threshold = "batch_topk", float(w["activation.threshold"])
        made.k = min(field(path, words, "top_k", int), d_sae)
    elif kind != "Relu":
        raise ArtifactError(path, f"activation {kind!r:.40}", "Relu, TopK or BatchTopK")
    result = Reading(made, found=[f"schema {schema}, {kind}"], weights=path)
    told = source.config("config.json", "cfg.json")
    _unscale(told, schema, result, hints)
    _place(path, told, result)
    return result


def _split(path: Path) -> tuple[dict[str, Any], bytearray]:
    """The header, and the rest of the file, which becomes the tensors' memory."""
    with path.open("rb") as file:
        line = file.readline(MAX_HEADER_BYTES)
        if not line.startswith(b"{") or not line.endswith(b"\n"):
            raise ArtifactError(path, f"a first line {line[:40]!r}", "a line of JSON")
        try:
            header = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ArtifactError(path, f"{error}", "a line of JSON") from error
        whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    if not isinstance(header, dict) or len(whole) == len(line):
        raise ArtifactError(path, "no state dict after the first line", "one")
    return header, bytearray(memoryview(whole)[len(line) :])


def _activation(path: Path, header: dict, config: dict) -> tuple[str, dict[str, Any]]:
    """The activation's name and its numbers, in any of the ways that schemas wrote it."""
    if header.get("schema") is None:
        return "Relu", {}
    if header.get("schema") == 1 and header.get("cls") in ("Relu", "TopK", "BatchTopK"):
        return header["cls"], config
    described = config.get("activation", {"cls": "Relu", "params": {}})
    if not isinstance(described, dict):
        raise ArtifactError(path, f"activation {described!r:.60}", "an object")
    names = {"relu": "Relu", "top-k": "TopK", "batch-top-k": "BatchTopK"}
    words = described.get("params", described)
    name = described.get("cls") or names.get(str(described.get("kind")), described.get("kind"))
    if not isinstance(words, dict) or not isinstance(name, str):
        raise ArtifactError(path, f"activation {described!r:.60}", "cls and params")
    return name, words


def _unscale(
    told: tuple[Path, dict[str, Any]] | None, schema: object, result: Reading, hints: Hints
) -> None:
    """Fold the scaling of inputs that the file beside the weights records, or a person gives."""
    made, data = result.sae, _data(told)
    if hints.norm is not None:
        made.mean, made.scale = hints.norm
        result.found.append(f"inputs centred and divided by {made.scale:.6g}, as given")
        return
    if told is None or "scale_mean" not in data:
        if schema is None:
            result.assumed.append("inputs unscaled: no config beside the file has scale_mean")
        return
    path = told[0]
    if not data["scale_mean"] and not data.get("scale_norm"):
        return
    if not isinstance(data["scale_mean"], list):
        raise ArtifactError(
            path,
            f"scale_mean {shown(data['scale_mean'])}",
            "the mean and norm that inputs were scaled by, which are not in these files",
            "Give them: --norm FILE, a safetensors, JSON or pickled file of mean and std.",
        )
    mean = field(path, data, "scale_mean", list)
    norm = field(path, data, "scale_norm", float, int)
    d_in = made.W_enc.shape[0]
    if len(mean) != d_in or not all(is_a(v, float, int) for v in mean) or not norm > 0:
        raise ArtifactError(path, f"a scale_mean of {len(mean)} entries", f"{d_in} numbers")
    made.mean = torch.tensor(mean, dtype=torch.float32)
    made.scale = float(norm)
    result.found.append(f"inputs centred and divided by {norm:.6g}: folded into the weights")


def _place(path: Path, told: tuple[Path, dict[str, Any]] | None, result: Reading) -> None:
    """Layer and tokens, from the file beside the weights or else from the path."""
    data = _data(told)
    if is_a(data.get("layer"), int):
        result.layer = data["layer"]
    elif m := _LAYER.fullmatch(path.absolute().parent.parent.name):
        result.layer = int(m[1])
    tokens = data.get("tokens", data.get("patches"))
    if told is not None and isinstance(tokens, str):
        if tokens not in _TOKENS:
            raise ArtifactError(told[0], f"tokens {tokens!r:.40}", f"one of {', '.join(_TOKENS)}")
        result.tokens = _TOKENS[tokens]
        result.found.append(f"tokens {tokens!r}")


def _data(told: tuple[Path, dict[str, Any]] | None) -> dict[str, Any]:
    """What a config says of the activations: at its top, in "train_data", or in "data"."""
    if told is None:
        return {}
    settings = dict(told[1])
    for part in ("data", "train_data"):
        if isinstance(told[1].get(part), dict):
            settings |= told[1][part]
    return settings
