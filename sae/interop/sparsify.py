"""eai-sparsify's folders (EleutherAI): `cfg.json` and `sae.safetensors`, one a hook point.

encoder.weight (F, d), encoder.bias, W_dec (F, d), b_dec; latents are the k largest of
relu((x - b_dec) encoder.weight^T + encoder.bias). num_latents 0 means d_in * expansion_factor. With
`signed` (mid-2024) there is no relu and the k are the largest by size.
"""

import re

from sae.errors import ArtifactError
from sae.interop.foreign import ForeignSAE, Reading
from sae.interop.source import Hints, Source, field, read_safetensors, take

NAME = "sparsify"
TITLE = "eai-sparsify: cfg.json and sae.safetensors"
_SHAPES = {"encoder.weight": "Fd", "encoder.bias": "F", "W_dec": "Fd", "b_dec": "d"}
_LAYER = re.compile(r"(?:layers?|blocks|h)\.(\d+)$")


def detect(source: Source) -> bool:
    return source.has("cfg.json") and source.has("sae.safetensors")


def read(source: Source, _: Hints) -> Reading:
    path, config = source.need("cfg.json")
    for key in ("transcode", "skip_connection"):
        if field(path, config, key, bool, default=False):
            raise ArtifactError(path, f"{key} = true", "an SAE, which rebuilds its own input")
    activation = field(path, config, "activation", str, default="topk")
    if activation != "topk":
        raise ArtifactError(
            path,
            f"activation {activation!r:.40}",
            "topk: groupmax chooses one latent of each group, which no PatchLens SAE does",
            "Use another SAE.",
        )
    weights = source.folder / "sae.safetensors"
    w = take(weights, read_safetensors(weights), _SHAPES)
    d_sae, d_in = w["encoder.weight"].shape
    n = field(path, config, "num_latents", int, default=0)
    expected = n or d_in * field(path, config, "expansion_factor", int, default=32)
    for key, got, length in (
        ("d_in", field(path, config, "d_in", int), d_in),
        ("num_latents", expected, d_sae),
    ):
        if got != length:
            raise ArtifactError(path, f"{key} = {got}", f"{length} as in the weights")
    k = field(path, config, "k", int)
    made = ForeignSAE(
        "topk", w["encoder.weight"].t(), w["encoder.bias"], w["W_dec"], w["b_dec"], k=k
    )
    if field(path, config, "signed", bool, default=False):
        made.negative = "rank"
    result = Reading(made, found=[f"k = {k}, hook point {source.folder.name}"], weights=weights)
    if layer := _LAYER.search(source.folder.name):
        result.layer = int(layer[1])
    return result
