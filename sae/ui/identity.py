"""Which models a page shows: what files that are taken away say of them, and what own notes are kept by.

Knows models and where they were loaded from; knows no pictures and no screens.
"""

from typing import TYPE_CHECKING

from sae.artifact import weights_sha256
from sae.ui.dispatch import Json

if TYPE_CHECKING:
    from sae.backbones import Backbone
    from sae.concepts.index import ConceptIndex
    from sae.model import SparseAutoencoder


def identity(
    backbone: "Backbone", sae: "SparseAutoencoder", index: "ConceptIndex | None", source: str
) -> Json:
    """`{backbone, layer, sae, sha256, d_sae, architecture}`, as JSON values. `source`: what `sae` was
    loaded from, of which only the last part is told if it is a path of this machine."""
    cfg = sae.cfg
    return {
        "backbone": public_name(backbone.id),
        "layer": backbone.resolve_layer(cfg.backbone.layer),
        "sae": public_name(source),
        "sha256": (index.sae_sha256 if index is not None else "")
        or weights_sha256(cfg, sae.state_dict()),
        "d_sae": cfg.d_sae,
        "architecture": sae.architecture.label,
    }


def public_name(source: str) -> str:
    """A Hub id, a preset or "bundled" as it is; of a path, which is this machine's own, the last part."""
    is_path = source.startswith((".", "~")) or "\\" in source or source.count("/") != 1
    return source.rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1] if is_path else source
