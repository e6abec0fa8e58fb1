"""PatchLens: sparse autoencoders for vision transformers. Names are loaded when first used."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sae.adaptation.compare import Comparison
    from sae.adaptation.files import load_head
    from sae.adaptation.heads import register_head
    from sae.architectures import Architecture, register_architecture
    from sae.backbones import Backbone
    from sae.backbones.loading import register_family
    from sae.concepts.index import ConceptIndex
    from sae.concepts.statistics import register_statistic
    from sae.config import BackboneRef, SAEConfig
    from sae.errors import (
        ArtifactError,
        BackboneError,
        ConfigError,
        HubAccessDenied,
        HubError,
        HubFileNotFound,
        HubNotCached,
        HubRepositoryNotFound,
        HubUnreachable,
        ImageError,
        PatchLensError,
    )
    from sae.interop import register_reader
    from sae.model import SparseAutoencoder
    from sae.sparse import SparseLatents
    from sae.steering.edits import Edit
    from sae.steering.steerer import Steerer
    from sae.world.scenes import Scene

__all__ = [
    "Architecture",
    "ArtifactError",
    "Backbone",
    "BackboneError",
    "BackboneRef",
    "Comparison",
    "ConceptIndex",
    "ConfigError",
    "Edit",
    "HubAccessDenied",
    "HubError",
    "HubFileNotFound",
    "HubNotCached",
    "HubRepositoryNotFound",
    "HubUnreachable",
    "ImageError",
    "PatchLensError",
    "SAEConfig",
    "Scene",
    "SparseAutoencoder",
    "SparseLatents",
    "Steerer",
    "load_head",
    "register_architecture",
    "register_family",
    "register_head",
    "register_reader",
    "register_statistic",
]

_HOMES = {
    "Architecture": "sae.architectures",
    "ArtifactError": "sae.errors",
    "Backbone": "sae.backbones",
    "BackboneError": "sae.errors",
    "BackboneRef": "sae.config",
    "Comparison": "sae.adaptation.compare",
    "ConceptIndex": "sae.concepts.index",
    "ConfigError": "sae.errors",
    "Edit": "sae.steering.edits",
    "HubAccessDenied": "sae.errors",
    "HubError": "sae.errors",
    "HubFileNotFound": "sae.errors",
    "HubNotCached": "sae.errors",
    "HubRepositoryNotFound": "sae.errors",
    "HubUnreachable": "sae.errors",
    "ImageError": "sae.errors",
    "PatchLensError": "sae.errors",
    "SAEConfig": "sae.config",
    "Scene": "sae.world.scenes",
    "SparseAutoencoder": "sae.model",
    "SparseLatents": "sae.sparse",
    "Steerer": "sae.steering.steerer",
    "load_head": "sae.adaptation.files",
    "register_architecture": "sae.architectures",
    "register_family": "sae.backbones.loading",
    "register_head": "sae.adaptation.heads",
    "register_reader": "sae.interop",
    "register_statistic": "sae.concepts.statistics",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'sae' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
