"""clip-topk-sae (lasgroup): a TopK SAE of CLIP's image embedding, saved by PyTorchModelHubMixin.

config.json {input_dim, hidden_dim, k, normalize_decoder} and model.safetensors: W_enc (d, F), b_enc,
W_dec (F, d), b_dec (unless it has none). Nothing is subtracted; the k largest of x W_enc + b_enc pass,
negative ones among them; decoder rows are brought to unit length when decoding, unless the config says
otherwise.
"""

import torch

from sae.errors import ArtifactError
from sae.interop.foreign import ForeignSAE, Reading
from sae.interop.source import Hints, Source, field, read_safetensors, same, take

NAME = "clip_topk"
TITLE = "clip-topk-sae: config.json and model.safetensors, of CLIP's image embedding"
_SHAPES = {"W_enc": "dF", "b_enc": "F", "W_dec": "Fd"}
_COUNTERS = ("feature_counts", "total_samples")


def detect(source: Source) -> bool:
    config = source.config("config.json")
    if config is None or not source.has("model.safetensors"):
        return False
    keys = set(config[1])
    return {"input_dim", "hidden_dim", "k"} <= keys and not keys & {"activation", "sae_type"}


def read(source: Source, _: Hints) -> Reading:
    where, config = source.need("config.json")
    path = source.folder / "model.safetensors"
    if not path.is_file():
        raise ArtifactError(path, "no such file", "the weights beside config.json")
    w = take(path, read_safetensors(path), _SHAPES, optional={"b_dec": "d"}, ignored=_COUNTERS)
    same(where, config, "input_dim", w["W_enc"].shape[0])
    same(where, config, "hidden_dim", w["W_enc"].shape[1])
    k = field(where, config, "k", int)
    W_dec, how = w["W_dec"], "as it is"
    if field(where, config, "normalize_decoder", bool, default=True):
        W_dec = W_dec / W_dec.norm(dim=1, keepdim=True).clamp_min(1e-12)
        how = "of unit rows"
    b_dec = w.get("b_dec", torch.zeros(len(w["W_enc"])))
    made = ForeignSAE("topk", w["W_enc"], w["b_enc"], W_dec, b_dec, k=k, negative="keep")
    made.subtract = False
    return Reading(
        made,
        layer=-1,
        tokens="embedding",
        hook="image embedding",
        found=[f"k = {k}, decoder {how}"],
        weights=path,
    )
