"""What an SAE reads inside a prompted CLIP, and the same activations with concepts switched off.

Knows the hooked layer, the error term and edits; knows nothing of classes or tasks. The error term
is what the SAE leaves unexplained, x - x_hat of each token. Three ways to treat it in an edit:

    per_token   keep it: x - (latents switched off) W_dec · s; with nothing off, x itself, bit for bit
    none        drop it: decode(latents kept), that is (latents kept) W_dec + b_dec
    scalar      drop it and add one number to every width, its mean (as PatchSAE's released code);
                every layer norm behind takes that out again, so it equals `none` to rounding

where s is 1, or each token's size where the SAE normalises its input (SparseAutoencoder.token_scale).
"""

from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float, Int64, Num, Shaped
from torch import Tensor

from sae.backbones.base import Images
from sae.backbones.prompting import ClipParts, VisionPrompts
from sae.backbones.tokens import TokenView
from sae.model import SparseAutoencoder
from sae.sparse import SparseLatents, decode_sparse

ErrorTerm = Literal["none", "scalar", "per_token"]
ERROR_TERMS: tuple[str, ...] = get_args(ErrorTerm)


class HookedActivations(NamedTuple):
    """One forward up to the hooked layer."""

    hidden: Float[Tensor, "images tokens d_in"]
    """(B, tokens, d_in): activations of every token, prompts last."""
    latents: SparseLatents
    """(B, read tokens, n): what the SAE says of the tokens it was trained on."""

    def pick(self, images: Shaped[Tensor, " chosen"] | slice) -> "HookedActivations":
        """The same for some of the images."""
        values, indices = self.latents
        return HookedActivations(
            self.hidden[images], SparseLatents(values[images], indices[images])
        )


class ConceptLens:
    """A CLIP and an SAE on one of its layers."""

    def __init__(self, parts: ClipParts, sae: SparseAutoencoder) -> None:
        """Raises ValueError if the SAE is of another width or layer than the CLIP has."""
        if sae.cfg.d_in != parts.d_vision:
            raise ValueError(
                f"the SAE reads activations of width {sae.cfg.d_in} ({sae.cfg.backbone.id}), but "
                f"{parts.backbone.id} has width {parts.d_vision}; load the SAE of this backbone"
            )
        self.parts, self.sae = parts, sae
        self.layer = parts.backbone.resolve_layer(sae.cfg.backbone.layer)
        self.view = TokenView(parts.backbone, sae.cfg.backbone.tokens)

    @property
    def linear(self) -> bool:
        """Whether no block lies behind the hooked layer, so that attribution is exact."""
        return self.layer == self.parts.n_vision_layers - 1

    @torch.no_grad()
    def read(self, images: Images, prompts: VisionPrompts | None = None) -> HookedActivations:
        """Activations of the hooked layer and their latents."""
        hidden = self.parts.activations(images, self.layer, prompts)
        return HookedActivations(hidden, self.sae.encode_sparse(self.view.read(hidden)))

    def read_tokens(self, reading: HookedActivations) -> Float[Tensor, "images read d_in"]:
        """(B, read tokens, d_in): the activations that the SAE reads."""
        return self.view.read(reading.hidden)

    @torch.no_grad()
    def features(
        self,
        hidden: Float[Tensor, "images tokens d_in"],
        prompts: VisionPrompts | None = None,
        *,
        cls_only: bool = False,
    ) -> Float[Tensor, "images d_proj"]:
        """Image features (B, d_proj) from activations of the hooked layer; see ClipParts.finish."""
        return self.parts.finish(hidden, self.layer, prompts, cls_only=cls_only)

    @torch.no_grad()
    def edited(
        self,
        reading: HookedActivations,
        keep: Bool[Tensor, "... d_sae"],
        error: ErrorTerm = "per_token",
        scalar: float = 0.0,
    ) -> Float[Tensor, "images tokens d_in"]:
        """Activations (B, tokens, d_in) with only the latents of `keep` (d_sae) or (B, d_sae) on."""
        if error not in ERROR_TERMS:
            raise ValueError(f"error {error!r}: expected one of {', '.join(ERROR_TERMS)}")
        values, indices = reading.latents
        kept = chosen(keep, indices)
        if error == "per_token":
            off = values.masked_fill(kept, 0)
            if not off.any():
                return reading.hidden
            x = self.read_tokens(reading)
            removed = decode_sparse(SparseLatents(off, indices), self.sae.W_dec)
            return self.view.put(reading.hidden, x - removed * self.sae.token_scale(x))
        rest = SparseLatents(values.masked_fill(~kept, 0), indices)
        shift = scalar if error == "scalar" else 0.0
        x_hat = self.sae.decode(rest, like=self.read_tokens(reading))
        return self.view.put(reading.hidden, x_hat + shift)

    @torch.no_grad()
    def mean_error(self, reading: HookedActivations) -> float:
        """The scalar of the error term: the mean of x - x_hat over images, tokens and widths."""
        return float(self.error(reading).mean())

    @torch.no_grad()
    def error(self, reading: HookedActivations) -> Float[Tensor, "images read d_in"]:
        """(B, read tokens, d_in): x - x_hat, what the SAE leaves unexplained."""
        x = self.read_tokens(reading)
        return x - self.sae.decode(reading.latents, like=x)


def chosen(
    keep: Shaped[Tensor, "... d_sae"], indices: Int64[Tensor, "images tokens n"]
) -> Shaped[Tensor, "images tokens n"]:
    """keep (d_sae) or (B, d_sae) looked up at latent numbers (B, tokens, n)."""
    if keep.dim() == 1:
        return keep[indices]
    return keep.gather(1, indices.flatten(1)).view_as(indices)


def image_sums(
    weights: Num[Tensor, "images tokens n"], indices: Int64[Tensor, "images tokens n"], d_sae: int
) -> Num[Tensor, "images d_sae"]:
    """Dense (B, d_sae) sums over tokens of values (B, tokens, n) by latent number."""
    out = weights.new_zeros(len(weights), d_sae)
    return out.scatter_add_(1, indices.flatten(1), weights.flatten(1))
