"""OpenAI's CLIP weights, as CoOp, MaPLe and open_clip name them, in transformers' words.

Knows both naming schemes and that OpenAI fuses query, key and value into one matrix. Reads no files.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sae.backbones.prompting import ClipParts

_BLOCK = re.compile(r"(?:transformer\.)?resblocks\.(\d+)\.(.+)")
_IN_BLOCK = {
    "attn.out_proj.weight": "self_attn.out_proj.weight",
    "attn.out_proj.bias": "self_attn.out_proj.bias",
    "ln_1.weight": "layer_norm1.weight",
    "ln_1.bias": "layer_norm1.bias",
    "ln_2.weight": "layer_norm2.weight",
    "ln_2.bias": "layer_norm2.bias",
    "mlp.c_fc.weight": "mlp.fc1.weight",
    "mlp.c_fc.bias": "mlp.fc1.bias",
    "mlp.c_proj.weight": "mlp.fc2.weight",
    "mlp.c_proj.bias": "mlp.fc2.bias",
}
_VISION = {
    "class_embedding": "vision_model.embeddings.class_embedding",
    "conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "ln_post.weight": "vision_model.post_layernorm.weight",
    "ln_post.bias": "vision_model.post_layernorm.bias",
}
_TEXT = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
}


def transformers_state(original: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A CLIPModel's tensors from OpenAI's, with the prefixes of CLIP, CoOp or MaPLe.

    The vision tower is `visual.` or `image_encoder.`, the text tower `text_encoder.` or without a
    prefix. Raises ValueError for a tensor that belongs to no part of a CLIP vision transformer
    (a ResNet's, for one).
    """
    state: dict[str, Tensor] = {}
    for name, tensor in original.items():
        tower, rest = _tower(name)
        if name == "logit_scale":
            state[name] = tensor
        elif rest == "proj" and tower == "vision":
            state["visual_projection.weight"] = tensor.T.contiguous()
        elif rest == "text_projection":
            state["text_projection.weight"] = tensor.T.contiguous()
        elif block := _BLOCK.fullmatch(rest):
            state |= _block(f"{tower}_model.encoder.layers.{block[1]}.", block[2], tensor, name)
        else:
            known = _VISION if tower == "vision" else _TEXT
            if rest not in known:
                raise ValueError(
                    f"tensor {name!r} is in no CLIP vision transformer; ResNet backbones and other "
                    "architectures cannot be converted"
                )
            state[known[rest]] = tensor
    return state


def load_openai_weights(model: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Put the weights of `transformers_state` into a CLIPModel.

    Returns the names that the state does not have (the token embedding, in MaPLe files). Raises
    ValueError for names or shapes that do not fit.
    """
    own = model.state_dict()
    wrong = [name for name in state if name not in own or own[name].shape != state[name].shape]
    if wrong:
        raise ValueError(
            f"{len(wrong)} tensors do not fit the model, such as {wrong[0]} of shape "
            f"{tuple(state[wrong[0]].shape)}; expected the CLIP that the file was trained on"
        )
    model.load_state_dict({name: value.to(own[name].dtype) for name, value in state.items()}, False)
    return sorted(name for name in own if name not in state)


def differing_weights(parts: ClipParts, state: Mapping[str, Tensor]) -> list[str]:
    """Names in `state` (of transformers_state) whose shape or values are not those of the CLIP.

    Values are compared as fp16, which such files are stored in.
    """
    own = parts.backbone._model.state_dict()
    return [n for n, value in state.items() if n not in own or not _alike(own[n], value)]


def _alike(own: Tensor, other: Tensor) -> bool:
    if own.shape != other.shape:
        return False
    own, other = own.to("cpu", torch.float16), other.half()
    if torch.equal(own, other):
        return True
    return torch.allclose(own.float(), other.float(), rtol=2e-3, atol=1e-6)


def _tower(name: str) -> tuple[str, str]:
    for prefix in ("visual.", "image_encoder."):
        if name.startswith(prefix):
            return "vision", name.removeprefix(prefix)
    return "text", name.removeprefix("text_encoder.")


def _block(prefix: str, rest: str, tensor: Tensor, name: str) -> dict[str, Tensor]:
    if rest in ("attn.in_proj_weight", "attn.in_proj_bias"):
        kind = rest.rpartition("_")[2]
        thirds = tensor.chunk(3)
        return {
            f"{prefix}self_attn.{part}_proj.{kind}": third.contiguous()
            for part, third in zip("qkv", thirds, strict=True)
        }
    if rest not in _IN_BLOCK:
        raise ValueError(f"tensor {name!r} is in no block of a CLIP transformer")
    return {prefix + _IN_BLOCK[rest]: tensor}
