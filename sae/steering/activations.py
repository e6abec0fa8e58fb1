"""From edits of latents to edited activations. Knows the SAE and a tower's layout; runs no model.

With the error term, h' = h + decode(z') - decode(z): only the latents that change are touched, so
an empty edit is h itself, bit for bit, and the cost does not depend on the SAE's width.
The control of an experiment is a random latent that changes each token by exactly as much: if it
changes an answer as the edit does, the change tells nothing about the edited concept.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from PIL import Image
from torch import Tensor

from sae.backbones.base import Backbone
from sae.backbones.tokens import inference_policy
from sae.backbones.vlm_layout import PatchLayout
from sae.model import SparseAutoencoder
from sae.sparse import SparseLatents, decode_sparse
from sae.steering.edits import EVERYWHERE, MEASURED, Edit, Scope


class Activations:
    """One picture's activations at the SAE's layer, and how edits change them.

    hidden: (rows, tokens, d), rows being tiles of the picture; or (tokens, d) for packed towers.
    """

    def __init__(
        self,
        hidden: Float[Tensor, "*rows tokens d"],
        sae: SparseAutoencoder,
        layout: Callable[[], PatchLayout],
        max_activation: Float[Tensor, " d_sae"] | None = None,
    ) -> None:
        self.hidden, self.sae = hidden, sae
        self.layout, self._max = layout, max_activation
        self.x = hidden[None] if hidden.dim() == 2 else hidden
        self._code: SparseLatents | None = None

    @property
    def code(self) -> SparseLatents:
        """Every active latent of every token; computed when first needed."""
        if self._code is None:
            with torch.no_grad():
                self._code = self.sae.encode_sparse(self.x.to(self.sae.W_enc.device))
        return self._code

    @torch.no_grad()
    def latents(self, numbers: Sequence[int]) -> Float[Tensor, "rows tokens n"]:
        """Activations (rows, tokens, len(numbers)) of a few latents."""
        cfg, sae = self.sae.cfg, self.sae
        if self._code is None and sae.architecture.elementwise and cfg.input_norm == "none":
            chosen = torch.as_tensor(list(numbers), device=sae.W_enc.device)
            x = self.x.to(sae.W_enc) - sae.b_dec
            h = x @ sae.W_enc[:, chosen] + sae.b_enc[chosen]
            vectors = {name: vector[chosen] for name, vector in sae.vectors.items()}
            return sae.architecture.latents(h, cfg, vectors)
        values, indices = self.code
        return torch.stack([(values * (indices == n)).sum(-1) for n in numbers], dim=-1)

    def raw(self, edit: Edit) -> float:
        """The edit's strength as the SAE's own activation (for scale, the factor as it is)."""
        return edit.strength * self._unit(edit) if edit.mode in MEASURED else edit.strength

    @torch.no_grad()
    def edited(
        self, edits: Sequence[Edit], *, error_term: bool = True
    ) -> Float[Tensor, "*rows tokens d"]:
        """The activations, shaped as `hidden`, after `edits`; `hidden` itself if nothing changes."""
        if not edits and error_term:
            return self.hidden
        return self.plus(self.change(edits, error_term=error_term))

    def plus(self, change: Float[Tensor, "rows tokens d"]) -> Float[Tensor, "*shape d"]:
        """The activations, shaped as `hidden`, with a change (rows, tokens, d) added."""
        changed = (self.x.float() + change).to(self.hidden.dtype)
        if not changed.isfinite().all():
            raise ValueError(
                f"the edit is too strong for {self.hidden.dtype}: activations would become infinite; "
                "use a smaller strength"
            )
        return changed.reshape(self.hidden.shape)

    @torch.no_grad()
    def change(
        self, edits: Sequence[Edit], *, error_term: bool = True
    ) -> Float32[Tensor, "rows tokens d"]:
        """What is added to the activations: (rows, tokens, d) float32."""
        numbers = sorted({edit.latent for edit in edits})
        before = self.latents(numbers) if numbers else self.x.new_zeros(*self.x.shape[:2], 0)
        after = before.clone()
        column = {number: place for place, number in enumerate(numbers)}
        emptied = torch.zeros(self.x.shape[:2], dtype=torch.bool, device=before.device)
        for edit in edits:
            z, here = after[..., column[edit.latent]], self._reach(edit, before, column)
            if edit.mode == "only":
                emptied |= here
            else:
                z.copy_(torch.where(here, self._new(edit, z), z))
        total = self._decoded(SparseLatents(after - before, _numbers(numbers, before)))
        if emptied.any():
            values, indices = self.code
            unnamed = ~torch.isin(indices, torch.tensor(numbers, device=indices.device))
            total = total - self._decoded(
                SparseLatents(values * (unnamed & emptied[..., None]), indices)
            )
        if not error_term:
            x, here = self.x.to(self.sae.W_dec), self._trained_on()
            total = total + (self.sae.decode(self.code, like=x) - x) * here[..., None]
        return total.to(self.x.device, torch.float32)

    def norms(self, change: Float[Tensor, "rows tokens d"]) -> float:
        """The change's size relative to the activations': a share, 0.18 for 18 %."""
        return float(change.norm() / self.x.float().norm().clamp(min=1e-12))

    def _decoded(self, latents: SparseLatents) -> Tensor:
        """The linear part of decoding (rows, tokens, d): no bias; undoes the SAE's input norm."""
        scale = self.sae.token_scale(self.x.to(self.sae.W_dec))
        return decode_sparse(latents, self.sae.W_dec) * scale

    def _new(self, edit: Edit, z: Tensor) -> Tensor:
        raw = self.raw(edit)
        if edit.mode == "set":
            return torch.full_like(z, raw)
        if edit.mode == "add":
            return z + raw
        if edit.mode == "scale":
            return z * raw
        return z.clamp(max=raw) if edit.mode == "clamp" else torch.zeros_like(z)

    def _unit(self, edit: Edit) -> float:
        if edit.units == "raw":
            return 1.0
        if self._max is None:
            raise ValueError(
                "strengths are in multiples of each latent's maximum, which nobody has told; give "
                "units='raw', or max_activation to the Steerer (ConceptIndex.max_activation)"
            )
        return float(self._max[edit.latent])

    def reach(self, scope: Scope = EVERYWHERE) -> Bool[Tensor, "rows tokens"]:
        """Bool (rows, tokens): the tokens of `scope` (without its `above`) that the SAE knows."""
        return self._tokens(scope).to(self.sae.W_dec.device) & self._trained_on()

    def _reach(self, edit: Edit, before: Tensor, column: dict[int, int]) -> Tensor:
        here = self.reach(edit.scope)
        if edit.scope.above is not None:
            above = edit.scope.above * self._unit(edit)
            here = here & (before[..., column[edit.latent]] > above)
        return here

    def _tokens(self, scope: Scope) -> Tensor:
        if scope.where == "all":
            return torch.ones(self.x.shape[:2], dtype=torch.bool)
        layout = self.layout()
        if scope.where == "cls" and not layout.has_cls:
            raise ValueError("this vision tower has no CLS token; choose all tokens or a region")
        if scope.where in ("patches", "cls"):
            return layout.read_by(scope.where)
        if scope.box is not None:
            return layout.tokens_in_box(scope.box)
        n_patches = layout.patch_grid[0] * layout.patch_grid[1]
        if max(scope.patches) >= n_patches:
            raise ValueError(
                f"region: patch {max(scope.patches)} lies outside the picture, whose grid of "
                f"{layout.patch_grid[0]} × {layout.patch_grid[1]} has patches 0 to {n_patches - 1}"
            )
        return layout.tokens_of_patches(scope.patches)

    def _trained_on(self) -> Tensor:
        """The tokens that the SAE was trained on: others have no latents."""
        policy = inference_policy(self.sae.cfg.backbone.tokens)
        if policy == "all":  # the layout need not be known
            return torch.ones(self.x.shape[:2], dtype=torch.bool, device=self.sae.W_dec.device)
        return self.layout().read_by(policy).to(self.sae.W_dec.device)


