"""A transformers CLIP taken apart where prompts enter it and where activations are changed.

Knows CLIP's module paths and where learned prompts go: after SOS in the text tower, after the last
patch in the vision tower, and again in front of deeper blocks (Khattak et al., MaPLe, CVPR 2023;
Jia et al., VPT, ECCV 2022). Knows nothing of heads, classes or SAEs.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int, Int64
from torch import Tensor

from sae.backbones.base import Backbone, Images
from sae.backbones.clip import ClipBackbone


class VisionPrompts(NamedTuple):
    """Learned tokens of the vision tower, behind the patches."""

    shallow: Float[Tensor, "prompts d_vision"]
    """(n, d_vision): joined to the embedded patches, before the first norm."""
    deep: tuple[Float[Tensor, "prompts d_vision"], ...] = ()
    """(n, d_vision) each: entry i takes their place at the input of block i + 1."""


class ClipParts:
    """The towers of a CLIP in pieces, each differentiable; the weights are shared, not copied.

    Layers count as in Backbone. Raises ValueError if the backbone is no transformers CLIP with text.
    """

    def __init__(self, backbone: Backbone) -> None:
        if not isinstance(backbone, ClipBackbone) or not backbone.has_text:
            raise ValueError(
                f"backbone {backbone.id} ({backbone.family}) has no text tower to prompt; heads need "
                "a transformers CLIP with its tokenizer, such as openai/clip-vit-base-patch16"
            )
        self.backbone = backbone
        self._model = backbone._model
        self._vision, self._text = self._model.vision_model, self._model.text_model
        self.n_vision_layers = len(self._vision.encoder.layers)
        self.n_text_layers = len(self._text.encoder.layers)
        self.d_vision: int = self._vision.config.hidden_size
        self.d_text: int = self._text.config.hidden_size
        self.d_proj: int = self._model.visual_projection.weight.shape[0]
        self.max_tokens: int = self._text.config.max_position_embeddings
        self.scale = float(backbone.logit_scale or 1.0)

    def shapes(self) -> dict[str, int]:
        """The sizes a head depends on."""
        names = ("d_vision", "d_text", "d_proj", "n_vision_layers", "n_text_layers")
        return {name: getattr(self, name) for name in names}

    def fingerprint(self) -> str:
        """16 hexadecimal digits that tell checkpoints of one shape apart (of the projections)."""
        digest = hashlib.sha256()
        for layer in (self._model.visual_projection, self._model.text_projection):
            digest.update(layer.weight.detach().to("cpu", torch.float16).numpy().tobytes())
        return digest.hexdigest()[:16]

    # Text ------------------------------------------------------------------------------------

    def words(self, text: str) -> list[int]:
        """Token numbers of `text` without start and end; ValueError for words it does not know."""
        tokenizer = self.backbone._tokenizer
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        unknown = tokenizer.unk_token_id
        if unknown is not None and unknown != tokenizer.eos_token_id and unknown in ids:
            raise ValueError(
                f"the text {text!r} has words that the tokenizer of {self.backbone.id} does not "
                "know; use words of its vocabulary, or a backbone with a larger one"
            )
        return ids

    def text_ids(
        self, rows: Sequence[Sequence[int]]
    ) -> tuple[Int64[Tensor, "texts tokens"], Int64[Tensor, " texts"]]:
        """Rows of word tokens framed by start and end: ids (N, T) and places of the ends (N,)."""
        tokenizer = self.backbone._tokenizer
        longest = max(len(row) for row in rows) + 2
        if longest > self.max_tokens:
            raise ValueError(
                f"a prompt has {longest} tokens, {self.backbone.id} reads at most "
                f"{self.max_tokens}; shorten the class names, the template or the context"
            )
        end = tokenizer.eos_token_id
        ids = torch.full((len(rows), longest), end, dtype=torch.long)
        for number, row in enumerate(rows):
            ids[number, : len(row) + 2] = torch.tensor([tokenizer.bos_token_id, *row, end])
        ends = torch.tensor([len(row) + 1 for row in rows])
        return ids.to(self.backbone.device), ends.to(self.backbone.device)

    def embed(self, ids: Int[Tensor, "*texts tokens"]) -> Float[Tensor, "*texts tokens d_text"]:
        """Token embeddings (N, T, d_text), without positions."""
        return self._text.embeddings.token_embedding(ids)

    def text_features(
        self,
        embedded: Float[Tensor, "texts tokens d_text"],
        ends: Int64[Tensor, " texts"],
        deep: Sequence[Float[Tensor, "prompts d_text"]] = (),
    ) -> Float[Tensor, "texts d_proj"]:
        """(N, d_proj), not normalised, of embedded prompts (N, T, d_text) that end at `ends` (N,).

        `deep[i]` (n, d_text) replaces tokens 1 … n at the input of block i + 1.
        """
        n, length = embedded.shape[:2]
        positions = self._text.embeddings.position_embedding.weight[:length]
        hidden = embedded + positions
        mask = torch.full((length, length), float("-inf"), device=hidden.device, dtype=hidden.dtype)
        mask = mask.triu(1)[None, None].expand(n, 1, -1, -1)
        for number, block in enumerate(self._text.encoder.layers):
            if 0 < number <= len(deep):
                prompt = deep[number - 1].to(hidden.dtype).expand(n, -1, -1)
                hidden = torch.cat([hidden[:, :1], prompt, hidden[:, 1 + prompt.shape[1] :]], dim=1)
            hidden = block(hidden, attention_mask=mask)
        hidden = self._text.final_layer_norm(hidden)
        last = hidden[torch.arange(n, device=hidden.device), ends]
        return self._model.text_projection(last)

    @torch.no_grad()
    def unit_text_features(self, texts: Sequence[str]) -> Float32[Tensor, "texts d_proj"]:
        """Unit vectors (N, d_proj) float32 of plain texts; ValueError for unknown words, and for texts
        that are too long."""
        ids, ends = self.text_ids([self.words(text) for text in texts])
        return F.normalize(self.text_features(self.embed(ids), ends).float(), dim=-1)

    # Vision ----------------------------------------------------------------------------------

    def vision_input(
        self, images: Images, prompts: VisionPrompts | None = None
    ) -> Float[Tensor, "images tokens d_vision"]:
        """(B, tokens, d_vision) at the input of block 0: CLS, patches, then the prompts."""
        inputs = self.backbone._inputs(images)
        hidden = self._vision.embeddings(inputs["pixel_values"], **self.backbone._interpolation())
        if prompts is not None:
            shallow = prompts.shallow.to(hidden.dtype).expand(len(hidden), -1, -1)
            hidden = torch.cat([hidden, shallow], dim=1)
        return self._vision.pre_layrnorm(hidden)

    def vision_blocks(
        self,
        hidden: Float[Tensor, "images tokens d_vision"],
        prompts: VisionPrompts | None,
        first: int,
        stop: int,
    ) -> Float[Tensor, "images tokens d_vision"]:
        """The residual stream after block `stop` - 1, from that at the input of block `first`."""
        for number in range(first, stop):
            hidden = self._vision.encoder.layers[number](
                self._with_deep(hidden, prompts, number), None
            )
        return hidden

    def activations(
        self, images: Images, layer: int, prompts: VisionPrompts | None
    ) -> Float[Tensor, "images tokens d_vision"]:
        """The residual stream (B, tokens, d_vision) after `layer`, prompts included at the end."""
        stop = self.backbone.resolve_layer(layer) + 1
        return self.vision_blocks(self.vision_input(images, prompts), prompts, 0, stop)

    def finish(
        self,
        hidden: Float[Tensor, "images tokens d_vision"],
        layer: int,
        prompts: VisionPrompts | None,
        *,
        cls_only: bool = False,
    ) -> Float[Tensor, "images d_proj"]:
        """Image features (B, d_proj), not normalised, from the activations of `layer`.

        `cls_only` computes the last block for CLS alone, the only token that the features read:
        the same numbers to rounding at a sixth of the cost. Edits of `Backbone.edit` on that block
        are then not seen.
        """
        first, last = self.backbone.resolve_layer(layer) + 1, self.n_vision_layers
        if not cls_only or first == last:
            hidden = self.vision_blocks(hidden, prompts, first, last)
            return self.project(hidden[:, 0])
        hidden = self.vision_blocks(hidden, prompts, first, last - 1)
        return self.project(self._last_block_of_cls(self._with_deep(hidden, prompts, last - 1)))

    def project(self, cls: Float[Tensor, "*images d_vision"]) -> Float[Tensor, "*images d_proj"]:
        """(…, d_proj) of residual vectors (…, d_vision): final norm, then the projection."""
        return self._model.visual_projection(self._vision.post_layernorm(cls))

    def readout(
        self, cls: Float[Tensor, "images d_vision"], direction: Float[Tensor, "... d_proj"]
    ) -> tuple[Float[Tensor, "images d_vision"], Float[Tensor, " images"]]:
        """Gradient g (B, d_vision) and constant c (B,) with cos(features, direction) = cls · g + c.

        Exact at `cls` (B, d_vision), the last block's output: the final norm's deviation and the
        features' length are taken as they are there, and all else is linear. `direction` (d_proj)
        or (B, d_proj) need not be of unit length; it scales the result.
        """
        norm, weight = self._vision.post_layernorm, self._model.visual_projection.weight
        deviation = (cls.var(-1, unbiased=False) + norm.eps).sqrt()
        length = self.project(cls).norm(dim=-1)
        along = direction @ weight
        constant = (along * norm.bias).sum(-1) / length
        gradient = along * norm.weight
        gradient = gradient - gradient.mean(-1, keepdim=True)
        return gradient / (deviation * length)[:, None], constant

    def image_features(
        self, images: Images, prompts: VisionPrompts | None = None, *, cls_only: bool = False
    ) -> Float[Tensor, "images d_proj"]:
        """Image features (B, d_proj), not normalised, with prompts."""
        hidden = self.vision_input(images, prompts)
        if not cls_only:
            hidden = self.vision_blocks(hidden, prompts, 0, self.n_vision_layers)
            return self.project(hidden[:, 0])
        before = self.n_vision_layers - 1
        hidden = self.vision_blocks(hidden, prompts, 0, before)
        return self.project(self._last_block_of_cls(self._with_deep(hidden, prompts, before)))

    def _with_deep(self, hidden: Tensor, prompts: VisionPrompts | None, block: int) -> Tensor:
        if prompts is None or not 0 < block <= len(prompts.deep):
            return hidden
        fresh = prompts.deep[block - 1].to(hidden.dtype).expand(len(hidden), -1, -1)
        return torch.cat([hidden[:, : -fresh.shape[1]], fresh], dim=1)

    def _last_block_of_cls(self, hidden: Tensor) -> Tensor:
        """CLS (B, d_vision) after the last block.

        One query needs no keys and values of every token: q · (W_k x + b_k) = (W_kᵀ q) · x but for
        a constant that softmax drops, and the mean of W_v x + b_v is W_v (mean of x) + b_v. So the
        work a token falls from 2 d² to 2 d for each attention head.
        """
        block = self._vision.encoder.layers[-1]
        attention = block.self_attn
        normed = block.layer_norm1(hidden)
        heads = (attention.num_heads, attention.head_dim)
        query = attention.q_proj(normed[:, 0]).unflatten(-1, heads)
        to_key = attention.k_proj.weight.unflatten(0, heads)
        to_value = attention.v_proj.weight.unflatten(0, heads)
        asked = torch.einsum("bhe,hed->bhd", query, to_key)
        scores = (asked @ normed.transpose(1, 2)).float() * attention.scale
        seen = scores.softmax(-1).to(normed.dtype) @ normed
        mixed = torch.einsum("bhd,hed->bhe", seen, to_value).flatten(1) + attention.v_proj.bias
        cls = hidden[:, 0] + attention.out_proj(mixed)
        return cls + block.mlp(block.layer_norm2(cls))
