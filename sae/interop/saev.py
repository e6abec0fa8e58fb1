"""saev's files (OSU NLP): a line of JSON, then torch.save of a state dict.

    {"schema": 5, "cfg": {"d_model", "d_sae", "activation": {"cls": "TopK", "params": {…}}}, …}\\n
W_enc (d, F), b_enc, W_dec (F, d), b_dec; nothing is subtracted before encoding; TopK lets negative
values through; BatchTopK (with `activation.threshold`) fires strictly above it. Files from before
schemas say d_vit and exp_factor, are relu, and took inputs (x - scale_mean) / scale_norm, which a
config.json beside them records.
"""

import json
import mmap
from pathlib import Path
from typing import Any

import torch

from sae.errors import ArtifactError
from sae.interop.foreign import ForeignSAE, Reading
from sae.interop.pickles import parse, state_dict_of
from sae.interop.source import Hints, Source, field, take
from sae.storage import is_a

NAME = "saev"
TITLE = "saev: sae.pt that begins with a line of JSON"
FILES = ("sae.pt",)
MAX_HEADER_BYTES = 1 << 16
_SHAPES = {"W_enc": "dF", "b_enc": "F", "W_dec": "Fd", "b_dec": "d"}
_SCHEMAS = (None, 1, 2, 3, 4, 5)


def detect(source: Source) -> bool:
    path = source.weights(FILES)
    if path is None:
        return False
    with path.open("rb") as file:
        start = file.read(1)
        return start == b"{"


def read(source: Source, _: Hints) -> Reading:
    path = source.weights(FILES)
    if path is None:
        raise ArtifactError(source.path, "no weights", "one sae.pt")
    header, data = _split(path)
    schema = header.get("schema")
    if schema not in _SCHEMAS or isinstance(schema, bool):
        raise ArtifactError(path, f"schema {schema!r:.40}", f"one of {_SCHEMAS[1:]} or none")
    config = header if schema is None else field(path, header, "cfg", dict)
    w = take(path, state_dict_of(parse(data, path)), _SHAPES, optional={"activation.threshold": ""})
    d_in, d_sae = w["W_enc"].shape
    d_model = config.get("d_model", config.get("d_vit"))
    if d_model not in (None, d_in):
        raise ArtifactError(path, f"d_model = {d_model!r:.40}", f"{d_in} as in the weights")
    expected = config.get("d_sae")
    if expected is None and is_a(d_model, int) and is_a(config.get("exp_factor"), int):
        expected = d_model * config["exp_factor"]
    if expected not in (None, d_sae):
        raise ArtifactError(path, f"d_sae = {expected!r:.40}", f"{d_sae} as in the weights")
    made = ForeignSAE("relu", w["W_enc"], w["b_enc"], w["W_dec"], w["b_dec"], subtract=False)
    kind, words = _activation(path, header, config)
    if kind == "TopK":
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
    result = Reading(made, found=[f"schema {schema}, {kind}"])
    _unscale(source, schema, result)
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


def _unscale(source: Source, schema: object, result: Reading) -> None:
    """Old files: fold the scaling of inputs that config.json beside them records."""
    found = source.config("config.json")
    if found is None or "scale_mean" not in found[1]:
        if schema is None:
            result.assumed.append("inputs unscaled: there is no config.json with scale_mean")
        return
    path, config = found
    mean = field(path, config, "scale_mean", list)
    norm = field(path, config, "scale_norm", float, int)
    d_in = result.sae.W_enc.shape[0]
    if len(mean) != d_in or not all(is_a(v, float, int) for v in mean) or not norm > 0:
        raise ArtifactError(path, f"a scale_mean of {len(mean)} entries", f"{d_in} numbers")
    result.sae.mean = torch.tensor(mean, dtype=torch.float32)
    result.sae.scale = float(norm)
    result.found.append(f"inputs centred and divided by {norm:.6g}: folded into the weights")
