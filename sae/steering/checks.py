"""What must hold between a model, an SAE and a request; one clear message for each that does not.

Knows the parts' numbers; runs nothing.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from sae.backbones import Backbone
from sae.backbones.vlm import VisionLanguage
from sae.concepts.index import ConceptIndex
from sae.model import SparseAutoencoder
from sae.steering.edits import MEASURED, Edit

if TYPE_CHECKING:
    from sae.steering.prepared import Prepared
    from sae.steering.steerer import Steerer


def check_pair(vlm: VisionLanguage, sae: SparseAutoencoder, index: ConceptIndex | None) -> int:
    """The layer to edit; ValueError if the SAE cannot be of this model's vision tower."""
    ref = sae.cfg.backbone
    trained = f"the SAE was trained on {ref.id!r}, layer {ref.layer}"
    if sae.cfg.d_in != vlm.d_model:
        raise ValueError(
            f"{trained}, of width {sae.cfg.d_in}; the vision tower of {vlm.id} has width "
            f"{vlm.d_model}. Use an SAE of this model's own tower"
        )
    if ref.family and vlm.family and ref.family != vlm.family:
        raise ValueError(
            f"{trained}, a {ref.family} model; the vision tower of {vlm.id} is {vlm.family}. Use an "
            "SAE of this model's own tower"
        )
    if index is not None and len(index) != sae.cfg.d_sae:
        raise ValueError(
            f"the index describes {len(index)} latents, the SAE has {sae.cfg.d_sae}; they must be "
            "of one artifact"
        )
    return vlm.resolve_layer(ref.layer)


def check_same_tower(vlm: VisionLanguage, backbone: Backbone) -> None:
    """ValueError unless the backbone's layers are the tower's, weight by weight."""
    pairs = list(zip(vlm.layers, backbone._layers, strict=False))
    same = backbone.n_layers == vlm.n_layers and backbone.d_model == vlm.d_model
    if not same or not all(_equal(one, other) for one, other in (pairs[0], pairs[-1])):
        raise ValueError(
            f"the vision tower of {vlm.id} is not backbone {backbone.id}: its weights differ. "
            "Give the backbone that the tower was made from, or none"
        )


def check_image(image: Any) -> None:
    """ValueError unless it is a Pillow picture."""
    if not isinstance(image, Image.Image):
        got = "none" if image is None else type(image).__name__
        raise ValueError(
            f"expected a picture, got {got}; open files with sae.images.open_image, arrays with "
            "PIL.Image.fromarray"
        )


def check_edits(steerer: "Steerer", edits: Sequence[Edit]) -> None:
    """ValueError for a latent that the SAE does not have, or a unit that nobody knows."""
    d_sae = steerer.sae.cfg.d_sae
    for edit in edits:
        if edit.latent >= d_sae:
            raise ValueError(f"latent {edit.latent}: this SAE has latents 0 to {d_sae - 1}")
        counts = edit.mode in MEASURED or edit.scope.above is not None
        if edit.units == "raw" or not counts:
            continue
        if steerer.max_activation is None:
            raise ValueError(
                "strengths are in multiples of each latent's maximum, but the SAE has no concept "
                "index; give units='raw', or max_activation to the Steerer"
            )
        if edit.strength and not float(steerer.max_activation[edit.latent]) > 0:
            raise ValueError(
                f"latent {edit.latent} never fired over the index, so it has no maximum to "
                "multiply; give its strength with units='raw'"
            )


def check_room(vlm: VisionLanguage, prepared: "Prepared", max_new_tokens: int) -> None:
    """ValueError if prompt and answer do not fit into the language model."""
    text = getattr(vlm.model.config, "text_config", None)
    room = getattr(text, "max_position_embeddings", None)
    used = prepared.inputs["input_ids"].shape[1]
    if room and used + max_new_tokens > room:
        raise ValueError(
            f"picture and prompt take {used} tokens and the answer up to {max_new_tokens}; "
            f"{vlm.id} has room for {room}. Shorten the prompt or the answer"
        )


def _equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    pairs = zip(one.parameters(), other.parameters(), strict=False)
    return all(
        a.shape == b.shape and torch.allclose(a.float().cpu(), b.float().cpu(), atol=1e-2)
        for a, b in pairs
    )
