"""The sparse autoencoder: activations in, latents out, and back.

Knows the maths of encoding and decoding, for dense latents and for sparse (values, indices) pairs.
Knows nothing of losses, data, images or the Hub; reading and writing is done by `sae.artifact`
and `sae.hub`.
"""

import math
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sae import artifact, hub
from sae.architectures import Architecture, architecture
from sae.config import BackboneRef, SAEConfig, TokenPolicy
from sae.errors import ArtifactError, HubFileNotFound
from sae.sparse import SparseLatents, decode_sparse, tokens_per_chunk

__all__ = ["BackboneRef", "SAEConfig", "SparseAutoencoder", "SparseLatents"]

_SUMS_OVERFLOW = 1e15
"""Of larger activations, products with weights may overflow float32 on the way to a number that would fit."""


class SparseAutoencoder(nn.Module):
    """latents = act((x - b_dec) @ W_enc + b_enc);  x_hat = latents @ W_dec + b_dec.

    `act` by architecture (`sae.architectures`), with h the pre-activations:
        relu                      max(h, 0)
        topk                      max(h, 0) where h is among the k largest of its token, else 0
                                  (cfg.negative: or h itself; or by |h|)
        batch_topk, matryoshka    h where h > max(threshold, 0), else 0   (one scalar threshold)
        jumprelu                  h where h > max(threshold, 0), else 0   (one threshold per latent)

    Parameters: `W_enc (d_in, d_sae)`, `b_enc (d_sae)`, `W_dec (d_sae, d_in)`, `b_dec (d_in)` and,
    for jumprelu only, `threshold (d_sae)`. Inputs are raw backbone activations; whatever scaling
    training used is folded into the weights. Inputs are converted to the weights' dtype. With
    cfg.input_norm, x above is the normalised token, and decoding needs the token again to undo it (one of
    nothing but zeros stays that, in and out).

    NaN and infinity are never taken for "no latent is active": activations and latents that hold them, or
    that overflow the weights' dtype on the way, are a ValueError that says where.
    """

    W_enc: nn.Parameter
    b_enc: nn.Parameter
    W_dec: nn.Parameter
    b_dec: nn.Parameter

    def __init__(self, cfg: SAEConfig, *, device: torch.device | str = "cpu") -> None:
        """An SAE of zeros, to be filled; `from_pretrained` is the usual way to get one."""
        super().__init__()
        self.cfg = cfg
        shapes = artifact.parameter_shapes(cfg)
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape, device=device)))

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """Dense latents `(*batch, d_sae)` of activations `(*batch, d_in)`."""
        h = self._preactivations(self._flat(x), x)
        latents = self.architecture.latents(h, self.cfg, self.vectors)
        self._require_finite(latents, x)
        return latents.reshape(*x.shape[:-1], self.cfg.d_sae)

    def encode_sparse(
        self, x: Float[Tensor, "*batch d_in"], max_active: int | None = None
    ) -> SparseLatents:
        """The active latents of activations `(*batch, d_in)`, strongest first.

        Both fields have shape `(*batch, n)`; n is k for topk, else the largest number of latents
        active on any token of `x`, and never more than `max_active`, which keeps the strongest.
        Unused places hold value 0 and index 0. Tokens are taken in chunks, so no array of
        `tokens × d_sae` is built for long inputs.
        """
        if max_active is not None and max_active < 1:
            raise ValueError(f"max_active must be at least 1, got {max_active}.")
        flat = self._flat(x)
        chunks = flat.split(tokens_per_chunk(self.cfg.d_sae))
        values, indices = SparseLatents.join(
            [
                self.architecture.sparse_latents(
                    self._preactivations(chunk, x), self.cfg, self.vectors, max_active
                )
                for chunk in chunks
            ]
        )
        self._require_finite(values, x)
        shape = (*x.shape[:-1], values.shape[-1])
        return SparseLatents(values.reshape(shape), indices.reshape(shape))

    def decode(
        self,
        latents: Float[Tensor, "*batch d_sae"] | SparseLatents,
        like: Float[Tensor, "*batch d_in"] | None = None,
    ) -> Float[Tensor, "*batch d_in"]:
        """Activations `(*batch, d_in)` from dense `(*batch, d_sae)` or sparse latents.

        `like`, the activations that were encoded, matters only for an SAE with cfg.input_norm: the
        tokens' own mean and size are put back from it, and ValueError is raised without it.
        """
        if self.cfg.input_norm != "none":
            if like is None:
                raise ValueError(
                    f"this SAE normalises each token ({self.cfg.input_norm}), so decode needs the "
                    "activations that were encoded: decode(latents, like=x)."
                )
            shift, size = self._normalisation(like.to(self.W_dec.dtype))
            self._require_finite(size, like, "activations")
            decoded = (self._decode(latents) * size + shift).to(self.W_dec.dtype)
        else:
            decoded = self._decode(latents)
        given = latents.values if isinstance(latents, SparseLatents) else latents
        self._require_finite(decoded, given, "latents")
        return decoded

    def token_scale(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch 1"] | float:
        """What `decode` multiplies latents' rows by at tokens `x (*batch, d_in)`: `(*batch, 1)`; 1.0
        without cfg.input_norm. A change dz of latents changes activations by dz @ W_dec · scale."""
        if self.cfg.input_norm == "none":
            return 1.0
        return self._normalisation(x.to(self.W_dec.dtype))[1].to(self.W_dec.dtype)

    def without_latents(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        """What `decode` gives at tokens `x (*batch, d_in)` when no latent is active, like `x`."""
        if self.cfg.input_norm == "none":
            return self.b_dec.expand(x.shape)
        shift, size = self._normalisation(x.to(self.W_dec.dtype))
        return (self.b_dec * size + shift).to(self.b_dec.dtype)

    def _decode(self, latents: Tensor | SparseLatents) -> Tensor:
        if isinstance(latents, SparseLatents):
            return decode_sparse(latents, self.W_dec) + self.b_dec
        if latents.shape[-1] != self.cfg.d_sae:
            raise ValueError(
                f"decode expects latents of width d_sae={self.cfg.d_sae}, "
                f"got shape {tuple(latents.shape)}."
            )
        return latents.to(self.W_dec.dtype) @ self.W_dec + self.b_dec

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        """The reconstruction of activations `(*batch, d_in)`: `decode(encode(x))`."""
        if self.architecture.sparse:
            return self.decode(self.encode_sparse(x), like=x)
        return self.decode(self.encode(x), like=x)

    @classmethod
    def from_pretrained(
        cls,
        id_or_dir: str | Path,
        *,
        revision: str | None = None,
        subfolder: str | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
    ) -> Self:
        """Load an artifact (format 1) from a folder, a Hub id, `"bundled"` or `"photos"`.

        `"preset:NAME"` (or the bare name) loads a published SAE of `sae.interop.presets`, whatever library
        wrote it, and warns of what its files did not say and had to be assumed. `dtype=None` means
        float32. Nothing is unpickled and loading is strict: any difference
        between the files and what config.json promises raises `sae.errors.ArtifactError`; a Hub
        repository that cannot be had raises `sae.errors.HubError`. Both name the next step; of another
        library's SAE they say whose it looks like, and the call that opens it.
        """
        access: dict[str, Any] = {
            "revision": revision,
            "token": token,
            "local_files_only": local_files_only,
        }
        from sae.interop import presets, recognise

        if presets.is_preset(id_or_dir) and subfolder is None:
            conversion = presets.load(str(id_or_dir), **access)
            _warn(id_or_dir, conversion.reading.assumed)
            cfg, tensors = conversion.cfg, conversion.tensors
        else:
            files = artifact.REQUIRED_FILES
            if Path(id_or_dir).is_file():
                told = recognise.advice(id_or_dir) or "Give the folder that holds it."
                raise ArtifactError(Path(id_or_dir), "a file", "an artifact's folder", told)
            try:
                folder = hub.local_folder(id_or_dir, files=files, subfolder=subfolder, **access)
                cfg, tensors = artifact.read(folder)
            except (ArtifactError, HubFileNotFound) as error:
                if told := recognise.advice(id_or_dir, subfolder, **access):
                    error.args = (f"{error} {told}",)
                raise
        return cls._from_weights(cfg, tensors).to(device=device, dtype=dtype or torch.float32)

    @classmethod
    def from_other(
        cls,
        source: str | Path,
        *,
        format: str | None = None,
        backbone: str | None = None,
        layer: int | None = None,
        tokens: TokenPolicy | None = None,
        k: int | None = None,
        norm: str | Path | tuple[Float[Tensor, " d_in"], float] | None = None,
    ) -> Self:
        """Load an SAE that another library wrote, from its folder or file (`sae.interop.READERS`).

        What the files do not say has to be given: usually `backbone` and `layer`; of what is assumed
        instead a UserWarning tells. `norm` is the mean (d_in) and the size by which activations were
        centred and divided before training, or a file of both (`mean`, `std`). Pickles are read
        without running them. Raises `sae.errors.ArtifactError` for files that are damaged, unknown, not
        expressible, or read so that they compute something else than their library, and ValueError
        where something has to be given.
        """
        from sae import interop
        from sae.interop.source import read_norm

        given = read_norm(norm) if isinstance(norm, (str, Path)) else norm
        hints = interop.Hints(format, backbone, layer, tokens, k, given)
        conversion = interop.read(source, hints)
        _warn(source, conversion.reading.assumed)
        return cls._from_weights(conversion.cfg, conversion.tensors)

    @classmethod
    def _from_weights(cls, cfg: SAEConfig, tensors: Mapping[str, Tensor]) -> Self:
        sae = cls(cfg, device="meta")
        weights = {name: tensors[name] for name in artifact.parameter_shapes(cfg)}
        sae.load_state_dict(weights, strict=True, assign=True)
        return sae.eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json, cfg.json (SAELens 6) and sae_weights.safetensors into `folder`.

        Each file is written whole under another name and then renamed; config.json comes last and
        holds the sha256 of the weights, so a half-written artifact is never taken for a whole one.
        """
        artifact.write(folder, self.cfg, {n: p.detach() for n, p in self.named_parameters()})

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        commit_message: str = "Upload a sparse autoencoder",
    ) -> str:
        """Save, render the card and upload; returns the commit's address.

        `revision` is the branch to write to. A trained run's folder holds its metrics as well:
        push that with `sae.hub.push_folder`, whose card then carries the figures.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return hub.push_folder(
                folder,
                repo_id,
                private=private,
                token=token,
                revision=revision,
                commit_message=commit_message,
            )

    @property
    def architecture(self) -> Architecture:
        """What the table of `sae.architectures` says of cfg.architecture."""
        return architecture(self.cfg.architecture)

    @property
    def vectors(self) -> dict[str, Float[Tensor, " d_sae"]]:
        """The parameters `(d_sae)` that this architecture has besides b_enc, by name."""
        return {name: getattr(self, name) for name in self.architecture.vectors}

    def extra_repr(self) -> str:
        cfg = self.cfg
        return f"{cfg.architecture}, d_in={cfg.d_in}, d_sae={cfg.d_sae}, k={cfg.k}"

    def _flat(self, x: Tensor) -> Tensor:
        if x.dim() < 1 or x.shape[-1] != self.cfg.d_in:
            raise ValueError(
                f"SAE expects activations of width d_in={self.cfg.d_in}, got shape "
                f"{tuple(x.shape)}; was it trained on another backbone than "
                f"{self.cfg.backbone.id!r}?"
            )
        return x.reshape(-1, self.cfg.d_in).to(self.W_enc.dtype)

    def _preactivations(self, x: Tensor, given: Tensor) -> Tensor:
        """`(tokens, d_sae)` of some tokens `x` of those that were `given`."""
        if self.cfg.input_norm != "none":
            shift, size = self._normalisation(x)
            self._require_finite(size, given)
            size = size + 1e-5 if self.cfg.input_norm == "layer_norm" else size + (size == 0)
            x = ((x - shift) / size).to(x.dtype)
        centred = x - self.b_dec
        largest = self._require_finite(centred, given)
        h = torch.addmm(self.b_enc, centred, self.W_enc)
        if largest > _SUMS_OVERFLOW:
            self._require_finite(h, given)
        return h

    def _normalisation(self, x: Tensor) -> tuple[Tensor | float, Tensor]:
        """What cfg.input_norm takes off each token of `x (*batch, d_in)`: a shift and a size, float32 for
        weights of half precision."""
        wide = x if x.dtype == torch.float64 else x.float()
        if self.cfg.input_norm == "layer_norm":
            std, mean = torch.std_mean(wide, dim=-1, keepdim=True)
            return mean, std
        return 0.0, wide.norm(dim=-1, keepdim=True) / self.cfg.d_in**0.5

    @torch.no_grad()
    def _require_finite(self, result: Tensor, given: Tensor, what: str = "activations") -> float:
        """The largest size in `result`; ValueError that says what is wrong with what was `given`."""
        if not result.numel():
            return 0.0
        largest = float(torch.stack(result.aminmax()).abs().amax())
        if math.isfinite(largest):
            return largest
        shape, where = tuple(given.shape), self.cfg.backbone
        bad = ~given.isfinite()
        if bool(bad.any()):
            at = bad.nonzero()[0].tolist()
            kind = "NaN" if bool(given[tuple(at)].isnan()) else "infinity"
            raise ValueError(
                f"{what} of shape {shape} hold {kind} at {at}, so they say nothing of concepts (layer "
                f"{where.layer} of {where.id}). Find where it comes from: a backbone in float16 may "
                "overflow, use float32."
            )
        dtype = str(self.W_enc.dtype).removeprefix("torch.")
        next_step = "Load it with dtype=torch.float32." if dtype == "float16" else "Check them."
        raise ValueError(
            f"{what} of shape {shape} and of sizes up to {float(given.abs().max()):.3g} overflow "
            f"this SAE's {dtype} (layer {where.layer} of {where.id}). {next_step}"
        )


def _warn(source: str | Path, assumed: Sequence[str]) -> None:
    """Tell the caller's caller what a reader took for granted."""
    if assumed:
        warnings.warn(f"{source}: assumed {'; '.join(assumed)}.", stacklevel=3)
