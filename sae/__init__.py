"""PatchLens: sparse autoencoders for vision transformers. Names are loaded when first used."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sae.backbones import Backbone
    from sae.concepts.index import ConceptIndex
    from sae.config import BackboneRef, SAEConfig
    from sae.model import SparseAutoencoder
    from sae.sparse import SparseLatents
    from sae.steering.steerer import Steerer
    from sae.world.scenes import Scene

__all__ = [
    "Backbone",
    "BackboneRef",
    "ConceptIndex",
    "SAEConfig",
    "Scene",
    "SparseAutoencoder",
    "SparseLatents",
    "Steerer",
]

_HOMES = {
    "Backbone": "sae.backbones",
    "BackboneRef": "sae.config",
    "ConceptIndex": "sae.concepts.index",
    "SAEConfig": "sae.config",
    "Scene": "sae.world.scenes",
    "SparseAutoencoder": "sae.model",
    "SparseLatents": "sae.sparse",
    "Steerer": "sae.steering.steerer",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'sae' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