def layout_of(backbone: Backbone, size: tuple[int, int]) -> PatchLayout:
    """Where the backbone's tokens lie in a picture of `size` (width, height)."""
    rows, columns = backbone.patch_grid
    left, top, right, bottom = backbone.image_box(size)
    x = (left + (torch.arange(columns) + 0.5) / columns * (right - left)) / size[0]
    y = (top + (torch.arange(rows) + 0.5) / rows * (bottom - top)) / size[1]
    centres = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(1, -1, 2)
    return PatchLayout(centres, (rows, columns), backbone.n_prefix, backbone.has_cls)


def check_image(image: Any) -> None:
    """ValueError unless it is a Pillow picture."""
    if not isinstance(image, Image.Image):
        got = "none" if image is None else type(image).__name__
        raise ValueError(
            f"expected a picture, got {got}; open files with sae.images.open_image, arrays with "
            "PIL.Image.fromarray"
        )


def check_edits(
    edits: Sequence[Edit],
    sae: SparseAutoencoder,
    max_activation: Float[Tensor, " d_sae"] | None,
) -> None:
    """ValueError for a latent that the SAE does not have, or a unit that nobody knows."""
    d_sae = sae.cfg.d_sae
    for edit in edits:
        if edit.latent >= d_sae:
            raise ValueError(f"latent {edit.latent}: this SAE has latents 0 to {d_sae - 1}")
        counts = edit.mode in MEASURED or edit.scope.above is not None
        if edit.units == "raw" or not counts:
            continue
        if max_activation is None:
            raise ValueError(
                "strengths are in multiples of each latent's maximum, but the SAE has no concept "
                "index; give units='raw', or max_activation to the Steerer"
            )
        if edit.strength and not float(max_activation[edit.latent]) > 0:
            raise ValueError(
                f"latent {edit.latent} never fired over the index, so it has no maximum to "
                "multiply; give its strength with units='raw'"
            )


def control_latent(
    edits: Sequence[Edit],
    seed: int,
    d_sae: int,
    max_activation: Float[Tensor, " {d_sae}"] | None,
) -> int:
    """A latent drawn with `seed` from those that fire at all and are not edited."""
    alive = np.arange(d_sae)
    if max_activation is not None:
        alive = np.flatnonzero(max_activation.cpu().numpy() > 0)
    alive = np.setdiff1d(alive, [edit.latent for edit in edits])
    if not len(alive):
        raise ValueError("there is no other latent that fires, so there is no control")
    return int(np.random.default_rng(seed).choice(alive))


def control_change(
    sae: SparseAutoencoder, change: Float[Tensor, "rows tokens d"], latent: int
) -> Float[Tensor, "rows tokens d"]:
    """`change` (rows, tokens, d) turned into the latent's direction, token by token of equal norm."""
    direction = sae.W_dec[latent].detach().to(change)
    return change.norm(dim=-1, keepdim=True) * torch.nn.functional.normalize(direction, dim=0)


def _numbers(numbers: Sequence[int], like: Tensor) -> Tensor:
    chosen = torch.as_tensor(list(numbers), device=like.device, dtype=torch.int64)
    return chosen.expand(*like.shape[:-1], len(numbers))
