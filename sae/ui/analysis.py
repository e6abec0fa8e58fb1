"""From a picture to the sparse code the screen needs: one truncated forward, one encode.

Knows: a Backbone, a SparseAutoencoder and how tokens become places. Does not know: names, Gradio,
HTML. Holds no state of any visitor, so that sessions cannot mix.
"""

import threading
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32
from PIL import Image

from sae.backbones import Backbone
from sae.backbones.tokens import TokenView
from sae.model import SparseAutoencoder, SparseLatents
from sae.views.code import MAX_PER_PLACE, Code, quantise


class Analysis(NamedTuple):
    """What one picture says, place by place (patches row-major, then the summary token)."""

    code: Code
    error: Float32[np.ndarray, " places"]
    """(n_places,) float32: ||x - x_hat||^2."""
    total: Float32[np.ndarray, " places"]
    """(n_places,) float32: ||x - x_0||^2, what an SAE without any concept (x_0: b_dec) leaves unexplained."""
    box: tuple[float, float, float, float]
    """Left, top, right, bottom of what the model saw, as shares of the picture's sides."""


class Analyst:
    """Runs pictures through one backbone and one SAE; safe to share between threads."""

    def __init__(self, backbone: Backbone, sae: SparseAutoencoder) -> None:
        check_match(backbone, sae)
        self.backbone = backbone
        self.sae = sae
        view = TokenView(backbone, sae.cfg.backbone.tokens)
        self.grid, self.n_patches = view.patch_grid, view.n_patches
        self.has_summary, self.summary_only = view.reads_cls, not view.reads_patches
        self._one_at_a_time = threading.Lock()

    def analyse(self, image: Image.Image) -> Analysis:
        """The code of one picture and how much of every place it explains."""
        with self._one_at_a_time, torch.inference_mode():
            x = self._places(image)
            latents, x_hat = self._encode(x)
            error = (x - x_hat).float().square().sum(-1)
            total = (x - self.sae.without_latents(x)).float().square().sum(-1)
        width, height = image.size
        left, top, right, bottom = self.backbone.image_box(image.size)
        return Analysis(
            code=quantise(latents.values.float().cpu().numpy(), latents.indices.cpu().numpy()),
            error=error.cpu().numpy(),
            total=total.cpu().numpy(),
            box=(left / width, top / height, right / width, bottom / height),
        )

    def _places(self, image: Image.Image) -> torch.Tensor:
        """Activations (n_places, d_in): patches first, the summary token last."""
        backbone, weight = self.backbone, self.sae.W_enc
        tokens = backbone.activations([image], self.sae.cfg.backbone.layer)[0]
        patches = tokens[TokenView(backbone, "patches").span]
        places = torch.cat([patches, tokens[:1]]) if self.has_summary else patches
        return places.to(device=weight.device, dtype=weight.dtype)

    def _encode(self, x: torch.Tensor) -> tuple[SparseLatents, torch.Tensor]:
        """The strongest latents of every place, and the reconstruction from all of them."""
        if self.sae.architecture.sparse:
            latents = self.sae.encode_sparse(x)
            x_hat = self.sae.decode(latents, like=x)
            kept = SparseLatents(*(part[..., :MAX_PER_PLACE] for part in latents))
            return kept, x_hat
        dense = self.sae.encode(x)
        strongest = dense.topk(min(MAX_PER_PLACE, dense.shape[-1]), dim=-1)
        return SparseLatents(strongest.values, strongest.indices), self.sae.decode(dense, like=x)


def check_match(backbone: Backbone, sae: SparseAutoencoder) -> None:
    """Raise ValueError where the SAE cannot have been made for this backbone."""
    ref = sae.cfg.backbone
    if sae.cfg.d_in != backbone.d_model:
        raise ValueError(
            f"the SAE and the backbone do not fit: the SAE reads vectors of width {sae.cfg.d_in} "
            f"(made for {ref.id!r}), the backbone {backbone.id!r} gives width {backbone.d_model}; "
            f"start with --backbone {ref.id}, or choose an SAE made for {backbone.id!r}"
        )
    if ref.family is not None and ref.family != backbone.family:
        raise ValueError(
            f"the SAE and the backbone do not fit: the SAE was made for the family {ref.family!r} "
            f"({ref.id!r}), the backbone {backbone.id!r} is of the family {backbone.family!r}; "
            f"start with --backbone {ref.id}"
        )
    backbone.resolve_layer(ref.layer)
