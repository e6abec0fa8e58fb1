"""The sparse code of one image, quantised and packed for a browser.

Knows: numpy arrays and base64. Does not know: where latents come from or how they are drawn.

A code is a list of (place, latent, value) triplets sorted by place. A *place* is a patch number in
row-major order; the summary (CLS) token, where there is one, is the last place. Values are kept in
eight bits relative to the latent's own maximum in this image, so the error of a value is at most
1/510 of that maximum, and a latent that fires never rounds to zero.
"""

import base64
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Integer, Shaped, UInt8, UInt16, UInt32

MAX_PER_PLACE = 64
"""Latents kept for one place, the strongest; SAEs with more active ones are cut."""


class Code(NamedTuple):
    """One image's latents as triplets; see the module text."""

    n_places: int
    """Patches plus one for the summary token, where the backbone has one."""
    latents: UInt32[np.ndarray, " n_slots"]
    """(n_slots,) uint32: the distinct latents that fire, ascending."""
    scale: Float32[np.ndarray, " n_slots"]
    """(n_slots,) float32: each latent's maximum over the places of this image."""
    place: UInt16[np.ndarray, " n_triplets"]
    """(n_triplets,) uint16, ascending."""
    slot: Integer[np.ndarray, " n_triplets"]
    """(n_triplets,) uint16 or uint32: position in `latents`."""
    value: UInt8[np.ndarray, " n_triplets"]
    """(n_triplets,) uint8: 255 stands for `scale[slot]`."""


def quantise(values: Float[np.ndarray, "*places"], indices: Integer[np.ndarray, "*pairs"]) -> Code:
    """Sparse pairs (n_places, k) to a `Code`; entries with a value of zero or less are padding."""
    if values.shape != indices.shape or values.ndim != 2:
        raise ValueError(
            f"values and indices: got shapes {values.shape} and {indices.shape}, expected two "
            "arrays (n_places, k); pass the fields of one SparseLatents"
        )
    if not np.isfinite(values).all():
        raise ValueError("values: got NaN or infinity, expected finite activations")
    place, column = np.nonzero(values > 0)
    kept = values[place, column].astype(np.float32)
    latents, slot = np.unique(indices[place, column], return_inverse=True)
    scale = np.zeros(len(latents), np.float32)
    np.maximum.at(scale, slot, kept)
    levels = np.rint(kept / np.where(scale > 0, scale, 1)[slot] * 255)
    return Code(
        n_places=len(values),
        latents=latents.astype(np.uint32),
        scale=scale,
        place=place.astype(np.uint16),
        slot=slot.astype(np.uint16 if len(latents) < 2**16 else np.uint32),
        value=np.clip(levels, 1, 255).astype(np.uint8),
    )


def pack(code: Code) -> dict[str, object]:
    """A `Code` as JSON-ready values: little-endian arrays in base64."""
    return {
        "places": code.n_places,
        "wide": code.slot.dtype == np.uint32,
        "latents": to_base64(code.latents),
        "scale": to_base64(code.scale),
        "place": to_base64(code.place),
        "slot": to_base64(code.slot),
        "value": to_base64(code.value),
    }


def unpack(packed: dict[str, object]) -> Code:
    """The inverse of `pack`, exactly."""
    slot_type = np.dtype(np.uint32 if packed["wide"] else np.uint16)
    return Code(
        n_places=int(str(packed["places"])),
        latents=_from_base64(packed["latents"], np.dtype(np.uint32)),
        scale=_from_base64(packed["scale"], np.dtype(np.float32)),
        place=_from_base64(packed["place"], np.dtype(np.uint16)),
        slot=_from_base64(packed["slot"], slot_type),
        value=_from_base64(packed["value"], np.dtype(np.uint8)),
    )


def to_dense(code: Code, d_sae: int) -> Float32[np.ndarray, "n_places {d_sae}"]:
    """The code as a float32 array (n_places, d_sae), for checks and small notebooks."""
    dense = np.zeros((code.n_places, d_sae), np.float32)
    dense[code.place, code.latents[code.slot]] = code.value / 255 * code.scale[code.slot]
    return dense


def to_base64(array: Shaped[np.ndarray, "..."]) -> str:
    """Raw little-endian bytes of an array in base64."""
    return base64.b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode("ascii")


def _from_base64(text: object, dtype: np.dtype) -> np.ndarray:
    return np.frombuffer(base64.b64decode(str(text)), dtype.newbyteorder("<")).astype(dtype)
